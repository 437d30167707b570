"""Where LiteRT and TFLM diverge: every activation of a file in both, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tflite_tools.checks.compare import TensorRow
from tflite_tools.checks.derived_file import NO_TFLM
from tflite_tools.running import runtime
from tflite_tools.running.runtime import LITERT, TFLM, RuntimeFailedError
from tflite_tools.schema import contents as models
from tflite_tools.schema import flatbuffer
from tflite_tools.schema.contents import Model

MOST_BYTES = 2**26  # of activations that are kept of all samples
WHY = (
    "TFLM rounds a sum twice, LiteRT once: where the first of the two roundings carries a value "
    "over the middle between two levels, the activation lies one level beside, and the layers "
    "behind it start from there."
)


@dataclasses.dataclass(frozen=True)
class Rounding:
    """Differences between the runtimes, in levels of each activation's own grid.

    Attributes:
        rows: the activations in the order they are computed.
        samples: number of inputs that were run.
        skipped: why nothing was run, "" if it was.
    """

    rows: tuple[TensorRow, ...]
    samples: int
    skipped: str = ""


def measure(
    model: Model, inputs: Sequence[np.ndarray], *, time_limit: float = runtime.TIME_LIMIT
) -> Rounding:
    """Run a file in both runtimes and compare every int8 activation.

    LiteRT computes as it does in use, with XNNPACK: the activations are made outputs of the file.

    Args:
        model: the file.
        inputs: stored values, one array per input; as many samples are used as fit `MOST_BYTES`.
        time_limit: seconds for each runtime.

    Raises:
        ValueError: if the file has nothing to compare, or the inputs do not fit it.
    """
    if not runtime.available(TFLM):
        return Rounding((), 0, NO_TFLM)
    exposed = expose(model)
    tensors = [exposed.main.tensors[index] for index in exposed.main.outputs]
    size = sum(int(np.prod(tensor.shape)) for tensor in tensors)
    count = max(1, min(len(inputs[0]), MOST_BYTES // max(size, 1)))
    few = [array[:count] for array in inputs]
    try:
        ours, theirs = (_outputs(exposed, few, name, time_limit) for name in (LITERT, TFLM))
    except RuntimeFailedError as error:
        return Rounding((), 0, str(error))
    rows = [
        _row(tensor.label, mine, other)
        for tensor, mine, other in zip(tensors, ours, theirs, strict=True)
    ]
    return Rounding(tuple(rows), count)


def expose(model: Model) -> Model:
    """The file with all int8 activations that operators compute, and nothing else, as outputs.

    Raises:
        ValueError: if the file has several subgraphs or no such activation.
    """
    container = flatbuffer.read(model.data)
    if len(container.subgraphs) != 1:
        raise ValueError("The file has several subgraphs.")
    computed = [tensor for op in model.main.ops for tensor in model.main.made(op)]
    places = [tensor.index for tensor in computed if tensor.dtype == "INT8" and tensor.data is None]
    if not places:
        raise ValueError("The file computes no int8 activations.")
    container.subgraphs[0].outputs = places
    container.signatureDefs = None
    return models.written(container)


def _outputs(
    model: Model, inputs: Sequence[np.ndarray], name: str, time_limit: float
) -> tuple[np.ndarray, ...]:
    return runtime.run(model, inputs, runtime=name, time_limit=time_limit).outputs


def _row(name: str, ours: np.ndarray, theirs: np.ndarray) -> TensorRow:
    off = np.abs(ours.astype(np.int16) - theirs)
    return TensorRow(name, float(off.mean()), float(off.max()), float(np.mean(off > 0)))
