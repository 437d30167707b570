"""Channels that hold one number whatever the inputs are, and which: computed as TFLM does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tflite_tools.arithmetic import fixed_point, lookup_tables, multipliers
from tflite_tools.pruning import kernels, relations
from tflite_tools.pruning.kernels import VARIES, grid
from tflite_tools.pruning.relations import Relation, channels
from tflite_tools.schema import file_layout
from tflite_tools.schema.contents import Graph, Op, Tensor

_Function = Callable[..., int]  # of the operands' stored values


def of_graph(graph: Graph) -> dict[int, np.ndarray]:
    """The stored values of every int8 tensor's channels: int16, `VARIES` where there is not one."""
    found = {tensor.index: _of_tensor(tensor) for tensor in graph.tensors}
    for op in graph.ops:
        if len(op.outputs) == 1 and op.outputs[0] >= 0:
            found[op.outputs[0]] = _computed(graph, op, found)
    return found


def _of_tensor(tensor: Tensor) -> np.ndarray:
    unknown = np.full(channels(tensor), VARIES, np.int16)
    if tensor.data is None or tensor.data.dtype != np.int8 or not tensor.data.size:
        return unknown
    rows = tensor.data.reshape(-1, channels(tensor)).astype(np.int16)
    return np.where(rows.min(axis=0) == rows.max(axis=0), rows[0], VARIES).astype(np.int16)


def _computed(graph: Graph, op: Op, found: Mapping[int, np.ndarray]) -> np.ndarray:
    output = graph.tensors[op.outputs[0]]
    unknown = np.full(channels(output), VARIES, np.int16)
    if op.name in file_layout.KERNEL_OPS:
        kernel = kernels.of_operator(graph, op)
        return unknown if kernel is None else kernel.constants(found[kernel.source.index])
    related = relations.of_operator(graph, op)
    if related is None:
        return unknown
    operands = [graph.tensors[own.tensor] for own in related]
    if op.name in _PAIRS:
        values = [np.broadcast_to(found[own.tensor], unknown.shape) for own in related]
    else:
        values = [_moved(related, found, unknown)]
    try:
        return _each(_FUNCTIONS[op.name](op, operands, output), values)
    except ValueError:  # TFLM does not compute it
        return unknown


def _moved(
    related: Sequence[Relation], found: Mapping[int, np.ndarray], unknown: np.ndarray
) -> np.ndarray:
    """The value of each output channel's own channels, if they have the same."""
    low, high = unknown.copy(), np.full_like(unknown, -VARIES)
    for tensor, pairs in related:
        np.minimum.at(low, pairs[:, 1], found[tensor][pairs[:, 0]])
        np.maximum.at(high, pairs[:, 1], found[tensor][pairs[:, 0]])
    return np.where(low == high, low, VARIES).astype(np.int16)


def _each(function: _Function, operands: Sequence[np.ndarray]) -> np.ndarray:
    """A function of the operands' values, where all of them have one."""
    made = np.full(operands[0].shape, VARIES, np.int16)
    for channel in np.flatnonzero(np.all([own != VARIES for own in operands], axis=0)):
        made[channel] = function(*(int(own[channel]) for own in operands))
    return made


def _table(op: Op, operands: Sequence[Tensor], output: Tensor) -> _Function:
    alpha = op.options.get("alpha")
    table = lookup_tables.of_operator(op.name, grid(operands[0]), grid(output), alpha)
    return lambda value: int(table[value + 128])


def _sum(op: Op, operands: Sequence[Tensor], output: Tensor) -> _Function:
    """ADD and SUB."""
    (first, zero_a), (second, zero_b), (scale, zero) = map(grid, (*operands[:2], output))
    factors = multipliers.addition(first, second, scale)
    sign = 1 if op.name == "ADD" else -1
    limits = fixed_point.activation_limits(op.activation, scale, zero)

    def function(a: int, b: int) -> int:
        one = fixed_point.scale((a - zero_a) << multipliers.FINER_BITS, *factors.first)
        two = fixed_point.scale((b - zero_b) << multipliers.FINER_BITS, *factors.second)
        return fixed_point.clamp(
            fixed_point.scale(one + sign * two, *factors.whole) + zero, *limits
        )

    return function


def _product(op: Op, operands: Sequence[Tensor], output: Tensor) -> _Function:
    (first, zero_a), (second, zero_b), (scale, zero) = map(grid, (*operands[:2], output))
    factor = multipliers.product(first, second, scale)
    limits = fixed_point.activation_limits(op.activation, scale, zero)

    def function(a: int, b: int) -> int:
        product = fixed_point.scale((a - zero_a) * (b - zero_b), *factor)
        return fixed_point.clamp(product + zero, *limits)

    return function


def _prelu(op: Op, operands: Sequence[Tensor], output: Tensor) -> _Function:
    (first, zero_a), (second, zero_b), (scale, zero) = map(grid, (*operands[:2], output))
    straight, bent = multipliers.prelu(first, second, scale)

    def function(a: int, b: int) -> int:
        value = a - zero_a
        bends = value < 0
        made = fixed_point.scale(
            value * (b - zero_b if bends else 1), *(bent if bends else straight)
        )
        return fixed_point.clamp(made + zero)

    return function


def _extreme(op: Op, operands: Sequence[Tensor], output: Tensor) -> _Function:
    best = max if op.name == "MAXIMUM" else min
    kept = _kept(op, operands[:2], output)
    return lambda a, b: kept(best(a, b))


def _kept(op: Op, operands: Sequence[Tensor], output: Tensor) -> _Function:
    """Moves, averages and largest values of equal numbers are that number.

    Raises:
        ValueError: if the grids are not all the same.
    """
    if any(grid(tensor) != grid(output) for tensor in operands):
        raise ValueError(f"{op.name} with several grids")
    limits = fixed_point.activation_limits(op.activation, *grid(output))
    return lambda value: fixed_point.clamp(value, *limits)


def _padded(op: Op, operands: Sequence[Tensor], output: Tensor) -> _Function:
    """What is put around a channel has to be its value."""
    fill = grid(output)[1]
    if op.name == "PADV2":
        data = operands[1].data
        fill = VARIES if data is None else int(data.reshape(-1)[0])
    kept = _kept(op, operands, output)
    return lambda value: kept(value) if value == fill else VARIES


def _mean(op: Op, operands: Sequence[Tensor], output: Tensor) -> _Function:
    (taken, zero_point), (scale, zero) = grid(operands[0]), grid(output)
    count = math.prod(operands[0].shape) // math.prod(output.shape)
    factor = multipliers.mean(taken, scale, count)
    return lambda value: fixed_point.clamp(
        fixed_point.scale(count * (value - zero_point), *factor) + zero
    )


_PAIRS: Mapping[str, Callable[[Op, Sequence[Tensor], Tensor], _Function]] = {
    "ADD": _sum,
    "MAXIMUM": _extreme,
    "MINIMUM": _extreme,
    "MUL": _product,
    "PRELU": _prelu,
    "SUB": _sum,
}
_FUNCTIONS: Mapping[str, Callable[[Op, Sequence[Tensor], Tensor], _Function]] = {
    **_PAIRS,
    **dict.fromkeys(lookup_tables.OPERATORS, _table),
    "AVERAGE_POOL_2D": _kept,
    "CONCATENATION": _kept,
    "EXPAND_DIMS": _kept,
    "MAX_POOL_2D": _kept,
    "MEAN": _mean,
    "PAD": _padded,
    "PADV2": _padded,
    "REDUCE_MAX": _kept,
    "RESHAPE": _kept,
    "RESIZE_BILINEAR": _kept,
    "RESIZE_NEAREST_NEIGHBOR": _kept,
    "SLICE": _kept,
    "STRIDED_SLICE": _kept,
    "TRANSPOSE": _kept,
}
