import dataclasses

import pytest

from tfbinreg import Plan, Recipe
from tfbinreg.core.problems import Problem
from tfbinreg.frontend.normalize import normalize
from tfbinreg.network.graph import trace
from tfbinreg.planning.decide import decide


@pytest.fixture(scope="module")
def graph(float_net):
    return trace(normalize(float_net)[0])


def test_every_layer_is_on_a_line(graph):
    plan = decide(graph, Recipe(weight_bits=2))
    assert isinstance(plan, Plan)
    header, *lines, total = str(plan).splitlines()
    assert header.split() == ["layer", "kind", "W", "A", "grid", "parameters", "bytes", "note"]
    assert [line.split()[0] for line in lines] == [node.name for node in graph.nodes]
    assert total == "186 weights in 141 packed bytes"  # 108 + 36 / 4 + 24 / 4 + 18
    assert all(len(line) <= 100 for line in str(plan).splitlines())


def test_problems_are_counted_by_kind(graph):
    problems = tuple(Problem(name, "odd", "even it", kind="ReLU") for name in ("conv_relu", "a"))
    plan = dataclasses.replace(decide(graph, Recipe()), problems=problems)
    assert str(plan).splitlines()[-2:] == ["problem: a: odd; even it", "refused: 2 ReLU"]


def test_notes(graph):
    notes = {row["layer"]: row["note"] for row in decide(graph, Recipe()).rows()}
    assert notes["image"] == "model input"
    assert notes["conv"] == notes["conv_bn"] == "fused into conv_relu"
    assert notes["pool"] == "grid of add_relu"
    assert notes["mean"] == "input of the last kernel"
    assert notes["head"] == "model output"
    assert notes["head_softmax"] == "fixed output grid"
    notes = {row["layer"]: row["note"] for row in decide(graph, Recipe(), {}).rows()}
    assert set(notes.values()) == {"not quantized", "fixed output grid"}
