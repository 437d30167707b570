"""A border around an image that only a convolution or a max pooling reads, seen without a copy.

The file needs a PAD where a convolution's own padding is not that of SAME, as behind Keras'
ZeroPadding2D, and a PADV2 with -128 before a max pooling. The kernels of the C take any number of
rows and columns in front of an image.
"""

from __future__ import annotations

import dataclasses

from tflite_tools.arithmetic.geometry import VALID
from tflite_tools.schema.contents import Graph, Op, Tensor

MARGINS = "margins"  # no option of the schema: rows above and below, columns before and behind
_FILTERS, _POOL = ("CONV_2D", "DEPTHWISE_CONV_2D"), "MAX_POOL_2D"
_LEAST = -128  # of int8


def joined(graph: Graph) -> Graph:
    """A graph in which such operators have the option `MARGINS` instead of a PAD before them."""
    makers = {index: op for op in graph.ops for index in op.outputs}
    uses = [index for op in graph.ops for index in op.inputs] + list(graph.outputs)
    replaced: dict[int, Op] = {}
    dropped: set[int] = set()
    for op in graph.ops:
        reads = op.name in (*_FILTERS, _POOL) and op.inputs
        pad = makers.get(op.inputs[0]) if reads else None
        margins = None if pad is None else _margins(graph, pad, op)
        if pad is None or margins is None or uses.count(pad.outputs[0]) > 1:
            continue
        dropped.add(pad.index)
        replaced[op.index] = dataclasses.replace(
            op, inputs=(pad.inputs[0], *op.inputs[1:]), options={**op.options, MARGINS: margins}
        )
    ops = tuple(replaced.get(op.index, op) for op in graph.ops if op.index not in dropped)
    return dataclasses.replace(graph, ops=ops)


def _margins(graph: Graph, pad: Op, op: Op) -> tuple[int, ...] | None:
    """The border around an image, if an operator without any of its own can see it; each of its
    windows has to see a part of the image."""
    if pad.name not in ("PAD", "PADV2") or op.options.get("padding") != VALID:
        return None
    source, made = (graph.tensors[own[0]] for own in (pad.inputs, pad.outputs))
    margins, reaches = graph.tensors[pad.inputs[1]].data, _reaches(graph, op)
    if margins is None or margins.shape != (4, 2) or not reaches or not _alike(source, made):
        return None
    samples, rows, columns, channels = margins.tolist()
    seen = max(rows) < reaches[0] and max(columns) < reaches[1]
    if not seen or min(*rows, *columns) < 0 or any(samples) or any(channels):
        return None
    fills = _fill(graph, pad) == (_LEAST if op.name == _POOL else _zero(made))
    return (*rows, *columns) if fills else None


def _reaches(graph: Graph, op: Op) -> list[int]:
    """How many rows and columns a window spans; nothing if they are not known."""
    if op.name == _POOL:
        return [int(op.options.get(f"filter{name}", 1)) for name in ("Height", "Width")]
    weights = graph.tensors[op.inputs[1]].shape
    return [
        (weights[axis] - 1) * int(op.options.get(f"dilation{letter}Factor", 1)) + 1
        for axis, letter in ((1, "H"), (2, "W"))
        if len(weights) == 4
    ]


def _fill(graph: Graph, pad: Op) -> int | None:
    """What a PAD or PADV2 writes; None if that is not known."""
    if pad.name == "PAD":
        return _zero(graph.tensors[pad.outputs[0]])
    value = graph.tensors[pad.inputs[2]].data
    return int(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def _zero(tensor: Tensor) -> int | None:
    grid = tensor.quantization
    return None if grid is None else int(grid.zero_point.reshape(-1)[0])


def _alike(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same grid."""
    grids = [tensor.quantization for tensor in (first, second)]
    found = [grid and (grid.scale.tolist(), grid.zero_point.tolist()) for grid in grids]
    return found[0] is not None and found[0] == found[1]
