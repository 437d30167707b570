"""Functions of one int8 value as tables of 256: TFLM's kernels emulated exactly, in integers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tflite_tools.arithmetic import fixed_point as fixed

_LEVELS = range(-128, 128)
_SIGMOID_BITS = 4  # integer bits of the argument of LOGISTIC and TANH
_HALF_WORD = 2**15
Grid = tuple[np.float32, int]  # scale, zero point


def of_operator(name: str, source: Grid, target: Grid, alpha: object = None) -> np.ndarray:
    """The table of an operator of the TFLite schema, one of `OPERATORS`, int8 (256,).

    Args:
        name: of the operator.
        source: grid of its input.
        target: grid of its output.
        alpha: the slope of LEAKY_RELU.

    Raises:
        ValueError: if TFLM cannot compute with these grids, or the slope is no number.
    """
    if name == "LEAKY_RELU":
        if not isinstance(alpha, float) or not math.isfinite(alpha):
            raise ValueError(f"the slope {alpha!r}")
        return leaky_relu(source, target, alpha)
    return _FUNCTIONS[name](source, target)


def rescaling(source: Grid, target: Grid) -> np.ndarray:
    """QUANTIZE from int8 to int8."""
    return _table(_rescale(source, target))


def relu(source: Grid, target: Grid) -> np.ndarray:
    """RELU."""
    rescale = _rescale(source, target)
    return _table(lambda stored: max(rescale(stored), target[1]))


def relu6(source: Grid, target: Grid) -> np.ndarray:
    """RELU6, which clips stored values and knows one grid only."""
    six = fixed.clamp(fixed.rounded(float(np.float32(6.0) / source[0])) + source[1])
    return _table(lambda stored: min(max(stored, source[1]), six))


def _rescale(source: Grid, target: Grid) -> Callable[[int], int]:
    factor = fixed.quantize_multiplier(float(source[0]) / float(target[0]))
    return lambda stored: fixed.scale(stored - source[1], *factor) + target[1]


def leaky_relu(source: Grid, target: Grid, alpha: float) -> np.ndarray:
    """LEAKY_RELU; its slope is a float32."""
    factors = [
        fixed.quantize_multiplier(float(source[0]) * slope / float(target[0]))
        for slope in (1.0, float(np.float32(alpha)))
    ]

    def value(stored: int) -> int:
        offset = stored - source[1]
        return fixed.scale(offset, *factors[offset < 0]) + target[1]

    return _table(value)


def logistic(source: Grid) -> np.ndarray:
    """LOGISTIC, whose output grid is (1 / 256, -128)."""
    return _sigmoid(source, fixed.logistic, 23, -128)


def tanh(source: Grid) -> np.ndarray:
    """TANH, whose output grid is (1 / 128, 0)."""
    return _sigmoid(source, fixed.tanh, 24, 0)


def _sigmoid(
    source: Grid, function: Callable[[int, int], int], shift: int, zero_point: int
) -> np.ndarray:
    multiplier, left = fixed.quantize_multiplier(float(source[0]) * 2.0 ** (31 - _SIGMOID_BITS))
    radius = fixed.input_radius(_SIGMOID_BITS, left)

    def value(stored: int) -> int:
        offset = stored - source[1]
        if abs(offset) >= radius:
            return 127 if offset > 0 else -128
        result = function(fixed.scale(offset, multiplier, left), _SIGMOID_BITS)
        return fixed.rounded_shift(result, shift) + zero_point

    return _table(value)


def hard_swish(source: Grid, target: Grid) -> np.ndarray:
    """HARD_SWISH in TFLM's 16-bit fixed point.

    Raises:
        ValueError: if the output grid is finer than the kernel can compute.
    """
    wide = np.float32(1.0 / 128.0) * source[0]
    out_factor, out_exponent = _short(float(wide / target[0]))
    factor, exponent = _short(float(wide / (np.float32(3.0) / np.float32(32768.0))))
    if out_exponent > 0:
        raise ValueError("an output grid that is more than 128 times finer than the input's")

    def value(stored: int) -> int:
        offset = (stored - source[1]) * 128
        scaled = _short_product(offset, out_factor)
        gate = _saturated(offset << max(exponent - 1, 0))
        gate = _short_product(gate, factor)
        gate = _saturated(gate * 2) if exponent > 0 else gate
        gate = fixed.rounded_shift(gate, max(-exponent, 0))
        gate = (gate + _HALF_WORD) >> 1
        product = gate * scaled
        result = abs(product) // _HALF_WORD * (1 if product >= 0 else -1)  # towards zero
        return fixed.rounded_shift(_saturated(result), -out_exponent) + target[1]

    return _table(value)


def _short(real: float) -> tuple[int, int]:
    """A factor as 15 bits and an exponent."""
    multiplier, exponent = fixed.quantize_multiplier(real)
    return min((multiplier + _HALF_WORD) >> 16, _HALF_WORD - 1), exponent


def _saturated(value: int) -> int:
    return fixed.clamp(value, -_HALF_WORD, _HALF_WORD - 1)


def _short_product(a: int, b: int) -> int:
    """a * b / 2^15, halves away from zero."""
    return _saturated((a * b + _HALF_WORD // 2) >> 15)


def _table(function: Callable[[int], int]) -> np.ndarray:
    return np.array([fixed.clamp(function(stored)) for stored in _LEVELS], np.int8)


_FUNCTIONS: dict[str, Callable[[Grid, Grid], np.ndarray]] = {
    "HARD_SWISH": hard_swish,
    "LOGISTIC": lambda source, target: logistic(source),
    "QUANTIZE": rescaling,
    "RELU": relu,
    "RELU6": relu6,
    "TANH": lambda source, target: tanh(source),
}
OPERATORS = ("LEAKY_RELU", *_FUNCTIONS)
