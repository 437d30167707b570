"""How generated C holds weights: codes of 2, 3, 4 or 8 bits times a factor.

Rows of codes, one per filter, follow each other without gaps, least significant bit first. Codes
of a row that begins with a byte come in blocks of as many as whole words hold: 16 of 2 bits, 32 of
3, 8 of 4. There byte j of a word holds bits of the codes j, 4 + j, 8 + j, ..., so that one shift
and one mask yield four neighbouring codes, each in the upper bits of a byte. The codes behind the
last block, and rows that begin within a byte, are in order.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tflite_tools.schema import bit_fields

WIDTHS = (2, 3, 4, 8)


@dataclasses.dataclass(frozen=True, eq=False)
class Codes:
    """Weights as they are packed: stored = codes * prescale.

    Attributes:
        codes: int8, (rows, taps).
        bits: one of `WIDTHS`; every code fits.
        prescale: 1 to 128.
    """

    codes: np.ndarray
    bits: int
    prescale: int


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes (rows, taps) as the C reads them, uint8.

    Raises:
        ValueError: if a code does not fit, or for another width than 1 to 8 bits.
    """
    stream = _bits(bit_fields.pack(codes, bits), codes.size * bits, len(codes))
    return np.packbits(_reordered(stream, _ORDERS.get(bits)), bitorder="little")


def unpack(data: np.ndarray, bits: int, shape: tuple[int, int]) -> np.ndarray:
    """The inverse of `pack`, int8.

    Raises:
        ValueError: if `data` is longer or shorter than `shape` takes, or for another width.
    """
    count = shape[0] * shape[1]
    bit_fields.check_size(data, bits, count)
    order = _ORDERS.get(bits)
    stream = _bits(data, count * bits, shape[0])
    stream = _reordered(stream, None if order is None else np.argsort(order))
    return bit_fields.unpack(np.packbits(stream, bitorder="little"), bits, count).reshape(shape)


def _bits(data: np.ndarray, count: int, rows: int) -> np.ndarray:
    return np.unpackbits(data, count=count, bitorder="little").reshape(rows, -1)


def _reordered(stream: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    """The bits (rows, bits of a row), blocks in another order in rows that begin with a byte."""
    length = stream.shape[1]
    if order is None or length < order.size:
        return stream
    aligned = slice(None, None, 8 // math.gcd(length, 8))
    whole = length - length % order.size
    blocks = stream[aligned, :whole].reshape(-1, whole // order.size, order.size)
    result = stream.copy()
    result[aligned, :whole] = blocks[..., order].reshape(-1, whole)
    return result


def _order(bits: int, words: list[list[tuple[int, int]]]) -> np.ndarray:
    """For each bit of a block as it is stored, its place among the codes in order.

    Args:
        bits: of a code.
        words: for each bit of a byte of each word, which four codes it belongs to, and which of
            their bits it is.
    """
    return np.array(
        [
            (4 * four + byte) * bits + bit
            for word in words
            for byte in range(4)
            for four, bit in word
        ]
    )


def _fours(bits: int, first: int, count: int) -> list[tuple[int, int]]:
    return [(first + four, bit) for four in range(count) for bit in range(bits)]


# Three words of two times four 3-bit codes each have two bits of every byte to spare: they hold
# the upper bits of two more fours (words 0 and 2) and their lowest bits (word 1).
_ORDERS = {
    2: _order(2, [_fours(2, 0, 4)]),
    3: _order(3, [
        [*_fours(3, 0, 2), (6, 1), (6, 2)],
        [*_fours(3, 2, 2), (6, 0), (7, 0)],
        [*_fours(3, 4, 2), (7, 1), (7, 2)],
    ]),
    4: _order(4, [_fours(4, 0, 2)]),
}  # fmt: skip


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
        low, high = bit_fields.limits(bits)
        if codes.size and low <= codes.min() and codes.max() <= high:
            return Codes(codes.astype(np.int8), bits, divisor)
    return Codes(weights.astype(np.int8), 8, 1)
