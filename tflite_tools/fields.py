"""Integers of a few bits in bytes: as TFLite stores them, and as TFLM's tables index them."""

from __future__ import annotations

import numpy as np


def pack(values: np.ndarray, bits: int) -> np.ndarray:
    """Signed values of 2 or 4 bits as bytes: least significant field first, rows not padded.

    Raises:
        ValueError: if a value does not fit, or fields of that width do not fill a byte.
    """
    _check_width(bits)
    flat = np.asarray(values).reshape(-1)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if flat.size and not low <= flat.min() <= flat.max() <= high:
        raise ValueError(f"Values {flat.min()}..{flat.max()} do not fit {bits} bits.")
    fields = 8 // bits
    padded = np.zeros(-(-flat.size // fields) * fields, np.uint8)
    padded[: flat.size] = flat.astype(np.int8).view(np.uint8) & (2**bits - 1)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    packed: np.ndarray = np.bitwise_or.reduce(padded.reshape(-1, fields) << shifts, axis=1)
    return packed.astype(np.uint8)


def unpack(data: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack`, int8.

    Raises:
        ValueError: if `data` is longer or shorter than `count` values take.
    """
    _check_width(bits)
    fields = 8 // bits
    if len(data) != -(-count // fields):
        raise ValueError(f"{len(data)} bytes do not hold {count} values of {bits} bits.")
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    found = (np.asarray(data, np.uint8)[:, None] >> shifts) & (2**bits - 1)
    values = found.reshape(-1)[:count].astype(np.int8)
    values[values >= 2 ** (bits - 1)] -= 2**bits
    return values


def unpack_indices(data: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Unsigned indices of 1 to 7 bits, most significant bit first, as TFLM's DECODE reads them.

    Raises:
        ValueError: if `data` is too short or `bits` out of range.
    """
    if not 1 <= bits <= 7:
        raise ValueError(f"Indices have 1 to 7 bits, got {bits}.")
    found = np.unpackbits(np.asarray(data, np.uint8))
    if found.size < bits * count:
        raise ValueError(f"{len(data)} bytes do not hold {count} indices of {bits} bits.")
    weights = 2 ** np.arange(bits - 1, -1, -1)
    indices: np.ndarray = found[: bits * count].reshape(count, bits) @ weights
    return indices


def _check_width(bits: int) -> None:
    if bits not in (2, 4):
        raise ValueError(f"TFLite packs 2 or 4 bits, got {bits}.")
