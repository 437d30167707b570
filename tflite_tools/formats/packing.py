"""Integer codes packed at 2, 3, 4 or 8 bits, least significant bit first, without gaps."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

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


def limits(bits: int) -> tuple[int, int]:
    """Smallest and largest code of a width."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


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
        low, high = limits(bits)
        if codes.size and low <= codes.min() and codes.max() <= high:
            return Codes(codes.astype(np.int8), bits, divisor)
    return Codes(weights.astype(np.int8), 8, 1)


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes as a stream of bytes, uint8; the last byte is filled with zeros.

    Raises:
        ValueError: for another width, or a code that does not fit.
    """
    if bits not in WIDTHS:
        raise ValueError(f"Codes are packed at {WIDTHS} bits, not {bits}.")
    low, high = limits(bits)
    flat = codes.reshape(-1).astype(np.int64)
    if flat.size and (flat.min() < low or flat.max() > high):
        raise ValueError(f"A code lies outside [{low}, {high}].")
    fields = (flat & (2**bits - 1)).astype(np.uint8)[:, None]
    stream = np.unpackbits(fields, axis=1, bitorder="little")[:, :bits]
    return np.packbits(stream.reshape(-1), bitorder="little")


def unpack(data: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack`: the first `count` codes, int8."""
    stream = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
    values = (stream.astype(np.int16) << np.arange(bits)).sum(axis=1)
    return np.where(values >= 2 ** (bits - 1), values - 2**bits, values).astype(np.int8)
