"""A file in which every operator is isolated: its activations are inputs, its result an output.

Rounding differences grow from layer to layer, so whole low-bit nets can differ a lot although every
operator is correct. With the same input activations, operators can be compared one by one.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tflite_tools.arithmetic import interpolation
from tflite_tools.running import samples
from tflite_tools.schema import contents as models
from tflite_tools.schema import flatbuffer
from tflite_tools.schema.contents import Model, Op, Tensor

# What two right results of an operator may differ by, in levels. Moving numbers is exact. All
# others round a real number, LiteRT once and TFLM twice, which moves values near the middle of two
# levels by one; LiteRT's leaky ReLU also rounds its slopes to 1/256, half a level at 255, and TFLM
# the distances of a resized image's pixels to 1/1024, which adds up.
_EXACT_OPS = frozenset(
    (
        *("CONCATENATION", "GATHER", "MAXIMUM", "MAX_POOL_2D", "MINIMUM", "PAD", "PADV2"),
        *("REDUCE_MAX", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SPLIT", "SQUEEZE"),
        *("STRIDED_SLICE", "TRANSPOSE"),
    )
)
_MOST_LEVELS = {"LEAKY_RELU": 2, **dict.fromkeys(_EXACT_OPS, 0)}
_LEVELS = 255
# At most every second value lies in the middle: n * p / q, in lowest terms, does for one n in q,
# and only if q is even.
MOST_MOVED = 0.5
_DEVIATIONS = 4.0  # by which a share that is counted on few values may be above


@dataclasses.dataclass(frozen=True, eq=False)
class Isolated:
    """Operators side by side.

    Attributes:
        model: the file.
        inputs: names, in the original file, of the tensors that the inputs stand for.
        outputs: names of the outputs.
        most_levels: the number of levels by which two correct results may differ, for each output.
    """

    model: Model
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    most_levels: tuple[int, ...]


def isolate(model: Model) -> Isolated:
    """Cut a file between its operators; float edges are left out.

    Args:
        model: a file with one subgraph.

    Raises:
        ValueError: if it has more subgraphs or no operators.
    """
    container = flatbuffer.read(model.data)
    if len(container.subgraphs) != 1:
        raise ValueError("The file has several subgraphs.")
    (graph,) = container.subgraphs
    operators = [
        operator
        for operator, op in zip(graph.operators or [], model.main.ops, strict=True)
        if not samples.is_edge(model, op)
    ]
    if not operators:
        raise ValueError("The file has no operators.")
    inputs, names = [], []
    for operator in operators:
        operator.inputs = flatbuffer.indices(operator.inputs)
        for position, index in enumerate(operator.inputs):
            if index < 0 or not _is_cut(model.main.tensors[index]):
                continue
            inputs.append(len(graph.tensors))
            names.append(model.main.tensors[index].name)
            operator.inputs[position] = len(graph.tensors)
            graph.tensors.append(_copy(graph.tensors[index], len(inputs)))
    made = [index for operator in operators for index in flatbuffer.indices(operator.outputs)]
    outputs = [index for index in made if _is_cut(model.main.tensors[index])]
    graph.operators, graph.inputs, graph.outputs = operators, inputs, outputs
    container.signatureDefs = None
    results = tuple(model.main.tensors[index].name for index in outputs)
    part = models.written(container)
    makers = {index: op for op in part.main.ops for index in op.outputs}
    most = tuple(_most_levels(part, makers[index]) for index in outputs)
    return Isolated(part, tuple(names), results, most)


def _most_levels(model: Model, op: Op) -> int:
    """The number of levels by which two correct results of an operator may differ."""
    if op.name != "RESIZE_BILINEAR":
        return _MOST_LEVELS.get(op.name, 1)
    source, made = (model.main.tensors[edge[0]].shape[1:3] for edge in (op.inputs, op.outputs))
    settings = {
        "half_pixel_centers": bool(op.options.get("halfPixelCenters")),
        "align_corners": bool(op.options.get("alignCorners")),
    }
    apart = 0.0
    for sizes in zip(source, made, strict=True):
        try:
            tflm, xnnpack = (
                axis(*sizes, **settings) for axis in (interpolation.tflm, interpolation.xnnpack)
            )
        except ValueError:
            return _LEVELS
        apart += float(np.abs(tflm.places - xnnpack.places).max())
    return 1 + math.ceil(_LEVELS * apart)


def _is_cut(tensor: Tensor) -> bool:
    """Whether operators stand apart there: int32 places in a table stay with the table."""
    return tensor.data is None and tensor.dtype != "INT32"


def _copy(tensor: Any, number: int) -> Any:
    copied = copy.copy(tensor)
    copied.name = f"{flatbuffer.text(tensor.name)}:{number}"
    return copied


def inputs_for(
    isolated: Isolated, draw: Callable[[str, Tensor], np.ndarray]
) -> tuple[np.ndarray, ...]:
    """Stored values for every input: `draw(name, tensor)`, the same array for the same name."""
    drawn: dict[str, np.ndarray] = {}
    graph = isolated.model.main
    for name, index in zip(isolated.inputs, graph.inputs, strict=True):
        if name not in drawn:
            drawn[name] = draw(name, graph.tensors[index])
    return tuple(drawn[name] for name in isolated.inputs)


def misfits(
    isolated: Isolated,
    results: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    *,
    exact: bool = False,
) -> tuple[list[tuple[str, str]], float]:
    """The operators with wrong results.

    Args:
        isolated: the operators.
        results: what a runtime computed, stored values, one array per output.
        expected: the correct results.
        exact: whether every single result has to match.

    Returns:
        (layer, what) for every operator that is off by more than its rounding can move on average,
        in all or in a channel, or at all if `exact`; and the largest average of all operators.
    """
    problems, worst = [], 0.0
    triples = zip(isolated.outputs, isolated.most_levels, results, expected, strict=True)
    for name, most, result, target in triples:
        off = np.abs(result.astype(np.int64) - target)
        mean, channels = float(off.mean()), off.reshape(-1, off.shape[-1]).mean(axis=0)
        worst = max(worst, mean)
        limits = [most * _share(count) for count in (off.size, off.size // channels.size)]
        if exact and off.any():
            wrong = np.count_nonzero(off)
            problems.append((name, f"{wrong} of {off.size} results are other numbers"))
        elif mean > limits[0]:
            problems.append((name, f"off by {mean:.3f} levels on average, {limits[0]:.3f} at most"))
        elif channels.max() > limits[1]:
            what = f"channel {channels.argmax()} is off by {channels.max():.3f} levels on average"
            problems.append((name, f"{what}, {limits[1]:.3f} at most"))
    return problems, worst


def _share(count: int) -> float:
    """The largest share of `count` values that rounding moves; all but surely, of few of them."""
    return min(1.0, MOST_MOVED + _DEVIATIONS * 0.5 / count**0.5)
