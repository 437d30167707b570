"""Where the bytes of a .tflite file go.

Read from the raw tables, not from objects: vectors that several tensors share are counted once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_tools.schema.contents import Model, Op

CATEGORIES = (
    "structure",
    "weights",
    "tables",
    "biases",
    "constants",
    "quantization",
    "names",
    "manifest",
    "metadata",
)
_BIAS_INPUT = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
KERNEL_OPS = frozenset(_BIAS_INPUT)  # the operators with weights
_INDEX_TYPES = frozenset({"INT32", "INT64", "UINT32", "UINT64", "BOOL", "STRING"})
# Offsets of the fields in the schema's tables.
_TENSOR_NAME, _GRAPH_NAME, _DESCRIPTION, _METADATA_NAME, _BUFFER_DATA = 10, 12, 10, 4, 4
_QUANTIZATION_FIELDS = ((4, 4), (6, 4), (8, 4), (10, 8))  # (field, bytes a value)


class Extent(NamedTuple):
    """Where bytes of a category lie in a file."""

    category: str
    start: int
    size: int


def bias_place(op: Op) -> int | None:
    """Which of an operator's inputs is its bias, None if it has none."""
    position = _BIAS_INPUT.get(op.name)
    if position is None or position >= len(op.inputs) or op.inputs[position] < 0:
        return None
    return position


def bias_index(op: Op) -> int | None:
    """Tensor index of an operator's bias, None if it has none."""
    place = bias_place(op)
    return None if place is None else op.inputs[place]


def bytes_by_category(model: Model, manifest_name: str) -> dict[str, int]:
    """Bytes of weights, biases, other constants, quantization parameters, names and metadata.

    Args:
        model: the file.
        manifest_name: name of the metadata entry that counts as the manifest.

    Returns:
        Category -> bytes. The rest (operators, shapes, offsets, padding) is "structure"; the sum
        is the file's size.
    """
    owner = np.zeros(len(model.data), np.uint8)
    root = schema.Model.GetRootAs(model.data, 0)
    for extent in _extents(root, model, manifest_name):
        owner[extent.start : extent.start + extent.size] = CATEGORIES.index(extent.category)
    counts = np.bincount(owner, minlength=len(CATEGORIES))
    return {name: int(counts[index]) for index, name in enumerate(CATEGORIES)}


def _extents(root: Any, model: Model, manifest_name: str) -> Iterator[Extent]:
    yield from _vector("names", root, _DESCRIPTION, 1)
    for graph_index in range(root.SubgraphsLength()):
        graph = root.Subgraphs(graph_index)
        kinds = constant_kinds(model, graph_index)
        yield from _vector("names", graph, _GRAPH_NAME, 1)
        for index in range(graph.TensorsLength()):
            tensor = graph.Tensors(index)
            yield from _vector("names", tensor, _TENSOR_NAME, 1)
            if index in kinds:
                yield from _buffer(kinds[index], root.Buffers(tensor.Buffer()))
            parameters = tensor.Quantization()
            if parameters is not None:
                for field, width in _QUANTIZATION_FIELDS:
                    yield from _vector("quantization", parameters, field, width)
    for index in range(root.MetadataLength()):
        entry = root.Metadata(index)
        yield from _vector("names", entry, _METADATA_NAME, 1)
        is_manifest = entry.Name() == manifest_name.encode()
        if entry.Buffer() < root.BuffersLength():
            category = "manifest" if is_manifest else "metadata"
            yield from _buffer(category, root.Buffers(entry.Buffer()))


def constant_kinds(model: Model, graph_index: int) -> dict[int, str]:
    """Tensor index -> category of every constant tensor of a subgraph.

    Of weights that are decoded, the indices count as weights, and the tables as tables.
    """
    graph = model.graphs[graph_index]
    biases = {bias_index(op) for op in graph.ops}
    decoded = {entry.output for entry in graph.encoded}
    tables = {entry.tables for entry in graph.encoded}
    kinds: dict[int, str] = {}
    for tensor in graph.tensors:
        if tensor.data is None or tensor.index in decoded:
            continue
        if tensor.index in tables:
            kinds[tensor.index] = "tables"
            continue
        kind = "constants" if tensor.dtype in _INDEX_TYPES else "weights"
        kinds[tensor.index] = "biases" if tensor.index in biases else kind
    return kinds


def _buffer(category: str, buffer: Any) -> Iterator[Extent]:
    if buffer.Size() > 1:  # stored behind the flatbuffer, as in files above 2 GB
        yield Extent(category, buffer.Offset(), buffer.Size())
    else:
        yield from _vector(category, buffer, _BUFFER_DATA, 1)


def _vector(category: str, table: Any, field: int, width: int) -> Iterator[Extent]:
    """The extent of a vector or string field, nothing if the field is missing."""
    raw = table._tab  # the generated classes do not offer positions
    offset = raw.Offset(field)
    if offset:
        yield Extent(category, raw.Vector(offset), raw.VectorLen(offset) * width)
