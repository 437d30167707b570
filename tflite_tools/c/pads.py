"""Zeros around an image that only a convolution reads: its kernel sees them without a copy.

The file needs a PAD where a convolution's own padding is not that of SAME, as behind Keras'
ZeroPadding2D. The kernels of the C take any number of rows and columns in front of an image.
"""

from __future__ import annotations

import dataclasses

from tflite_tools.arithmetic.geometry import VALID
from tflite_tools.schema.contents import Graph, Op, Tensor

MARGINS = "margins"  # no option of the schema: rows above and below, columns before and behind
_FILTERS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def joined(graph: Graph) -> Graph:
    """A graph in which such convolutions have the option `MARGINS` instead of a PAD before them."""
    makers = {index: op for op in graph.ops for index in op.outputs}
    uses = [index for op in graph.ops for index in op.inputs] + list(graph.outputs)
    replaced: dict[int, Op] = {}
    dropped: set[int] = set()
    for op in graph.ops:
        pad = makers.get(op.inputs[0]) if op.name in _FILTERS and op.inputs else None
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
    """The zeros around an image, if a convolution without any of its own can see them; each of its
    windows has to see a part of the image."""
    if pad.name != "PAD" or op.options.get("padding") != VALID:
        return None
    source, made = (graph.tensors[own[0]] for own in (pad.inputs, pad.outputs))
    margins, weights = graph.tensors[pad.inputs[1]].data, graph.tensors[op.inputs[1]].shape
    if margins is None or margins.shape != (4, 2) or len(weights) != 4 or not _alike(source, made):
        return None
    samples, rows, columns, channels = margins.tolist()
    reaches = [
        (weights[axis] - 1) * int(op.options.get(f"dilation{letter}Factor", 1)) + 1
        for axis, letter in ((1, "H"), (2, "W"))
    ]
    seen = max(rows) < reaches[0] and max(columns) < reaches[1]
    if not seen or min(*rows, *columns) < 0 or any(samples) or any(channels):
        return None
    return (*rows, *columns)


def _alike(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same grid."""
    grids = [tensor.quantization for tensor in (first, second)]
    found = [grid and (grid.scale.tolist(), grid.zero_point.tolist()) for grid in grids]
    return found[0] is not None and found[0] == found[1]
