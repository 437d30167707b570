"""Functions of one int8 value as files have them: CAST, ADD of 128 and GATHER from 256 values."""

from __future__ import annotations

import dataclasses

import numpy as np

from tflite_tools.schema.contents import Graph, Op, Tensor

LOOKUP = "LOOKUP"  # no operator of the schema: a table of 256, its first input the activations
_FIRST = 128


def joined(graph: Graph) -> Graph:
    """A graph with one operator, `LOOKUP`, for the three of each table.

    Operators that only look like it, or whose int32 tensors are used elsewhere, stay as they are.
    """
    makers = {index: op for op in graph.ops for index in op.outputs}
    uses = [index for op in graph.ops for index in op.inputs] + list(graph.outputs)
    replaced: dict[int, Op] = {}
    dropped: set[int] = set()
    for op in graph.ops:
        found = _parts(graph, op, makers)
        if found is None or any(uses.count(index) > 1 for own in found for index in own.outputs):
            continue
        cast, add = found
        dropped |= {cast.index, add.index}
        replaced[op.index] = dataclasses.replace(
            op, name=LOOKUP, inputs=(cast.inputs[0], op.inputs[0]), options={}
        )
    ops = tuple(replaced.get(op.index, op) for op in graph.ops if op.index not in dropped)
    return dataclasses.replace(graph, ops=ops)


def _parts(graph: Graph, op: Op, makers: dict[int, Op]) -> tuple[Op, Op] | None:
    """The CAST and the ADD before a GATHER from a table, None if it is none."""
    if op.name != "GATHER" or len(op.inputs) != 2 or not _is_table(graph.tensors[op.inputs[0]]):
        return None
    if op.options.get("axis", 0) != 0 or op.options.get("batchDims", 0) != 0:
        return None
    add = makers.get(op.inputs[1])
    if add is None or add.name != "ADD" or add.activation != "NONE" or len(add.inputs) != 2:
        return None
    first = graph.tensors[add.inputs[1]].data
    if first is None or first.dtype != np.int32 or first.reshape(-1).tolist() != [_FIRST]:
        return None
    cast = makers.get(add.inputs[0])
    if cast is None or cast.name != "CAST" or graph.tensors[cast.inputs[0]].dtype != "INT8":
        return None
    return cast, add


def _is_table(tensor: Tensor) -> bool:
    return tensor.data is not None and tensor.dtype == "INT8" and tensor.shape == (256,)
