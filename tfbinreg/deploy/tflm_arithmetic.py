"""Integer operations as TFLM's reference kernels compute them, bit for bit.

CMSIS-NN and the C of `tflite_tools` give the same numbers. Sums are rounded twice: a * b / 2^31
with halves upwards, then a division by a power of two with halves away from zero (gemmlowp's
fixedpoint.h). What depends on one int8 value alone is a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfbinreg.core.grid import Grid
from tfbinreg.deploy.frozen import FrozenOp, slope_codes
from tfbinreg.deploy.integer_ops import (
    SHARED,
    Arithmetic,
    Rule,
    Step,
    bilinear,
    grid_of,
    kernel_sums,
    lookup,
    stored_lookup,
)
from tfbinreg.deploy.tf_ops import KERNEL_OPS
from tflite_tools.arithmetic import fixed_point, interpolation, lookup_tables, multipliers

_SUM_BITS = 12  # integer bits of a softmax's sum of exponentials
_LEVELS = np.arange(-128, 128)


def limit_code(limit: float, grid: Grid, *, fused: bool) -> int:
    """The code at which a ReLU saturates, in another operator or by itself."""
    return fixed_point.rounded(float(np.float32(limit) / grid.scale))


def scaled(factors: Sequence[multipliers.Factor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function that multiplies int32 tensors by m / 2^31 * 2^s, rounding twice; int64.

    Args:
        factors: (m, s): one, or one for each channel.
    """
    multiplier, shift = (np.array(part, np.int64) for part in zip(*factors, strict=True))
    left, right = np.maximum(shift, 0).astype(np.int32), np.maximum(-shift, 0)
    half, sign = (1 << right) >> 1, -(right > 0).astype(np.int64)

    def apply(values: tf.Tensor) -> tf.Tensor:
        if left.any():
            values = tf.bitwise.left_shift(values, left)
        product = tf.cast(values, tf.int64) * multiplier
        rounded = tf.bitwise.right_shift(product + 2**30, np.int64(31))
        if not right.any():
            return rounded
        below = tf.bitwise.right_shift(rounded, np.int64(63))  # -1 below zero
        if not sign.all():
            below = tf.bitwise.bitwise_and(below, sign)
        return tf.bitwise.right_shift(rounded + half + below, right)

    return apply


def _kernel(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    assert op.kernel is not None
    factors = multipliers.kernel(op.kernel.stored_scale, sources[0].scale, grid_of(op).scale)
    sums, scale = kernel_sums(op, sources[0]), scaled(factors)
    return lambda inputs: scale(sums(inputs))


def _add(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """ADD and SUB: both operands at twice the larger scale, 20 bits finer."""
    *operands, whole = multipliers.addition(sources[0].scale, sources[1].scale, grid_of(op).scale)
    first, second = (
        lookup(_widened(factor, source), source)
        for factor, source in zip(operands, sources, strict=True)
    )
    direction, scale = -1 if op.kind == "Subtract" else 1, scaled([whole])
    return lambda inputs: scale(first(inputs[:1]) + direction * second(inputs[1:]))


def _widened(factor: multipliers.Factor, source: Grid) -> np.ndarray:
    """An operand of ADD for each stored value, int32."""
    wide = (_LEVELS - source.zero_point) * 2**multipliers.FINER_BITS
    return np.array([fixed_point.scale(int(value), *factor) for value in wide], np.int32)


def _multiply(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    factor = multipliers.product(sources[0].scale, sources[1].scale, grid_of(op).scale)
    scale = scaled([factor])
    return lambda inputs: scale(tf.cast(inputs[0] * inputs[1], tf.int32))


def _prelu(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    scale = slope_codes(op).scale
    return prelu(op, multipliers.prelu(sources[0].scale, scale, grid_of(op).scale))


def prelu(op: FrozenOp, factors: tuple[multipliers.Factor, multipliers.Factor]) -> Step:
    """PRELU with these multipliers; the slopes are int8."""
    slopes = slope_codes(op)
    straight, bent = (scaled([factor]) for factor in factors)

    def step(inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        codes = tf.cast(inputs[0], tf.int32)
        return tf.where(codes >= 0, straight(codes), bent(codes * slopes.codes.astype(np.int32)))

    return step


def _mean(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    source, target = sources[0], grid_of(op)

    def step(inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        _, height, width, _ = inputs[0].shape
        factor = multipliers.mean(source.scale, target.scale, height * width)
        sums = tf.reduce_sum(
            tf.cast(inputs[0], tf.int32), [1, 2], keepdims=op.attributes["keepdims"]
        )
        return scaled([factor])(sums)

    return step


def _softmax(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """SOFTMAX over the last axis: exponentials of the differences from the largest input."""
    multiplier, shift = multipliers.softmax(sources[0].scale, 1.0)
    lowest = -fixed_point.input_radius(multipliers.EXP_BITS, shift)

    def exponential(difference: int) -> int:
        if difference < lowest:
            return 0  # counts as nothing
        scaled_difference = fixed_point.high_product(difference << shift, multiplier)
        return fixed_point.exp_on_negatives(scaled_difference, multipliers.EXP_BITS)

    exact = [exponential(difference) for difference in range(-255, 1)]
    coarse = [fixed_point.rounded_shift(value, _SUM_BITS) for value in exact]

    def step(inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        best = tf.reduce_max(inputs[0], -1, keepdims=True)
        place = tf.cast(inputs[0] - best, tf.int32) + 255
        total = tf.reduce_sum(tf.gather(tf.constant(coarse, tf.int64), place), -1, keepdims=True)
        # total = (1 + rest / 2^31) * 2^exponent
        exponent = _highest_bit(total)
        rest = tf.bitwise.left_shift(total, 31 - exponent) - 2**31
        share = tf.minimum(2 * fixed_point.half_reciprocal(rest), 2**31 - 1)
        result = fixed_point.high_product(share, tf.gather(tf.constant(exact, tf.int64), place))
        return _rounded_shift(result, exponent + 23 - 31 + _SUM_BITS)

    return step


def _highest_bit(values: tf.Tensor) -> tf.Tensor:
    """Place of the highest bit that is set; positive int64 below 2^32."""
    powers = tf.bitwise.left_shift(tf.ones([31], tf.int64), tf.range(1, 32, dtype=tf.int64))
    return tf.reduce_sum(tf.cast(values[..., None] >= powers, tf.int64), -1)


def _rounded_shift(values: tf.Tensor, exponent: tf.Tensor) -> tf.Tensor:
    """values / 2^exponent, halves upwards; not negative, int64."""
    half = tf.bitwise.right_shift(tf.bitwise.left_shift(tf.ones_like(exponent), exponent), 1)
    return tf.bitwise.right_shift(values + half, exponent)


def _bilinear(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """RESIZE_BILINEAR: halves away from the zero of the stored values."""
    bits = 2 * interpolation.TFLM_BITS

    def rounded(values: tf.Tensor) -> tf.Tensor:
        half = tf.where(values > 0, 1 << bits - 1, -(1 << bits - 1))
        return tf.truncatediv(values + half, 1 << bits)

    return bilinear(op, interpolation.tflm, rounded)


def hard_swish(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """HARD_SWISH, whose 16-bit fixed point LiteRT shares."""
    source, target = sources[0], grid_of(op)
    return stored_lookup(lookup_tables.hard_swish(_pair(source), _pair(target)), source, target)


def _leaky_relu(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    source, target = sources[0], grid_of(op)
    table = lookup_tables.leaky_relu(_pair(source), _pair(target), float(op.attributes["alpha"]))
    return stored_lookup(table, source, target)


def _activation(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    function = {"sigmoid": lookup_tables.logistic, "tanh": lookup_tables.tanh}[
        op.attributes["activation"]
    ]
    return stored_lookup(function(_pair(sources[0])), sources[0], grid_of(op))


def _pair(grid: Grid) -> lookup_tables.Grid:
    return np.float32(grid.scale), grid.zero_point


RULES: Mapping[str, Rule] = {
    **SHARED,
    **dict.fromkeys(KERNEL_OPS, _kernel),
    "Activation": _activation,
    "Add": _add,
    "GlobalAveragePooling2D": _mean,
    "HardSwish": hard_swish,
    "LeakyReLU": _leaky_relu,
    "Multiply": _multiply,
    "PReLU": _prelu,
    "ResizeBilinear": _bilinear,
    "Softmax": _softmax,
    "Subtract": _add,
}
ARITHMETIC = Arithmetic(rules=RULES, limit=limit_code)
