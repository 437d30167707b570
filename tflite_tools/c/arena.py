"""Where each buffer lies in one block of memory, given when it is live."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

ALIGNMENT = 4  # the widest load of the kernels


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A block of bytes that is needed from step `first` to step `last`, both included."""

    name: str
    size: int
    first: int
    last: int

    def meets(self, other: Buffer) -> bool:
        """Whether there is a step in which both are needed."""
        return self.first <= other.last and other.first <= self.last


@dataclasses.dataclass(frozen=True)
class Arena:
    """The offset of each buffer, and the bytes that hold them all."""

    offsets: Mapping[str, int]
    size: int


def plan(buffers: Sequence[Buffer]) -> Arena:
    """Place buffers so that none overlap while both are needed.

    Greedily by size, as TFLM's planner does: the largest first, each at the lowest place that is
    free (Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020).
    Two other orders are tried as well, and the smallest arena wins.
    """
    orders: tuple[Callable[[Buffer], tuple[int, ...]], ...] = (
        lambda buffer: (-buffer.size, buffer.first),
        lambda buffer: (buffer.first - buffer.last, -buffer.size),
        lambda buffer: (buffer.first, -buffer.size),
    )
    arenas = [_place(sorted(buffers, key=order)) for order in orders]
    return min(arenas, key=lambda arena: arena.size)


def widest(plan: Arena, live: Sequence[Buffer], own: Buffer) -> tuple[int, int]:
    """Offset and bytes of the widest block that is free while `own` is needed, its own included.

    Args:
        live: the buffers that are needed meanwhile.
    """
    taken = sorted(
        (plan.offsets[other.name], plan.offsets[other.name] + other.size)
        for other in live
        if other != own
    )
    start, widest_block = 0, (plan.offsets[own.name], own.size)
    for low, high in (*taken, (plan.size, plan.size)):
        widest_block = max(widest_block, (start, low - start), key=lambda block: block[1])
        start = max(start, aligned(high))
    return widest_block


def _place(buffers: Sequence[Buffer]) -> Arena:
    offsets: dict[str, int] = {}
    placed: list[tuple[int, int, int, int]] = []
    for buffer in buffers:
        # `Buffer.meets`, written out: thousands of plans are tried for a budget.
        own_first, own_last = buffer.first, buffer.last
        taken = sorted(
            (low, high)
            for first, last, low, high in placed
            if first <= own_last and own_first <= last
        )
        low = offsets[buffer.name] = _lowest_gap(taken, buffer.size)
        placed.append((own_first, own_last, low, low + buffer.size))
    end = max((offsets[buffer.name] + buffer.size for buffer in buffers), default=0)
    return Arena(offsets, aligned(end))


def _lowest_gap(taken: Sequence[tuple[int, int]], size: int) -> int:
    start = 0
    for low, high in taken:
        if start + size <= low:
            break
        start = max(start, aligned(high))
    return start


def aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
