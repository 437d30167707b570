"""Which operators run in strips, so that activations fit into a budget of memory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

from tflite_tools.c import memory_map
from tflite_tools.c.lowering import Step
from tflite_tools.c.strip_step import Chain, cost
from tflite_tools.schema.contents import Graph

_HEIGHTS = (8, 4, 2, 1)  # rows of a strip
_TRIED = 4  # plans that fit, of the quickest and of the smallest
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the memory that makes a chain quicker
_Numbers = tuple[int, ...]  # of the steps of a chain


def within(graph: Graph, steps: Sequence[Step], budget: int) -> list[Step]:
    """The steps, some of them joined so that the arena fits into a budget.

    Of all chains through the step at which most memory is needed, in strips of 8, 4, 2 or 1 rows,
    the one that leaves the smallest arena is taken, then again, until none makes it smaller. On the
    way the quickest and the smallest plans that fit are noted. What is left of the budget goes to
    their chains, as higher strips and more memory for filters, and the quickest plan is chosen.

    Args:
        graph: their tensors.
        steps: one per operator.
        budget: bytes of the arena.

    Raises:
        ValueError: if it does not fit and no chain makes the arena smaller, with the step that
            needs most.
    """
    best = _Plan(graph, steps, {})
    if best.size <= budget:
        return best.steps

    @functools.cache  # the same ones are tried again and again
    def chain_of(numbers: _Numbers, height: int) -> Chain:
        return Chain(graph, [steps[number] for number in numbers], height)

    fitting: list[_Plan] = []
    while True:
        plans = list(_further(graph, steps, best, chain_of))
        enough = sorted((plan for plan in plans if plan.size <= budget), key=lambda own: own.cost)
        fitting += enough[:_TRIED]
        fitting += sorted(enough[_TRIED:], key=lambda own: own.order)[:_TRIED]
        least = min(plans, key=lambda plan: plan.order, default=best)
        if least.order >= best.order:
            break
        best = least
    if not fitting:
        raise ValueError(
            f"Activations do not fit into {budget} bytes: the least found is {best.size}. Most is "
            f"needed at this step: {best.steps[best.worst].title}."
        )
    quick = [_quicker(graph, steps, plan, budget) for plan in fitting]
    return min(quick, key=lambda plan: plan.cost).steps


class _Plan:
    """Steps of which some are joined, the memory that they take, and about how much time."""

    def __init__(
        self, graph: Graph, steps: Sequence[Step], chains: Mapping[_Numbers, Chain]
    ) -> None:
        self.chains = dict(chains)
        self.steps: list[Step] = []
        self.numbers: list[_Numbers] = []
        ends = {numbers[-1]: numbers for numbers in chains}
        gone = {number for numbers in chains for number in numbers[:-1]}
        for number, step in enumerate(steps):
            joined = chains[ends[number]].step if number in ends else None
            if number not in gone:
                self.steps.append(joined or step)
                self.numbers.append(ends.get(number, (number,)))
        placed = memory_map.place(graph, self.steps)
        self.size = placed.arena.size
        self.cost = sum(chain.cost for chain in chains.values())
        for number, step in enumerate(self.steps):
            if self.numbers[number] not in chains:
                self.cost += cost(graph, step, placed.units.get(number, 0))
        self.loads = [0] * len(self.steps)
        for buffer in placed.buffers:
            for number in range(buffer.first, buffer.last + 1):
                self.loads[number] += buffer.size

    @property
    def worst(self) -> int:
        """The step that needs most."""
        return self.loads.index(max(self.loads))

    @property
    def order(self) -> tuple[int, list[int]]:
        """Less is better, at first of the arena, then of what each step needs."""
        return self.size, sorted(self.loads, reverse=True)


def _further(
    graph: Graph,
    steps: Sequence[Step],
    plan: _Plan,
    chain_of: Callable[[_Numbers, int], Chain],
) -> Iterator[_Plan]:
    """Plans with one more chain, or another one, through the step that needs most."""
    for numbers in _chains(graph, steps, plan.numbers[plan.worst]):
        others = {own: made for own, made in plan.chains.items() if not set(own) & set(numbers)}
        for height in _HEIGHTS:
            chain = chain_of(numbers, height)
            if chain.step is not None:
                yield _Plan(graph, steps, {**others, numbers: chain})


def _quicker(graph: Graph, steps: Sequence[Step], plan: _Plan, budget: int) -> _Plan:
    """The plan with each chain as quick as fits into the budget."""
    for numbers, chain in plan.chains.items():
        found = [
            dataclasses.replace(chain, height=height, room=int(chain.most_room * share))
            for height in (2 * _HEIGHTS[0], *_HEIGHTS)
            for share in _SHARES
        ]
        for other in sorted(found, key=lambda own: own.cost):
            if other.cost >= chain.cost:
                break
            if other.step is None:
                continue
            better = _Plan(graph, steps, {**plan.chains, numbers: other})
            if better.size <= budget:
                plan = better
                break
    return plan


def _chains(graph: Graph, steps: Sequence[Step], through: _Numbers) -> Iterator[_Numbers]:
    """All chains of two or more steps that pass through one of some steps."""
    following = dict(_links(graph, steps))
    before = {behind: number for number, behind in following.items()}
    line = [through[0]]
    while line[0] in before:
        line.insert(0, before[line[0]])
    while line[-1] in following:
        line.append(following[line[-1]])
    for first in range(len(line)):
        for last in range(first + 2, len(line) + 1):
            if set(line[first:last]) & set(through):
                yield tuple(line[first:last])


def _links(graph: Graph, steps: Sequence[Step]) -> Iterator[tuple[int, int]]:
    """A step, and the one that alone reads what it writes, once, if both can run in strips."""
    for number, step in enumerate(steps):
        readers = [other for other, own in enumerate(steps) if step.writes in own.reads]
        if step.rows is None or len(readers) != 1 or step.writes in graph.outputs:
            continue
        behind = steps[readers[0]]
        if behind.rows is not None and behind.reads.count(step.writes) == 1:
            yield number, readers[0]
