"""What the file of a model computes, in TensorFlow: integer by integer.

A float32 convolution and an integer one differ in the last digits. Where a sum lies half-way
between two levels that decides which one is taken, and in a deep net the difference grows from
layer to layer. Kernels, additions and products are therefore computed here as LiteRT's XNNPACK
kernels do (github.com/google/XNNPACK, src/reference/qs8 and src/operators): exact integer sums,
multiplied by one float32 factor and rounded half to even; additions in fixed point. What remains
runs as in the Keras model: it moves numbers, averages them or takes them from a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.emit import KERNEL_OPS
from tfbinreg.freeze import FrozenKernel, FrozenOp, channels_last, freeze
from tfbinreg.graph import trace
from tfbinreg.grid import Grid

_FLOAT32_INTEGERS = 2**24  # float32 counts exactly as far as this
# Of XNNPACK's multipliers: bits in an addition, steps of 1 in a leaky ReLU.
_ADD_BITS, _LEAKY_UNIT = 20, 256.0


class Deployed:
    """The integer form of a quantized model as it is now.

    Args:
        model: a trained model from `quantize_apply`.

    Raises:
        ValueError: if it has no exact integer form, as `freeze`.
    """

    def __init__(self, model: Any) -> None:
        self._graph, self._frozen = trace(model), freeze(model)

    def __call__(self, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The model's outputs, on their grids, for its inputs in order."""
        values = self._values(inputs)
        return [values[index] for index in self._graph.outputs]

    def activations(self, inputs: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """The output of every operation, by the name of its layer."""
        values = self._values(inputs)
        return {
            self._frozen.ops[number].name: values[index]  # of several nodes the last counts
            for index, number in sorted(self._frozen.op_of.items())
        }

    def output_names(self) -> list[str]:
        """Names of the layers that make the model's outputs."""
        return [self._frozen.ops[index].name for index in self._frozen.outputs]

    def _values(self, inputs: Sequence[tf.Tensor]) -> dict[int, Any]:
        """What every node of the layer graph makes."""
        values: dict[int, Any] = {}
        exact: dict[int, tf.Tensor] = {}  # by index of the operation
        given = dict(zip(self._graph.inputs, inputs, strict=True))
        for node in self._graph.nodes:
            if node.index in given:
                values[node.index] = given[node.index]
                continue
            taken = [values[index] for index in node.inputs]
            number = self._frozen.op_of[node.index]
            op = self._frozen.ops[number]
            if op.kind == "InputLayer":
                values[node.index] = _put_on_grid(op, taken[0])
                continue
            compute = None if op.grid is None or len(op.inputs) > 2 else _EXACT.get(op.kind)
            if compute is None:
                values[node.index] = node.call(taken)
                continue
            if number not in exact:
                exact[number] = self._computed(op, compute, taken)
            values[node.index] = exact[number]
        return values

    def _computed(
        self, op: FrozenOp, compute: Callable[..., tf.Tensor], taken: Sequence[tf.Tensor]
    ) -> tf.Tensor:
        """The output of an operation from those before it; all of them lie on grids."""
        grids = [_grid(self._frozen.ops[index]) for index in op.inputs]
        codes = [
            tf.round(tf.cast(value, tf.float32) / grid.scale)
            for value, grid in zip(taken, grids, strict=True)
        ]
        low, high = _code_limits(op)
        result = tf.clip_by_value(compute(op, codes, grids), low, high)
        return tf.cast(result * _grid(op).scale, taken[0].dtype)


def _put_on_grid(op: FrozenOp, inputs: tf.Tensor) -> tf.Tensor:
    """A model input as a device quantizes it."""
    scale, (low, high) = _grid(op).scale, _code_limits(op)
    # Not "/": TensorFlow multiplies by the reciprocal of a constant, and rounds halves elsewhere.
    codes = tf.floor(tf.math.divide_no_nan(tf.cast(inputs, tf.float32), scale) + 0.5)
    return tf.cast(tf.clip_by_value(codes, low, high) * scale, inputs.dtype)


def _grid(op: FrozenOp) -> Grid:
    """The grid of an operation that has been seen to have one."""
    assert op.grid is not None
    return op.grid


def _code_limits(op: FrozenOp) -> tuple[float, float]:
    """The codes at which an operation saturates."""
    grid = _grid(op)
    low, high = -128 - grid.zero_point, 127 - grid.zero_point
    if op.relu:
        low = max(low, 0)
        if op.relu_limit is not None:
            high = min(high, round(op.relu_limit / float(grid.scale)))
    return float(low), float(high)


def _kernel(op: FrozenOp, codes: Sequence[tf.Tensor], grids: Sequence[Grid]) -> tf.Tensor:
    kernel, source = op.kernel, grids[0]
    assert kernel is not None
    dtype = tf.float32 if _largest_sum(op.kind, kernel, source) < _FLOAT32_INTEGERS else tf.float64
    sums = KERNEL_OPS[op.kind](op.layer, tf.cast(codes[0], dtype), tf.cast(kernel.codes, dtype))
    sums = tf.cast(sums, tf.int32) * kernel.prescale + kernel.bias
    weight_scale = (kernel.scale / np.float32(kernel.prescale)).astype(np.float32)
    factor = source.scale * weight_scale / _grid(op).scale  # float32, in XNNPACK's order
    return tf.round(tf.cast(sums, tf.float32) * factor)


def _largest_sum(kind: str, kernel: FrozenKernel, source: Grid) -> int:
    """The largest absolute sum of products that an output channel can have."""
    rows = channels_last(kind, np.abs(kernel.codes.astype(np.int64)))
    return int(rows.sum(axis=0).max()) * source.qmax_abs


def _multiply(op: FrozenOp, codes: Sequence[tf.Tensor], grids: Sequence[Grid]) -> tf.Tensor:
    factor = grids[0].scale * grids[1].scale / _grid(op).scale
    return tf.round(codes[0] * codes[1] * factor)


def _add(op: FrozenOp, codes: Sequence[tf.Tensor], grids: Sequence[Grid]) -> tf.Tensor:
    ratios = [grid.scale / _grid(op).scale for grid in grids]
    exponent = int(np.floor(np.log2(max(ratios))))
    shift = _ADD_BITS - exponent
    left, right = (
        tf.cast(code, tf.int32) * int(np.rint(np.ldexp(np.float64(ratio), shift)))
        for code, ratio in zip(codes, ratios, strict=True)
    )
    rounded = tf.bitwise.right_shift(left + right + (1 << (shift - 1)), shift)
    return tf.cast(rounded, tf.float32)


def _mean(op: FrozenOp, codes: Sequence[tf.Tensor], grids: Sequence[Grid]) -> tf.Tensor:
    """The stored values are averaged: their zero points are in the sum and in the rounding."""
    source, target = grids[0], _grid(op)
    size = np.float32(np.prod(codes[0].shape[1:3]))
    factor = source.scale / target.scale * (np.float32(1.0) / size)
    offset = np.float32(target.zero_point) - np.float32(source.zero_point) * size * factor
    sums = tf.reduce_sum(codes[0] + source.zero_point, [1, 2], keepdims=op.layer.keepdims)
    return tf.round(sums * factor + offset) - target.zero_point


def _leaky_relu(op: FrozenOp, codes: Sequence[tf.Tensor], grids: Sequence[Grid]) -> tf.Tensor:
    ratio = grids[0].scale / _grid(op).scale
    slopes = (ratio, ratio * np.float32(op.layer.alpha))
    positive, negative = (np.rint(np.float32(_LEAKY_UNIT) * slope) for slope in slopes)
    products = codes[0] * tf.where(codes[0] >= 0.0, positive, negative)
    return tf.floor(products / _LEAKY_UNIT + 0.5)


_EXACT: Mapping[str, Callable[..., tf.Tensor]] = {
    **dict.fromkeys(KERNEL_OPS, _kernel),
    "Add": _add,
    "GlobalAveragePooling2D": _mean,
    "LeakyReLU": _leaky_relu,
    "Multiply": _multiply,
}
