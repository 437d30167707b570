"""How generated C holds weights that are not evenly spaced codes of one width.

- A codebook: each weight is an index into a table of the levels that occur; all filters share the
  table, or each has one of its own.
- Signs: a bit each for codes of -1 and 1.
- Filters of different widths: a width for each, 0 for a filter of zeros, which takes no bits.

As in `packing`, rows follow each other without gaps, but for those of 8 bits, which begin with a
byte.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from tflite_tools.c import packing
from tflite_tools.schema import bit_fields

WIDTHS = (0, 1, *packing.WIDTHS)
_MOST_INDEX_BITS = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Coded:
    """Weights as indices, signs, or filters of different widths.

    Attributes:
        stream: uint8, the packed rows.
        bits: of each weight, 1 to 4; 0 if `widths` says them.
        levels: int8, the codes that indices stand for; None where codes or signs are stored.
        widths: uint8, one of `WIDTHS` for each row; None if all have `bits`.
        stride: how many of the `levels` each row has; 0 if the rows share all.
    """

    stream: np.ndarray
    bits: int
    levels: np.ndarray | None = None
    widths: np.ndarray | None = None
    stride: int = 0

    @property
    def size(self) -> int:
        """Bytes with the table or the widths."""
        parts = (self.stream, self.levels, self.widths)
        return sum(part.nbytes for part in parts if part is not None)

    def codes(self, rows: int, taps: int) -> np.ndarray:
        """The codes, int8, (rows, taps).

        Raises:
            ValueError: if the stream is longer or shorter than that, or the table too short.
        """
        widths = self._widths(rows)
        found = np.zeros((rows, taps), np.int8)
        rows_of_fields = _fields(self.stream, widths, taps)
        for number, (row, bits, fields) in enumerate(
            zip(found, widths, rows_of_fields, strict=True)
        ):
            if self.levels is not None and bits:
                levels = self._levels(number)
                places = fields.astype(np.int16) & (2**bits - 1)
                if places.max(initial=0) >= len(levels):
                    raise ValueError(f"{len(levels)} levels are fewer than the indices need.")
                row[:] = levels[places]
            elif bits == 1:
                row[:] = np.where(fields < 0, -1, 1)
            else:
                row[:] = fields
        return found

    def _levels(self, row: int) -> np.ndarray:
        levels = np.zeros(0, np.int8) if self.levels is None else self.levels
        return levels[row * self.stride :][: self.stride] if self.stride else levels

    def _widths(self, rows: int) -> list[int]:
        if self.widths is None:
            return [self.bits] * rows
        if len(self.widths) != rows or not set(self.widths.tolist()) <= set(WIDTHS):
            raise ValueError(f"The widths {self.widths.tolist()} are none of {rows} filters.")
        return [int(bits) for bits in self.widths]


def width(bits: int) -> int:
    """The width at which a filter with codes of `bits` bits, 0 to 8, is packed."""
    return bits if bits < 2 else packing.width(bits)


def smallest(codes: np.ndarray, than: int) -> Coded | None:
    """The smallest form of int8 codes, (rows, taps); None if none is smaller than `than` bytes."""
    forms = [
        form for form in (_indexed(codes), _by_table(codes), _mixed(codes)) if form is not None
    ]
    best = min(forms, key=lambda form: form.size)
    return best if best.size < than else None


def _indexed(codes: np.ndarray) -> Coded | None:
    """Indices into a table, or signs; None with too many levels."""
    levels, places = np.unique(codes, return_inverse=True)
    bits = max(1, int(len(levels) - 1).bit_length())
    if bits > _MOST_INDEX_BITS:
        return None
    if levels.tolist() == [-1, 1]:
        return Coded(_pack(np.minimum(codes, 0), [1] * len(codes)), 1)
    fields = _signed(places.reshape(codes.shape), bits)
    return Coded(_pack(fields, [bits] * len(codes)), bits, levels)


def _by_table(codes: np.ndarray) -> Coded | None:
    """Indices into a table for each row; None with too many levels."""
    tables = [np.unique(row) for row in codes]
    stride = max(map(len, tables))
    if stride > 2**_MOST_INDEX_BITS:
        return None
    widths = [max(1, (len(own) - 1).bit_length()) if own.any() else 0 for own in tables]
    fields = np.array(
        [
            _signed(np.searchsorted(own, row), bits)
            for row, own, bits in zip(codes, tables, widths, strict=True)
        ]
    )
    padded = [np.pad(own, (0, stride - len(own))) for own in tables]
    stream, levels = _pack(fields, widths), np.concatenate(padded)
    if len(set(widths)) == 1 and widths[0]:
        return Coded(stream, widths[0], levels, stride=stride)
    return Coded(stream, 0, levels, np.array(widths, np.uint8), stride)


def _signed(places: np.ndarray, bits: int) -> np.ndarray:
    """Indices as signed fields of so many bits."""
    return np.where(places >= 2 ** (bits - 1), places - 2**bits, places) if bits else places


def _mixed(codes: np.ndarray) -> Coded:
    """Each row at the narrowest width."""
    widths = [_narrowest(row) for row in codes]
    signs = (np.array(widths) == 1)[:, None]
    stream = _pack(np.where(signs, np.minimum(codes, 0), codes), widths)
    return Coded(stream, 0, widths=np.array(widths, np.uint8))


def _narrowest(row: np.ndarray) -> int:
    if not row.any():
        return 0
    if np.all(np.abs(row.astype(np.int16)) == 1):
        return 1
    return packing.narrowest(row, 1).bits


def _pack(fields: np.ndarray, widths: Sequence[int]) -> np.ndarray:
    """Signed fields, (rows, taps), one row behind the other."""
    parts, length = [np.zeros(0, np.uint8)], 0
    for row, bits in zip(fields, widths, strict=True):
        gap = -length % 8 if bits == 8 else 0
        begins = (length + gap) % 8 == 0
        if bits:
            packed = packing.pack(row[None], bits) if begins else bit_fields.pack(row, bits)
            count = bits * len(row)
            parts += [np.zeros(gap, np.uint8), np.unpackbits(packed, bitorder="little")[:count]]
            length += gap + count
    return np.packbits(np.concatenate(parts), bitorder="little")


def _fields(stream: np.ndarray, widths: Sequence[int], taps: int) -> Iterator[np.ndarray]:
    """The inverse of `_pack`, row by row.

    Raises:
        ValueError: if the stream is longer or shorter.
    """
    flat, place = np.unpackbits(stream, bitorder="little"), 0
    for bits in widths:
        place += -place % 8 if bits == 8 else 0
        part = np.packbits(flat[place : place + bits * taps], bitorder="little")
        if bits == 0:
            yield np.zeros(taps, np.int8)
        elif place % 8 == 0:
            yield packing.unpack(part, bits, (1, taps))[0]
        else:
            yield bit_fields.unpack(part, bits, taps)
        place += bits * taps
    if len(stream) != -(-place // 8):
        raise ValueError(f"{len(stream)} bytes do not hold {len(widths)} rows of {taps} weights.")
