"""Shapes, windows and steps through memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

SAME, VALID = 0, 1  # the schema's Padding


def window(size: int, kernel: int, stride: int, dilation: int, padding: int) -> tuple[int, int]:
    """(outputs, padding in front) of a window that slides over `size` values."""
    reach = (kernel - 1) * dilation + 1
    if padding == VALID:
        return (size - reach + stride) // stride, 0
    count = -(-size // stride)
    return count, max((count - 1) * stride + reach - size, 0) // 2


def never_leaves(size: int, kernel: int, stride: int, dilation: int, count: int) -> bool:
    """Whether `count` windows from the first value on stay inside `size` values."""
    return (count - 1) * stride + (kernel - 1) * dilation + 1 <= size


def row_major(shape: Sequence[int]) -> list[int]:
    """The distance of neighbours along each axis of a dense array."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def broadcast_steps(shape: Sequence[int], result: Sequence[int]) -> list[int]:
    """Steps of an operand of `shape` along the axes of `result`; 0 where it is repeated.

    Raises:
        ValueError: if `shape` does not fit `result`.
    """
    padded = [1] * (len(result) - len(shape)) + list(shape)
    if len(padded) != len(result) or any(
        size not in (1, wanted) for size, wanted in zip(padded, result, strict=True)
    ):
        raise ValueError(f"shape {tuple(shape)} does not fit {tuple(result)}")
    return [0 if size == 1 else step for size, step in zip(padded, row_major(padded), strict=True)]


def collapse(
    sizes: Sequence[int], *steps: Sequence[int], rank: int = 4
) -> tuple[list[int], list[list[int]]]:
    """The same walk with as few axes as possible, filled up to `rank` with axes of one value.

    Raises:
        ValueError: if more than `rank` axes are left.
    """
    axes: list[tuple[int, list[int]]] = []
    for size, moves in zip(sizes, zip(*steps, strict=True), strict=True):
        if size == 1:
            continue
        if axes and all(
            outer == move * size for outer, move in zip(axes[-1][1], moves, strict=True)
        ):
            axes[-1] = (axes[-1][0] * size, list(moves))
        else:
            axes.append((size, list(moves)))
    if len(axes) > rank:
        raise ValueError(f"needs {len(axes)} nested loops, more than {rank}")
    axes = [(1, [0] * len(steps))] * (rank - len(axes)) + axes
    return [size for size, _ in axes], [[moves[k] for _, moves in axes] for k in range(len(steps))]
