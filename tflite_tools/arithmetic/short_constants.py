"""The factor and the bias of a channel in three bytes, as generated C can store them.

A layer has a form (base, fraction f, unit), and each of its channels a word of 24 bits. The lower
twelve are the code n of its factor, which grows with n:

    (1 + (n mod 2^f) / 2^f) * 2^(base - 1 + a),    a = n div 2^f

The upper twelve are a signed number b, which stands for the bias b * 2^max(unit - a, 0): a channel
with a larger factor has a finer bias, so that outputs are moved alike in all of them.

A factor of a file has 31 bits, not f + 1. It can be written as a code if every sum is rounded to
the same output by both; `tfbinreg.finalize` chooses scales for which that holds.
"""

from __future__ import annotations

import dataclasses

import numpy as np

CODE_BITS = 12
_CODES = 2**CODE_BITS
_FEWEST_FRACTION_BITS = 8
_LARGEST_BIAS = 2 ** (CODE_BITS - 1) - 1
_MOST_UNIT = 31
# Exponents for which the thresholds below are exact in 64 bits.
_MOST_RIGHT, _MOST_LEFT = 22, 7
_OUTPUTS = np.arange(-255, 256)  # from the zero point: all that an output can be
_ROUNDS_UP = 2**31 - 2 ** (30 - CODE_BITS - 1)  # a mantissa that is nearer to the next octave


@dataclasses.dataclass(frozen=True)
class FactorForm:
    """What the codes of a layer's factors stand for.

    Attributes:
        base: the shift of the smallest factors.
        fraction: bits of a code behind the leading one.
    """

    base: int
    fraction: int

    def octaves(self, codes: np.ndarray) -> np.ndarray:
        """a of each code: how many octaves the factor is above the smallest ones."""
        return codes >> self.fraction

    def factors(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Multipliers, 2^30 to 2^31 - 1, and shifts, int64."""
        rest = codes & ((1 << self.fraction) - 1)
        multipliers = 2**30 + (rest << (30 - self.fraction))
        return multipliers, self.octaves(codes) + self.base

    def nearest(self, multipliers: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """The codes nearest to some factors, int64."""
        drop = 30 - self.fraction
        codes = (((multipliers - 2**30) + (1 << drop >> 1)) >> drop) + (
            (shifts - self.base) << self.fraction
        )
        return np.clip(codes, 0, _CODES - 1)


def factor_form(multipliers: np.ndarray, shifts: np.ndarray) -> FactorForm | None:
    """The form that holds some factors, None if they are too far from each other.

    Args:
        multipliers: int64, (channels,).
        shifts: int64, (channels,).
    """
    octaves = shifts + (multipliers >= _ROUNDS_UP)
    base, above = int(octaves.min()), int(octaves.max() - octaves.min())
    fraction = CODE_BITS - above.bit_length()
    fits = multipliers.min() >= 2**30 and fraction >= _FEWEST_FRACTION_BITS
    in_range = shifts.min() >= -_MOST_RIGHT and base + above <= _MOST_LEFT
    return FactorForm(base, fraction) if fits and in_range else None


def round_alike(
    multipliers: np.ndarray, shifts: np.ndarray, others: np.ndarray, their_shifts: np.ndarray
) -> np.ndarray:
    """For which channels two factors turn every sum into the same int8, by TFLM's roundings.

    Outputs grow with the sum, so it is enough that each begins at the same one.

    Args:
        multipliers, shifts: of one factor, int64, (channels,).
        others, their_shifts: of the other.

    Returns:
        bool, (channels,).
    """
    ours, theirs = _thresholds(multipliers, shifts), _thresholds(others, their_shifts)
    return np.asarray((ours == theirs).all(axis=1))


def _thresholds(multipliers: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """The smallest sum that becomes each of `_OUTPUTS` or more, (channels, outputs)."""
    left, right = np.maximum(shifts, 0)[:, None], np.maximum(-shifts, 0)[:, None]
    half = (1 << right) >> 1
    # After the first rounding: halves go away from zero in the second.
    rounded = (_OUTPUTS << right) - half + ((right > 0) & (_OUTPUTS <= 0))
    return -((2**30 - (rounded << 31)) // (multipliers[:, None] << left))


def bias_unit(biases: np.ndarray, octaves: np.ndarray) -> int | None:
    """The smallest unit whose multiples hold the biases to the nearest; None if there is none.

    Args:
        biases: (channels,).
        octaves: `FactorForm.octaves` of the channels' codes.
    """
    for unit in range(_MOST_UNIT + 1):
        stored = np.rint(biases / bias_sizes(unit, octaves))
        if np.abs(stored).max() <= _LARGEST_BIAS:
            return unit
    return None


def bias_sizes(unit: int, octaves: np.ndarray) -> np.ndarray:
    """What the biases of the channels are multiples of, int64."""
    return np.asarray(1 << np.maximum(unit - octaves, 0))


@dataclasses.dataclass(frozen=True, eq=False)
class ShortConstants:
    """Factors and biases of a layer, as C reads them.

    Attributes:
        form: base, fraction and unit, int8.
        words: three bytes a channel, least significant first, uint8, (channels, 3).
    """

    form: np.ndarray
    words: np.ndarray


def stored(
    multipliers: np.ndarray, shifts: np.ndarray, biases: np.ndarray
) -> ShortConstants | None:
    """Factors and biases in three bytes a channel; None if that would change an output.

    Args:
        multipliers: int64, (channels,), as TFLM prepares them.
        shifts: int64, (channels,).
        biases: int64, (channels,).
    """
    form = factor_form(multipliers, shifts)
    if form is None:
        return None
    codes = form.nearest(multipliers, shifts)
    octaves = form.octaves(codes)
    # What is no multiple in the smallest unit that has room is none in larger ones.
    unit = bias_unit(biases, octaves)
    if unit is None or np.any(biases % (sizes := bias_sizes(unit, octaves))):
        return None
    if not round_alike(multipliers, shifts, *form.factors(codes)).all():
        return None
    words = codes | ((biases // sizes) & (_CODES - 1)) << CODE_BITS
    return ShortConstants(
        np.array([form.base, form.fraction, unit], np.int8),
        np.ascontiguousarray(words.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3]),
    )
