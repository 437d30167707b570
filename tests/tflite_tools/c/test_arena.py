"""No two buffers share memory while both are needed, and the plan is not wasteful."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tflite_tools.c import arena, generate
from tflite_tools.c.arena import Arena, Buffer


def overlapping(buffers, plan):
    """Pairs that lie over each other while both are live."""
    return [
        (a.name, b.name)
        for a, b in itertools.combinations(buffers, 2)
        if a.meets(b)
        and plan.offsets[a.name] < plan.offsets[b.name] + b.size
        and plan.offsets[b.name] < plan.offsets[a.name] + a.size
    ]


@st.composite
def live_buffers(draw):
    spans = draw(st.lists(st.tuples(*[st.integers(0, 12)] * 2, st.integers(1, 99)), max_size=15))
    return [Buffer(str(k), size, min(a, b), max(a, b)) for k, (a, b, size) in enumerate(spans)]


@given(live_buffers())
def test_live_buffers_never_overlap(buffers):
    plan = arena.plan(buffers)
    assert overlapping(buffers, plan) == []
    ends = [plan.offsets[buffer.name] + buffer.size for buffer in buffers]
    assert max(ends, default=0) <= plan.size <= sum(-(-b.size // 4) * 4 for b in buffers)
    assert all(offset % arena.ALIGNMENT == 0 for offset in plan.offsets.values())


@given(live_buffers())
def test_the_plan_holds_what_is_live_at_once(buffers):
    busiest = max(
        (sum(b.size for b in buffers if b.first <= step <= b.last) for step in range(13)), default=0
    )
    assert arena.plan(buffers).size >= busiest


def test_a_chain_needs_two_neighbours():
    chain = [Buffer(str(k), 100, k, k + 1) for k in range(9)]
    assert arena.plan(chain).size == 200


def test_the_checker_finds_an_overlap():
    pair = [Buffer("a", 8, 0, 1), Buffer("b", 8, 1, 2)]
    assert overlapping(pair, Arena({"a": 0, "b": 4}, 12)) == [("a", "b")]


@pytest.mark.parametrize("name", ["int8_file", "two_bits", "two_inputs"])
def test_nets_are_placed_without_overlap(name, request, monkeypatch):
    placed = []
    place = generate.memory_map.place
    monkeypatch.setattr(
        generate.memory_map, "place", lambda *a: placed.append(place(*a)) or placed[0]
    )
    sources = generate.generate(request.getfixturevalue(name))
    (plan,) = placed
    assert len(plan.buffers) > 2 and overlapping(plan.buffers, plan.arena) == []
    assert plan.arena.size == sources.arena_bytes
    moved = dict.fromkeys(plan.arena.offsets, 0)
    assert overlapping(plan.buffers, dataclasses.replace(plan.arena, offsets=moved))
