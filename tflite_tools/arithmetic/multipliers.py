"""The factors that TFLM's kernels prepare from scales.

They are pairs (m, s), which stand for m / 2^31 * 2^s (`fixed_point.quantize_multiplier`). Scales
are float32. What is made of them is float64, also where TFLM's public sources say float32: so does
the TFLM that `setup.cfg` names, as outputs in the middle of two levels show.
"""

from __future__ import annotations

from typing import NamedTuple, SupportsFloat

import numpy as np

from tflite_tools.arithmetic import fixed_point

Factor = tuple[int, int]
HALF = 2**30  # the multiplier of powers of two
FINER_BITS = 20  # by which ADD and SUB widen their operands
EXP_BITS = 5  # integer bits of SOFTMAX's exponents


def kernel(weight_scales: np.ndarray, source: SupportsFloat, target: SupportsFloat) -> list[Factor]:
    """The factor of every output channel, or the one of all.

    Args:
        weight_scales: float32, () or (output channels,).
        source: scale of the input.
        target: scale of the output.
    """
    scales = np.asarray(weight_scales, np.float32).reshape(-1)
    products = scales.astype(np.float64) * float(source)
    return [fixed_point.quantize_multiplier(float(p) / float(target)) for p in products]


class Addition(NamedTuple):
    """Factors of both operands, and of their sum."""

    first: Factor
    second: Factor
    whole: Factor


def addition(first: SupportsFloat, second: SupportsFloat, target: SupportsFloat) -> Addition:
    """Of ADD and SUB, whose operands are widened by `FINER_BITS`.

    Raises:
        ValueError: if the output is too fine for the operands.
    """
    common = 2.0 * max(float(first), float(second))
    whole = common / (2.0**FINER_BITS * float(target))
    if whole >= 1.0:
        raise ValueError("an output scale too fine for its operands'")
    factors = (float(first) / common, float(second) / common, whole)
    return Addition(*map(fixed_point.quantize_multiplier, factors))


def product(first: SupportsFloat, second: SupportsFloat, target: SupportsFloat) -> Factor:
    """Of MUL."""
    return fixed_point.quantize_multiplier(float(first) * float(second) / float(target))


def prelu(
    source: SupportsFloat, slopes: SupportsFloat, target: SupportsFloat
) -> tuple[Factor, Factor]:
    """Of positive inputs, and of negative ones times their slope's code."""
    straight = fixed_point.quantize_multiplier(float(source) / float(target))
    return straight, product(source, slopes, target)


def mean(source: SupportsFloat, target: SupportsFloat, count: int) -> Factor:
    """Of the sum of `count` values, truncated as TFLM's QuantizedMeanOrSum does."""
    multiplier, shift = fixed_point.quantize_multiplier(float(source) / float(target))
    extra = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << extra) // count, shift - extra


def softmax(source: SupportsFloat, beta: float) -> Factor:
    """Of the differences from the largest input.

    Raises:
        ValueError: if the input is too fine.
    """
    real = min(beta * float(source) * 2.0 ** (31 - EXP_BITS), 2.0**31 - 1.0)
    if real <= 1.0:
        raise ValueError("an input scale too fine for 32 bits")
    return fixed_point.quantize_multiplier(real)
