"""A flatbuffer in which equal things exist once."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from tflite_tools.formats import int4, lut
from tflite_tools.schema import compact, flatbuffer, manifest


def test_equal_things_are_written_once_and_aligned(two_bits):
    container = flatbuffer.read(two_bits.data)
    graph = container.subgraphs[0]
    twin = graph.tensors[int(graph.operators[0].inputs[1])]
    before = len(compact.write(container))
    values = flatbuffer.constant(container, twin)
    flatbuffer.set_constant(container, twin, values.copy())  # a second buffer, the same bytes
    data = compact.write(container)
    assert len(data) - before < 64
    assert manifest.find(flatbuffer.read(data)) == manifest.find(container)
    for name in ("first/kernel", "conv/kernel"):
        tensors = {flatbuffer.text(t.name): t for t in graph.tensors}
        stored = flatbuffer.constant(container, tensors[name]).tobytes()
        assert data.index(stored) % 16 == 0
    assert compact.write(flatbuffer.read(data)) == compact.write(flatbuffer.read(data))


@pytest.mark.parametrize("make", [None, int4.convert, lut.convert])
def test_every_file_has_each_zero_point_vector_once(two_bits, make):
    """They are as long as the channels of every kernel and bias, and all zeros."""
    data = two_bits.data if make is None else make(two_bits).model.data
    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    found: dict[int, set[int]] = {}
    for index in range(graph.TensorsLength()):
        parameters = graph.Tensors(index).Quantization()
        if parameters is not None and not np.any(parameters.ZeroPointAsNumpy()):
            place = parameters._tab.Vector(parameters._tab.Offset(10))
            found.setdefault(parameters.ZeroPointLength(), set()).add(place)
    assert max(found) > 1
    assert all(len(places) == 1 for places in found.values())


def test_nothing_is_lost(two_bits):
    """The stock writer makes the same of what is read back as of what was written."""
    container = flatbuffer.read(two_bits.data)
    again = flatbuffer.read(compact.write(container))
    stock = flatbuffer_utils.convert_object_to_bytearray
    assert stock(again) == stock(container)
