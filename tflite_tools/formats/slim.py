"""The same network in fewer bytes around the weights: what a device does not need, and copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from tflite_tools.formats.result import RUNTIMES, Result, checked
from tflite_tools.pruning import smaller
from tflite_tools.running import runtime, samples
from tflite_tools.running.runtime import LITERT, TFLM
from tflite_tools.schema import contents as models
from tflite_tools.schema import file_layout, flatbuffer
from tflite_tools.schema.contents import Model


@dataclasses.dataclass(frozen=True)
class Pass:
    """What one pass saved, in bytes."""

    name: str
    saved: int


@dataclasses.dataclass(frozen=True, eq=False)
class Slim:
    """A slim file.

    Attributes:
        result: the file and its comparison with the one it was made from.
        passes: what each pass saved, in order, without those that saved nothing.
        accepted: runtimes that run it; those that ran the source and no longer do are not among
            them, and are an error for the target that asked for them.
    """

    result: Result
    passes: tuple[Pass, ...]
    accepted: tuple[str, ...]


def convert(model: Model, *, target: str = "any") -> Slim:
    """Drop names, metadata and, for TFLM, the biases' scales and channels that are not needed.

    Equal vectors and tables are shared, which files of other tools and of early versions are not.

    The manifest goes with the metadata: codes can then be compared with the canonical file only by
    the order of the operators (`tflite_tools compare` and `verify --canonical` do).

    Args:
        model: any .tflite file that TFLM or LiteRT runs.
        target: "any" or "litert" keep what LiteRT and XNNPACK want; "tflm" drops more.

    Raises:
        ValueError: if the result does not compute the same bits in every runtime of the target that
            ran the source.
    """
    slim, passes = encode(model, target=target)
    result = checked(slim, model, runtimes=_runtimes(model, target))
    return Slim(result, passes, _accepted(slim))


def encode(model: Model, *, target: str = "any") -> tuple[Model, tuple[Pass, ...]]:
    """The file of `convert` before it is compared, and what each pass saved.

    Raises:
        ValueError: as `convert`, but for the comparison.
    """
    if target not in RUNTIMES:
        raise ValueError(f"A slim file is not meant for {target}: its compiler writes its own.")
    container = flatbuffer.read(model.data)
    slim = flatbuffer.write(container)
    passes = [Pass("equal vectors and tables shared", len(model.data) - len(slim))]
    runtimes = _runtimes(model, target)
    if runtimes == (TFLM,) and (needed := _needed(model)) is not model:
        container, size = flatbuffer.read(needed.data), len(slim)
        slim = flatbuffer.write(container)
        passes.append(Pass("channels that are not needed left out", size - len(slim)))
    for name, drop in _passes(runtimes):
        drop(container)
        size, slim = len(slim), flatbuffer.write(container)
        passes.append(Pass(name, size - len(slim)))
    return models.load(slim), tuple(step for step in passes if step.saved)


def _runtimes(model: Model, target: str) -> tuple[str, ...]:
    """What the slim file is to run in; files with tables run in TFLM alone."""
    return (TFLM,) if model.main.encoded else RUNTIMES[target]


def _needed(model: Model) -> Model:
    """A canonical file without the channels that it does not need, other files as they are.

    What constant channels hold is rounded as TFLM does; in LiteRT they may be another level.
    """
    packed = any(tensor.dtype == "INT4" for tensor in model.main.tensors)
    return model if packed or model.manifest is None else smaller.of_model(model).model


def _passes(runtimes: Sequence[str]) -> Sequence[tuple[str, Callable[[Any], None]]]:
    passes = [
        ("names and signatures dropped", _drop_names),
        ("metadata and manifest dropped", _drop_metadata),
    ]
    if tuple(runtimes) == (TFLM,):
        passes.append(("scales of biases dropped", _drop_bias_scales))
    return passes


def _drop_names(container: Any) -> None:
    container.description = container.signatureDefs = None
    for graph in container.subgraphs:
        graph.name = None
        for tensor in graph.tensors:
            tensor.name = None


def _drop_metadata(container: Any) -> None:
    container.metadata = container.metadataBuffer = None
    flatbuffer.drop_unused_buffers(container)


def _drop_bias_scales(container: Any) -> None:
    """TFLM takes the scales of input and weights; XNNPACK would no longer take the operators.

    Of a FULLY_CONNECTED it compares the bias' scale with theirs, and refuses one that is far off.
    """
    model = models.written(container)
    for source, graph in zip(model.graphs, container.subgraphs, strict=True):
        for op in source.ops:
            index = file_layout.bias_index(op)
            if index is not None and op.name != "FULLY_CONNECTED":
                graph.tensors[index].quantization = None


def _accepted(model: Model) -> tuple[str, ...]:
    """The runtimes that run a file."""
    inputs = samples.stored(model, samples.seeded(model, samples=1, seed=0))
    found = []
    for name in (LITERT, TFLM):
        if runtime.available(name):
            try:
                runtime.run(model, inputs, runtime=name)
            except runtime.RuntimeFailedError:
                continue
            found.append(name)
    return tuple(found)
