"""TFLM's fixed-point arithmetic on Python integers: what the kernels compute, bit for bit.

The functions follow gemmlowp's fixedpoint.h and TFLM's kernel preparation, which round twice:
SaturatingRoundingDoublingHighMul, then RoundingDivideByPOT.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_ACTIVATION_LIMITS = {"RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}
ACTIVATIONS = ("NONE", *_ACTIVATION_LIMITS)  # that kernels fuse
_MAX32, _MIN32 = 2**31 - 1, -(2**31)
_ONE = _MAX32  # the largest number of Q0.31, which stands for 1
# exp(-2^k) for k = -2 to 4, Q0.31.
_EXP_FACTORS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)


def wrap(value: int) -> int:
    """A whole number as int32, modulo 2^32."""
    return (value + 2**31) % 2**32 - 2**31


def clamp(value: int, low: int = -128, high: int = 127) -> int:
    """`value` within [low, high]."""
    return min(max(value, low), high)


def activation_limits(activation: str, scale: np.float32, zero_point: int) -> tuple[int, int]:
    """Smallest and largest int8 that a fused activation leaves on the grid of the output.

    Raises:
        ValueError: if it is none of `ACTIVATIONS`.
    """
    if activation == "NONE":
        return -128, 127
    if activation not in ACTIVATIONS:
        raise ValueError(f"the fused activation {activation}")
    low, high = (
        None if limit is None else zero_point + rounded(float(np.float32(limit) / scale))
        for limit in _ACTIVATION_LIMITS[activation]
    )
    return -128 if low is None else max(-128, low), 127 if high is None else min(127, high)


def rounded(value: float) -> int:
    """The nearest whole number, halves away from zero."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def quantize_multiplier(real: float) -> tuple[int, int]:
    """(m, s) with real = m / 2^31 * 2^s and 2^30 <= |m| < 2^31; (0, 0) below 2^-32."""
    if real == 0.0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = rounded(fraction * 2.0**31)
    if abs(multiplier) == 2**31:
        multiplier, shift = multiplier // 2, shift + 1
    return (0, 0) if shift < -31 else (multiplier, shift)


def high_product(a: Any, b: Any) -> Any:
    """a * b / 2^31, halves upwards, for whole numbers of any kind; not both may be -2^31."""
    return (a * b + 2**30) // 2**31


def rounded_shift(value: int, exponent: int) -> int:
    """value / 2^exponent, halves away from zero."""
    mask = (1 << exponent) - 1
    return (value >> exponent) + ((value & mask) > (mask >> 1) + (value < 0))


def scale(value: int, multiplier: int, shift: int) -> int:
    """value * multiplier / 2^31 * 2^shift as MultiplyByQuantizedMultiplier computes it."""
    left = max(shift, 0)
    return rounded_shift(high_product(wrap(value << left), multiplier), left - shift)


def input_radius(integer_bits: int, left_shift: int) -> int:
    """The largest input that a Q`integer_bits` number can hold after `left_shift`."""
    return int((2**integer_bits - 1) * 2.0 ** (31 - integer_bits) / 2.0**left_shift)


def exp_on_negatives(value: int, integer_bits: int) -> int:
    """exp(x) for x <= 0, from Q`integer_bits` to Q0.31."""
    if value == 0:
        return _ONE
    quarter = 1 << (29 - integer_bits)
    near = (value & (quarter - 1)) - quarter
    result = _exp_near_zero(near << integer_bits)
    rest = near - value
    for exponent, factor in enumerate(_EXP_FACTORS, start=-2):
        if integer_bits > exponent and rest & (1 << (31 - integer_bits + exponent)):
            result = high_product(result, factor)
    return result


def _exp_near_zero(value: int) -> int:
    """exp(x) for x in [-1/4, 0): Taylor around -1/8."""
    x = value + 2**28
    square = high_product(x, x)
    cube, fourth = high_product(square, x), high_product(square, square)
    tail = high_product(rounded_shift(fourth, 2) + cube, 715827883)
    tail = rounded_shift(tail + square, 1)
    return 1895147668 + high_product(1895147668, x + tail)


def half_reciprocal(value: Any) -> Any:
    """1 / (1 + x) for x in [0, 1], from Q0.31 to Q1.30, for whole numbers of any kind: three steps
    of Newton's method."""
    half = (value + _ONE + 1) // 2
    x = 1515870810 + high_product(half, -1010580540)
    for _ in range(3):
        error = 2**29 - high_product(half, x)
        x += high_product(x, error) * 4
    return x


def _doubled(value: int, times: int) -> int:
    """value * 2^times, saturated."""
    return clamp(value << times, _MIN32, _MAX32)


def logistic(value: int, integer_bits: int) -> int:
    """1 / (1 + exp(-x)), from Q`integer_bits` to Q0.31."""
    if value == 0:
        return 2**30
    positive = _doubled(half_reciprocal(exp_on_negatives(-abs(value), integer_bits)), 1)
    return positive if value > 0 else _ONE - positive


def tanh(value: int, integer_bits: int) -> int:
    """tanh(x), from Q`integer_bits` to Q0.31."""
    if value == 0:
        return 0
    # The bits of x are those of 2x with one more integer bit.
    exponential = exp_on_negatives(-abs(value), integer_bits + 1)
    positive = _doubled(half_reciprocal(exponential) - 2**29, 2)
    return positive if value > 0 else -positive
