"""Tables of one int8 value are found in files, and nothing else is taken for one."""

import dataclasses
import pathlib

import numpy as np
import pytest

from tflite_tools.checks import isolate
from tflite_tools.schema import contents
from tflite_tools.schema.value_tables import LOOKUP, joined

FILE = pathlib.Path(__file__).parents[1] / "files" / "kinds" / "ValueFunction.tflite"


@pytest.fixture
def graph():
    return contents.load(FILE.read_bytes()).main


def changed(graph, operator, **changes):
    ops = [dataclasses.replace(op, **changes) if op.name == operator else op for op in graph.ops]
    return dataclasses.replace(graph, ops=tuple(ops))


def constant(graph, name, values):
    """The graph with another constant of an operator."""
    op = next(op for op in graph.ops if op.name == name)
    index = next(i for i in op.inputs if graph.tensors[i].data is not None)
    tensors = list(graph.tensors)
    tensors[index] = dataclasses.replace(tensors[index], data=values, shape=values.shape)
    return dataclasses.replace(graph, tensors=tuple(tensors))


def test_three_operators_are_one(graph):
    found = joined(graph)
    assert [op.name for op in found.ops if op.name in ("CAST", "ADD", "GATHER")] == []
    (lookup,) = (op for op in found.ops if op.name == LOOKUP)
    source, table = (graph.tensors[index] for index in lookup.inputs)
    assert source.dtype == "INT8" and table.data.shape == (256,)
    assert len(found.ops) == len(graph.ops) - 2


@pytest.mark.parametrize(
    "change",
    [
        lambda graph: changed(graph, "GATHER", options={"axis": 1}),
        lambda graph: changed(graph, "GATHER", options={"axis": 0, "batchDims": 1}),
        lambda graph: changed(graph, "ADD", activation="RELU"),
        lambda graph: changed(graph, "ADD", name="SUB"),
        lambda graph: changed(graph, "CAST", name="ABS"),
        lambda graph: constant(graph, "ADD", np.array([127], np.int32)),
        lambda graph: constant(graph, "GATHER", np.zeros(255, np.int8)),
        lambda graph: dataclasses.replace(
            graph,
            outputs=next(op.outputs for op in graph.ops if op.name == "CAST"),
        ),
    ],
)
def test_nothing_else_is_taken_for_one(graph, change):
    other = change(graph)
    assert [op.name for op in joined(other).ops] == [op.name for op in other.ops]


def test_an_operator_by_itself_is_the_whole_table():
    isolated = isolate.isolate(contents.load(FILE.read_bytes()))
    types = {tensor.dtype for tensor in isolated.model.main.tensors if tensor.data is None}
    inputs = [isolated.model.main.tensors[index] for index in isolated.model.main.inputs]
    assert "INT32" in types and {tensor.dtype for tensor in inputs} == {"INT8"}
    assert isolated.most_levels.count(0) >= 1
