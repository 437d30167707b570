"""Which channels of an operator's operands its output channels are made of.

A channel is a place along a tensor's last axis. Kernels (`file_layout.KERNEL_OPS`) other than
depthwise ones mix channels, and are not here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tflite_tools.arithmetic import lookup_tables
from tflite_tools.schema.contents import Graph, Op, Tensor


class Relation(NamedTuple):
    """The channels of one operand: int64 (pairs, 2) of (its channel, output channel)."""

    tensor: int
    pairs: np.ndarray


def channels(tensor: Tensor) -> int:
    """The length of the last axis."""
    return tensor.shape[-1] if tensor.shape else 1


def usable(tensor: Tensor) -> bool:
    """Whether it holds int8 on one grid."""
    own = tensor.quantization
    return tensor.dtype == "INT8" and own is not None and own.scale.size == own.zero_point.size == 1


def of_operator(graph: Graph, op: Op) -> list[Relation] | None:
    """A relation for each operand; None if it is not known which channels belong together."""
    rule = _RULES.get(op.name)
    if rule is None or len(op.outputs) != 1 or any(index < 0 for index in op.inputs):
        return None
    taken, output = graph.taken(op), graph.tensors[op.outputs[0]]
    operands = [tensor for tensor in taken if tensor.dtype == "INT8"]
    fixed = all(tensor.data is not None for tensor in taken if tensor.dtype != "INT8")
    if not operands or not fixed or not all(usable(tensor) for tensor in (*operands, output)):
        return None
    found = rule(graph, op, operands, output)
    if found is None:
        return None
    return [Relation(tensor.index, pairs) for tensor, pairs in zip(operands, found, strict=True)]


_Pairs = list[np.ndarray] | None
_Rule = Callable[[Graph, Op, Sequence[Tensor], Tensor], _Pairs]


def _identity(count: int, first: int = 0) -> np.ndarray:
    own = np.arange(count)
    return np.stack([own, own + first], axis=1)


def _each(graph: Graph, op: Op, operands: Sequence[Tensor], output: Tensor) -> _Pairs:
    """Channel by channel; an operand of one channel is repeated, and is never the channel's own."""
    count = channels(output)
    if any(channels(tensor) not in (1, count) for tensor in operands):
        return None
    repeated: np.ndarray = np.zeros((0, 2), np.int64)
    return [_identity(count) if channels(tensor) == count else repeated for tensor in operands]


def _first(graph: Graph, op: Op, operands: Sequence[Tensor], output: Tensor) -> _Pairs:
    """Channel by channel of one operand, which the operator neither repeats nor reverses."""
    same = channels(operands[0]) == channels(output)
    return [_identity(channels(output))] if same and len(operands) == 1 else None


def _pad(graph: Graph, op: Op, operands: Sequence[Tensor], output: Tensor) -> _Pairs:
    margins = graph.tensors[op.inputs[1]].data
    if margins is None or np.any(margins.reshape(-1, 2)[-1]):
        return None
    found = _first(graph, op, operands[:1], output)
    return None if found is None else found + [np.zeros((0, 2), np.int64)] * (len(operands) - 1)


def _transpose(graph: Graph, op: Op, operands: Sequence[Tensor], output: Tensor) -> _Pairs:
    order = graph.tensors[op.inputs[1]].data
    last = len(operands[0].shape) - 1
    if order is None or order.reshape(-1)[-1] % (last + 1) != last:
        return None
    return _first(graph, op, operands, output)


def _reduction(graph: Graph, op: Op, operands: Sequence[Tensor], output: Tensor) -> _Pairs:
    axes, rank = graph.tensors[op.inputs[1]].data, len(operands[0].shape)
    if axes is None or np.any(axes % rank == rank - 1):
        return None
    return _first(graph, op, operands, output)


def _slice(graph: Graph, op: Op, operands: Sequence[Tensor], output: Tensor) -> _Pairs:
    begin = graph.tensors[op.inputs[1]].data
    if begin is None or len(begin.reshape(-1)) != len(operands[0].shape):
        return None
    return _first(graph, op, operands, output)


def _strided_slice(graph: Graph, op: Op, operands: Sequence[Tensor], output: Tensor) -> _Pairs:
    """A slice that keeps all channels in their order."""
    bounds = [graph.tensors[index].data for index in op.inputs[1:4]]
    last = len(operands[0].shape) - 1
    whole = all(own is not None and own.size == last + 1 for own in bounds)
    others = ("ellipsisMask", "newAxisMask", "offset")
    if not whole or any(op.options.get(name) for name in others):
        return None
    (end, stride), single = ((own.reshape(-1)[-1] for own in bounds[1:] if own is not None),
                             op.options.get("shrinkAxisMask", 0) >> last & 1)  # fmt: skip
    if stride != 1 or single or end != channels(operands[0]):
        return None
    return _first(graph, op, operands, output)


def _concatenation(graph: Graph, op: Op, operands: Sequence[Tensor], output: Tensor) -> _Pairs:
    rank = len(output.shape)
    if any(tensor.data is not None for tensor in operands):
        return None
    if op.options.get("axis", 0) % rank != rank - 1:
        return _each(graph, op, operands, output)
    firsts = np.cumsum([0, *(channels(tensor) for tensor in operands)])
    if firsts[-1] != channels(output):
        return None
    return [_identity(channels(t), first) for t, first in zip(operands, firsts[:-1], strict=True)]


def _reshape(graph: Graph, op: Op, operands: Sequence[Tensor], output: Tensor) -> _Pairs:
    """The shorter last axis runs through the longer one again and again."""
    taken, made = channels(operands[0]), channels(output)
    longer, shorter = max(taken, made), min(taken, made)
    if len(operands) != 1 or longer % shorter:
        return None
    own = np.arange(longer)
    return [np.stack([own % taken, own % made], axis=1)]


_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("ADD", "SUB", "MUL", "PRELU", "MAXIMUM", "MINIMUM"), _each),
    **dict.fromkeys(lookup_tables.OPERATORS, _first),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _first),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _first),
    **dict.fromkeys(("RESHAPE", "EXPAND_DIMS"), _reshape),
    **dict.fromkeys(("MEAN", "REDUCE_MAX"), _reduction),
    **dict.fromkeys(("PAD", "PADV2"), _pad),
    "CONCATENATION": _concatenation,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE": _transpose,
}
