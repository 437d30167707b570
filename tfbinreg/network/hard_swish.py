"""TFLite's int8 HARD_SWISH, bit for bit, so that the model computes what its file will compute.

LiteRT and TFLM both calculate it in 16-bit fixed point (`reference_ops::HardSwish` in TensorFlow
Lite), which differs from the rounded exact value in one output of 300 or so; a deep net makes that
a lot. An int8 input has 256 values, so a table holds the whole function.
"""

from __future__ import annotations

import tensorflow as tf

_HALF_WORD = 2**15
_RELU_SCALE = 3.0 / _HALF_WORD  # of x in [-3, 3] in 16 bits
_EXTRA_BITS = 7  # by which the int8 input is widened
# Input step / output step, which has to stay below: the kernels check it.
FINEST_HARD_SWISH = 2.0**_EXTRA_BITS


def hard_swish(inputs: tf.Tensor) -> tf.Tensor:
    """x * min(max(x + 3, 0), 6) / 6 (Howard et al., "Searching for MobileNetV3", ICCV 2019)."""
    return inputs * tf.nn.relu6(inputs + 3.0) * (1.0 / 6.0)


def hard_swish_table(
    input_scale: tf.Tensor,
    input_zero_point: tf.Tensor,
    output_scale: tf.Tensor,
    output_zero_point: tf.Tensor,
) -> tf.Tensor:
    """The kernel's output for every int8 input.

    Args:
        input_scale: float32, shape ().
        input_zero_point: int32, shape ().
        output_scale: float32, shape ().
        output_zero_point: int32, shape ().

    Returns:
        int32, shape (256,): the stored output for the stored inputs -128 to 127.
    """
    wide_scale = input_scale * (2.0**-_EXTRA_BITS)
    out_factor, out_exponent = _fixed_point(wide_scale / output_scale)
    relu_factor, relu_exponent = _fixed_point(wide_scale / _RELU_SCALE)
    wide = (tf.range(-128, 128) - input_zero_point) * 2**_EXTRA_BITS
    scaled = _rounded_high(wide, out_factor)
    relu = _saturated(wide * _power(relu_exponent - 1))
    relu = _rounded_high(relu, relu_factor)
    relu = tf.where(relu_exponent > 0, _saturated(relu * 2), relu)
    relu = _rounded_shift(relu, tf.maximum(-relu_exponent, 0))
    relu = tf.bitwise.right_shift(relu + _HALF_WORD, 1)  # now in [0, 2^15): the gate
    product = tf.truncatediv(relu * scaled, _HALF_WORD)
    output = _rounded_shift(product, tf.maximum(-out_exponent, 0)) + output_zero_point
    return tf.clip_by_value(output, -128, 127)


def _fixed_point(factor: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(m, e), int32: factor = m / 2^15 * 2^e with 2^14 <= m < 2^15, rounded as the runtimes do."""
    factor, two = tf.cast(factor, tf.float64), tf.constant(2.0, tf.float64)
    exponent = tf.floor(tf.math.log(factor) / tf.math.log(two)) + 1.0
    fraction = factor / two**exponent
    # The logarithm may be off by one near a power of two.
    off = tf.cast(fraction >= 1.0, tf.float64) - tf.cast(fraction < 0.5, tf.float64)
    exponent, fraction = exponent + off, fraction / two**off
    # First to 31 bits, then to 15, each time half up: the two roundings are the kernel's.
    long = tf.floor(fraction * 2.0**31 + 0.5)
    short = tf.minimum(tf.floor((long + _HALF_WORD) / 2.0**16), _HALF_WORD - 1.0)
    return tf.cast(short, tf.int32), tf.cast(exponent, tf.int32)


def _power(exponent: tf.Tensor) -> tf.Tensor:
    """2^exponent, 1 if it is negative; int32."""
    return tf.bitwise.left_shift(1, tf.clip_by_value(exponent, 0, 15))


def _saturated(values: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(values, -_HALF_WORD, _HALF_WORD - 1)


def _rounded_high(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """a * b / 2^15, halves away from zero."""
    product = a * b
    nudge = tf.where(product >= 0, _HALF_WORD // 2, 1 - _HALF_WORD // 2)
    return tf.truncatediv(product + nudge, _HALF_WORD)


def _rounded_shift(values: tf.Tensor, exponent: tf.Tensor) -> tf.Tensor:
    """values / 2^exponent, halves away from zero."""
    half = tf.bitwise.right_shift(_power(exponent), 1)
    magnitude = tf.bitwise.right_shift(tf.abs(values) + half, exponent)
    return tf.sign(values) * magnitude
