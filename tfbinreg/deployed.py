"""What the file of a model computes, in TensorFlow: integer by integer.

A float32 convolution and an integer one differ in the last digits. Where a sum lies half-way
between two levels that decides which one is taken, and in a deep net the difference grows from
layer to layer. Kernels, additions and products are therefore computed here as LiteRT's XNNPACK
kernels do (github.com/google/XNNPACK, src/reference/qs8 and src/operators): exact integer sums,
multiplied by one float32 factor and rounded half to even; additions in fixed point. What remains
moves numbers, or is rounded as in the Keras model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.channel_folding import channels_last
from tfbinreg.freeze import freeze
from tfbinreg.frozen import FrozenKernel, FrozenOp
from tfbinreg.grid import Grid
from tfbinreg.hard_swish import hard_swish_table
from tfbinreg.kinds import KINDS, Role
from tfbinreg.tf_ops import KERNEL_OPS, PLAIN_OPS

_FLOAT32_INTEGERS = 2**24  # float32 counts exactly as far as this
# Of XNNPACK's multipliers: bits in an addition, steps of 1 in a leaky ReLU.
_ADD_BITS, _LEAKY_UNIT = 20, 256.0
# In levels: more than float32's error in an average, less than half of 1 / (window size).
_TIE_NUDGE = 2.0**-10


class Deployed:
    """The integer form of a quantized model as it is now.

    Args:
        model: a trained model from `quantize_apply`.

    Raises:
        ValueError: if it has no exact integer form, as `freeze`.
    """

    def __init__(self, model: Any) -> None:
        self._frozen = freeze(model)
        self._feeding = {index for op in self._frozen.ops for index in op.inputs}

    def __call__(self, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The model's outputs, on their grids, for its inputs in order."""
        values = self._values(inputs)
        return [values[index] for index in self._frozen.outputs]

    def activations(self, inputs: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """The output of every operation, by the name of its layer."""
        values = self._values(inputs)
        return {op.name: value for op, value in zip(self._frozen.ops, values, strict=True)}

    def output_names(self) -> list[str]:
        """Names of the layers that make the model's outputs."""
        return [self._frozen.ops[index].name for index in self._frozen.outputs]

    def _values(self, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """What every operation makes."""
        values: list[tf.Tensor] = []
        given = dict(zip(self._frozen.inputs, inputs, strict=True))
        for index, op in enumerate(self._frozen.ops):
            if index in given:
                values.append(_put_on_grid(op, given[index]))
                continue
            taken = [values[number] for number in op.inputs]
            compute = None if len(op.inputs) > 2 else _EXACT.get(op.kind)
            if compute is not None:
                values.append(self._computed(op, compute, taken))
            else:
                values.append(self._rounded(index, op, taken))
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

    def _rounded(self, index: int, op: FrozenOp, taken: Sequence[tf.Tensor]) -> tf.Tensor:
        """As the Keras model computes it: a result in floats, rounded half up to the grid.

        Outputs on a prescribed grid are not rounded.
        """
        result = PLAIN_OPS[op.kind](op, [tf.cast(value, tf.float32) for value in taken])
        if KINDS[op.kind].role is not Role.FIXED or index in self._feeding:
            low, high = _code_limits(op)
            codes = tf.floor(tf.clip_by_value(result / _grid(op).scale, low, high) + 0.5)
            result = codes * _grid(op).scale
        return tf.cast(result, taken[0].dtype)


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
    sums = KERNEL_OPS[op.kind](op, tf.cast(codes[0], dtype), tf.cast(kernel.codes, dtype))
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


def _average(op: FrozenOp, codes: Sequence[tf.Tensor], grids: Sequence[Grid]) -> tf.Tensor:
    """The stored values are averaged, and halves rounded away from their zero."""
    zero_point = float(grids[0].zero_point)
    stored = PLAIN_OPS[op.kind](op, [codes[0]]) + zero_point
    return tf.sign(stored) * tf.floor(tf.abs(stored) + (0.5 + _TIE_NUDGE)) - zero_point


def _hard_swish(op: FrozenOp, codes: Sequence[tf.Tensor], grids: Sequence[Grid]) -> tf.Tensor:
    source, target = grids[0], _grid(op)
    table = hard_swish_table(
        tf.constant(source.scale),
        tf.constant(source.zero_point),
        tf.constant(target.scale),
        tf.constant(target.zero_point),
    )
    places = tf.cast(codes[0], tf.int32) + source.zero_point + 128
    return tf.cast(tf.gather(table, places) - target.zero_point, tf.float32)


def _mean(op: FrozenOp, codes: Sequence[tf.Tensor], grids: Sequence[Grid]) -> tf.Tensor:
    """The stored values are averaged: their zero points are in the sum and in the rounding."""
    source, target = grids[0], _grid(op)
    size = np.float32(np.prod(codes[0].shape[1:3]))
    factor = source.scale / target.scale * (np.float32(1.0) / size)
    offset = np.float32(target.zero_point) - np.float32(source.zero_point) * size * factor
    sums = tf.reduce_sum(codes[0] + source.zero_point, [1, 2], keepdims=op.attributes["keepdims"])
    return tf.round(sums * factor + offset) - target.zero_point


def _leaky_relu(op: FrozenOp, codes: Sequence[tf.Tensor], grids: Sequence[Grid]) -> tf.Tensor:
    ratio = grids[0].scale / _grid(op).scale
    slopes = (ratio, ratio * np.float32(op.attributes["alpha"]))
    positive, negative = (np.rint(np.float32(_LEAKY_UNIT) * slope) for slope in slopes)
    products = codes[0] * tf.where(codes[0] >= 0.0, positive, negative)
    return tf.floor(products / _LEAKY_UNIT + 0.5)


_EXACT: Mapping[str, Callable[..., tf.Tensor]] = {
    **dict.fromkeys(KERNEL_OPS, _kernel),
    "Add": _add,
    "AveragePooling2D": _average,
    "HardSwish": _hard_swish,
    "GlobalAveragePooling2D": _mean,
    "LeakyReLU": _leaky_relu,
    "Multiply": _multiply,
}
