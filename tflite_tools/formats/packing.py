"""How generated C holds weights: codes of 2, 3, 4 or 8 bits times a factor."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tflite_tools import fields

WIDTHS = (2, 3, 4, 8)


@dataclasses.dataclass(frozen=True, eq=False)
class Codes:
    """Weights as they are packed: stored = codes * prescale.

    Attributes:
        codes: int8.
        bits: one of `WIDTHS`; every code fits.
        prescale: 1 to 128.
    """

    codes: np.ndarray
    bits: int
    prescale: int


def width(bits: int) -> int:
    """The width at which codes of `bits` bits, 2 to 8, are packed."""
    return min(own for own in WIDTHS if own >= bits)


def narrowest(weights: np.ndarray, prescale: int | None = None) -> Codes:
    """The narrowest exact form of stored weights.

    Args:
        weights: int8.
        prescale: a common divisor; None takes the greatest. Weights that need 8 bits anyway are
            left as they are.
    """
    wide = weights.astype(np.int16)
    divisor = prescale or max(math.gcd(*np.abs(wide).reshape(-1).tolist()), 1)
    codes = wide // divisor
    for bits in WIDTHS[:-1]:
        low, high = fields.limits(bits)
        if codes.size and low <= codes.min() and codes.max() <= high:
            return Codes(codes.astype(np.int8), bits, divisor)
    return Codes(weights.astype(np.int8), 8, 1)
