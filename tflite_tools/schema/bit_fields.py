"""Integers of a few bits in bytes: as TFLite and C store them, and as TFLM's tables index them."""

from __future__ import annotations

import numpy as np


def limits(bits: int) -> tuple[int, int]:
    """Smallest and largest signed value of a width."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def pack(values: np.ndarray, bits: int) -> np.ndarray:
    """Signed values of 1 to 8 bits as a stream of bytes, least significant bit first, no gaps.

    The last byte is filled with zeros. Returns uint8.

    Raises:
        ValueError: if a value does not fit, or for another width.
    """
    _check_width(bits)
    flat = np.asarray(values).reshape(-1).astype(np.int64)
    low, high = limits(bits)
    if flat.size and not low <= flat.min() <= flat.max() <= high:
        raise ValueError(f"Values {flat.min()}..{flat.max()} do not fit {bits} bits.")
    fields = (flat & (2**bits - 1)).astype(np.uint8)[:, None]
    stream = np.unpackbits(fields, axis=1, bitorder="little")[:, :bits]
    return np.packbits(stream.reshape(-1), bitorder="little")


def unpack(data: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack`, int8.

    Raises:
        ValueError: if `data` is longer or shorter than `count` values take, or for another width.
    """
    check_size(data, bits, count)
    stream = np.unpackbits(np.asarray(data, np.uint8), count=count * bits, bitorder="little")
    values = (stream.reshape(count, bits).astype(np.int16) << np.arange(bits)).sum(axis=1)
    return np.where(values > limits(bits)[1], values - 2**bits, values).astype(np.int8)


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


def check_size(data: np.ndarray, bits: int, count: int) -> None:
    """Refuse bytes that are not as many as `count` values of `bits` bits take.

    Raises:
        ValueError: naming both; or for another width than 1 to 8 bits.
    """
    _check_width(bits)
    if len(data) != -(-count * bits // 8):
        raise ValueError(f"{len(data)} bytes do not hold {count} values of {bits} bits.")


def _check_width(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"Values are packed at 1 to 8 bits, got {bits}.")
