"""Which memory each tensor lives in: the caller's inputs and outputs, or the arena."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from tflite_tools.c import arena
from tflite_tools.c.arena import Arena, Buffer
from tflite_tools.c.lowering import Step
from tflite_tools.schema.contents import Graph

# ("input", k), ("output", k), ("arena", offset) or ("state", offset)
Place = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where everything lies.

    Attributes:
        tensors: the place of every tensor that a step reads or writes.
        scratch: the offset of each step's scratch memory in the arena, by the step's number.
        units: how many units the scratch memory of a step with a growth holds, by its number.
        copies: (tensor, output number) of the outputs that must be copied at the end.
        buffers: what has been placed in the arena, and when it is live.
        arena: the arena.
    """

    tensors: Mapping[int, Place]
    scratch: Mapping[int, int]
    units: Mapping[int, int]
    copies: tuple[tuple[int, int], ...]
    buffers: tuple[Buffer, ...]
    arena: Arena


def place(
    graph: Graph, steps: Sequence[Step], kept: Mapping[int, Place] | None = None
) -> Placement:
    """Give every tensor a place. Tensors that share their memory are placed together.

    Args:
        graph: their shapes.
        steps: what reads and writes them.
        kept: places of tensors that live on from call to call.
    """
    given = {index: ("input", k) for k, index in enumerate(graph.inputs)} | dict(kept or {})
    owner = _owners(graph, steps, given)
    fixed, copies = _edges(graph, owner, given)
    buffers = [_buffer(graph, steps, owner, root) for root in _made(steps, owner) - set(fixed)]
    copied = {f"tensor {owner[index]}" for index, _ in copies}
    buffers = [
        dataclasses.replace(buffer, last=len(steps) - 1) if buffer.name in copied else buffer
        for buffer in buffers
    ]
    buffers += [
        Buffer(f"scratch {number}", step.scratch, number, number)
        for number, step in enumerate(steps)
        if step.scratch
    ]
    buffers.sort(key=lambda buffer: buffer.name)
    plan = arena.plan(buffers)
    places = {
        index: fixed.get(root) or ("arena", plan.offsets[f"tensor {root}"])
        for index, root in owner.items()
        if root in fixed or f"tensor {root}" in plan.offsets
    }
    scratch, units = {}, {}
    for number, step in enumerate(steps):
        if step.scratch:
            offset, units[number] = _grown(step, f"scratch {number}", buffers, plan)
            scratch[number] = offset
    return Placement(places, scratch, units, copies, tuple(buffers), plan)


def _grown(step: Step, name: str, buffers: Sequence[Buffer], plan: Arena) -> tuple[int, int]:
    """Offset of a step's scratch memory and its units: what the arena has room for anyway."""
    if step.growth is None:
        return plan.offsets[name], 0
    own = next(buffer for buffer in buffers if buffer.name == name)
    start, room = arena.widest(plan, [other for other in buffers if other.meets(own)], own)
    more = (room - own.size) // step.growth.unit
    return start, min(step.growth.most, step.growth.least + more)


def _made(steps: Sequence[Step], owner: Mapping[int, int]) -> set[int]:
    return {owner[step.writes] for step in steps}


def _owners(graph: Graph, steps: Sequence[Step], given: Mapping[int, Place]) -> dict[int, int]:
    """Tensor -> the tensor whose memory it shares, itself if none."""
    owner = {index: index for index in given}
    for number, step in enumerate(steps):
        owner.setdefault(step.writes, step.writes)
        if not step.reads:
            continue
        root = owner[step.reads[0]]
        if step.same_memory or (
            step.in_place and root not in given and _dies(graph, steps, owner, number, root)
        ):
            owner[step.writes] = root
    return owner


def _dies(
    graph: Graph, steps: Sequence[Step], owner: Mapping[int, int], number: int, root: int
) -> bool:
    """Whether nobody needs the memory of `root` after step `number` reads its first input."""
    members = {index for index, other in owner.items() if other == root}
    kept = members & (set(graph.inputs) | set(graph.outputs))
    # The same memory under another name: strips read other rows of it.
    beside = set(steps[number].reads) - {steps[number].reads[0]}
    later = {index for step in steps[number + 1 :] for index in step.reads}
    return not kept and not members & (beside | later)


def _edges(
    graph: Graph, owner: Mapping[int, int], given: Mapping[int, Place]
) -> tuple[dict[int, Place], tuple[tuple[int, int], ...]]:
    """The memory that is not the arena's, and the outputs that share another one's memory, or
    that of a larger tensor."""
    fixed = dict(given)
    copies = []
    for number, index in enumerate(graph.outputs):
        root = owner[index]
        size, own = (math.prod(graph.tensors[tensor].shape) for tensor in (root, index))
        if root in fixed or size > own:
            copies.append((index, number))
        else:
            fixed[root] = ("output", number)
    return fixed, tuple(copies)


def _buffer(graph: Graph, steps: Sequence[Step], owner: Mapping[int, int], root: int) -> Buffer:
    members = {index for index, other in owner.items() if other == root}
    used = [
        number
        for number, step in enumerate(steps)
        if step.writes in members or members & set(step.reads)
    ]
    size = math.prod(graph.tensors[root].shape)
    return Buffer(f"tensor {root}", size, min(used), max(used))
