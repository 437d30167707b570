"""Integer operations as LiteRT computes them with XNNPACK, its default, bit for bit.

Kernels and products are exact sums times one float32 factor, rounded half to even; additions are
fixed point with one rounding (github.com/google/XNNPACK, src/reference and src/operators). What
XNNPACK does not take (SOFTMAX, PRELU, HARD_SWISH, AVERAGE_POOL_2D) runs in LiteRT's own kernels
(tensorflow/lite/kernels/internal/optimized).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfbinreg.core.grid import Grid
from tfbinreg.deploy import tflm_arithmetic
from tfbinreg.deploy.finest_grids import ADD_RATIOS, LARGEST_OWN_ADD
from tfbinreg.deploy.frozen import FrozenOp, slope_codes
from tfbinreg.deploy.integer_ops import (
    SHARED,
    Arithmetic,
    InexactError,
    Rule,
    Step,
    bilinear,
    grid_of,
    kernel_sums,
    stored_lookup,
)
from tfbinreg.deploy.tf_ops import KERNEL_OPS
from tflite_tools.arithmetic import fixed_point, interpolation

# Bits in an addition, steps of 1 in a leaky ReLU.
_ADD_BITS, _LEAKY_UNIT = 20, 256.0
# The ratios of scales for which XNNPACK takes an operator (xnnpack_delegate.cc); for others LiteRT
# runs its own kernel, which computes as TFLM's.
_LEAKY_RATIOS = (2.0**-8, 2.0**7)
_LEVELS = np.arange(-128, 128)


def limit_code(limit: float, grid: Grid, *, fused: bool) -> int:
    """The code at which a ReLU saturates; one by itself is LiteRT's own kernel."""
    if not fused:
        return tflm_arithmetic.limit_code(limit, grid, fused=fused)
    zero_point = np.float32(grid.zero_point)
    return int(np.rint(np.float32(limit) / grid.scale + zero_point) - zero_point)


def kernel(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """Every kind that has weights."""
    assert op.kernel is not None
    # float32, in XNNPACK's order
    factor = sources[0].scale * op.kernel.stored_scale / grid_of(op).scale
    sums = kernel_sums(op, sources[0])
    return lambda inputs: tf.round(tf.cast(sums(inputs), tf.float32) * factor)


def _transpose(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """XNNPACK leaves those whose padding is negative to a kernel that follows no known rule."""
    assert op.kernel is not None
    own, size = op.attributes, op.kernel.codes.shape[:2]
    if own["padding"] == "same" and any(np.less(size, own["strides"])):
        raise InexactError(
            f"its kernel {size} is smaller than its strides, with padding 'same', and LiteRT's "
            "rounding is not known there",
            "use padding='valid', a larger kernel or target='tflm'",
        )
    return kernel(op, sources)


def _multiply(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    if op.inputs[0] == op.inputs[1]:
        return _square(sources[0], grid_of(op))
    factor = sources[0].scale * sources[1].scale / grid_of(op).scale

    def step(inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        # Whole numbers: of floats, TensorFlow's graphs reorder a product of three.
        left, right = (tf.cast(codes, tf.int32) for codes in inputs)
        return tf.round(tf.cast(left * right, tf.float32) * factor)

    return step


def _square(source: Grid, target: Grid) -> Step:
    """A tensor times itself: XNNPACK rounds with the zero point added, which decides halves."""
    values = (_LEVELS - source.zero_point).astype(np.float32) * source.scale
    stored = values * values * (np.float32(1.0) / target.scale) + np.float32(target.zero_point)
    return stored_lookup(np.clip(np.rint(stored), -128, 127), source, target)


def _add(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """ADD and SUB."""
    ratios = [source.scale / grid_of(op).scale for source in sources]
    low, high = ADD_RATIOS
    if low <= min(ratios) <= max(ratios) < high:
        return addition(op, sources)
    if max(ratios) >= LARGEST_OWN_ADD:
        what = f"its output grid is {max(ratios):.0f} times finer than an input's"
        raise InexactError(what, "scale that input down, or use target='tflm'")
    return tflm_arithmetic.RULES[op.kind](op, sources)


def addition(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """ADD and SUB in XNNPACK."""
    ratios = [source.scale / grid_of(op).scale for source in sources]
    shift = _ADD_BITS - int(np.floor(np.log2(max(ratios))))
    first, second = (int(np.rint(np.ldexp(np.float64(ratio), shift))) for ratio in ratios)
    second = -second if op.kind == "Subtract" else second

    def step(inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        left, right = (tf.cast(codes, tf.int32) for codes in inputs)
        total = left * first + right * second + (1 << (shift - 1))
        return tf.bitwise.right_shift(total, shift)

    return step


def _mean(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """The stored values are averaged: their zero points are in the sum and in the rounding."""
    source, target = sources[0], grid_of(op)

    def step(inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        _, height, width, _ = inputs[0].shape
        size = np.float32(height * width)
        factor = source.scale / target.scale * (np.float32(1.0) / size)
        offset = np.float32(target.zero_point) - np.float32(source.zero_point) * size * factor
        stored = tf.cast(inputs[0], tf.int32) + source.zero_point
        sums = tf.reduce_sum(stored, [1, 2], keepdims=op.attributes["keepdims"])
        return tf.round(tf.cast(sums, tf.float32) * factor + offset) - target.zero_point

    return step


def _leaky_relu(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    slopes = _slopes(op, sources[0])
    low, high = _LEAKY_RATIOS
    if low <= min(slopes) <= max(slopes) <= high:
        return leaky_relu(op, sources)
    return tflm_arithmetic.RULES[op.kind](op, sources)


def _slopes(op: FrozenOp, source: Grid) -> tuple[np.float32, np.float32]:
    """Levels of the output per level of the input, above zero and below."""
    ratio = source.scale / grid_of(op).scale
    return ratio, ratio * np.float32(op.attributes["alpha"])


def leaky_relu(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """LEAKY_RELU in XNNPACK."""
    slopes = _slopes(op, sources[0])
    positive, negative = (np.rint(np.float32(_LEAKY_UNIT) * slope) for slope in slopes)

    def step(inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        products = inputs[0] * tf.where(inputs[0] >= 0.0, positive, negative)
        return tf.floor(products / _LEAKY_UNIT + 0.5)

    return step


def _prelu(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """PRELU in LiteRT's own kernel, whose multipliers are quotients of float32."""
    source, target, slopes = sources[0].scale, grid_of(op).scale, slope_codes(op).scale
    ratios = source / target, source * slopes / target
    straight, bent = (fixed_point.quantize_multiplier(float(np.float32(r))) for r in ratios)
    return tflm_arithmetic.prelu(op, (straight, bent))


def _bilinear(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """RESIZE_BILINEAR: halves upwards."""
    bits = 2 * interpolation.XNNPACK_BITS

    def rounded(values: tf.Tensor) -> tf.Tensor:
        return tf.bitwise.right_shift(values + (1 << bits - 1), bits)

    return bilinear(op, interpolation.xnnpack, rounded)


def _activation(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """LOGISTIC and TANH of the exact real number, in float32."""
    source, target = sources[0], grid_of(op)
    values = ((_LEVELS - source.zero_point).astype(np.float32) * source.scale).astype(np.float64)
    is_tanh = op.attributes["activation"] == "tanh"
    results = (np.tanh(values) if is_tanh else 1.0 / (1.0 + np.exp(-values))).astype(np.float32)
    stored = results * (np.float32(1.0) / target.scale) + np.float32(target.zero_point)
    return stored_lookup(np.clip(np.rint(stored), -128, 127), source, target)


def _softmax(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """SOFTMAX over the last axis: float32 exponentials, added up one after the other."""
    target = grid_of(op)
    differences = np.arange(-255, 1).astype(np.float32)
    table = np.exp((differences * sources[0].scale).astype(np.float64)).astype(np.float32)

    def step(inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        best = tf.reduce_max(inputs[0], -1, keepdims=True)
        powers = tf.gather(tf.constant(table), tf.cast(inputs[0] - best, tf.int32) + 255)
        shares = powers * (1.0 / (_sum_in_order(powers) * target.scale))
        return tf.floor(shares + 0.5)

    return step


def _sum_in_order(values: tf.Tensor) -> tf.Tensor:
    """The sum over the last axis, which is kept, as a loop from its first value on rounds it."""
    columns = tf.transpose(values, [values.shape.rank - 1, *range(values.shape.rank - 1)])
    return tf.foldl(tf.add, columns)[..., None]


RULES: Mapping[str, Rule] = {
    **SHARED,
    **dict.fromkeys(KERNEL_OPS, kernel),
    "Activation": _activation,
    "Add": _add,
    "Conv2DTranspose": _transpose,
    "GlobalAveragePooling2D": _mean,
    "HardSwish": tflm_arithmetic.hard_swish,
    "LeakyReLU": _leaky_relu,
    "Multiply": _multiply,
    "PReLU": _prelu,
    "ResizeBilinear": _bilinear,
    "Softmax": _softmax,
    "Subtract": _add,
}
ARITHMETIC = Arithmetic(rules=RULES, limit=limit_code)
