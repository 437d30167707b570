"""Files as immutable values."""

import dataclasses

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tflite_tools.schema import contents as models


def test_graph_of_the_net(int8_file):
    model = int8_file
    graph = model.main
    first = graph.ops[0]
    assert first.name == "CONV_2D"
    assert first.activation == "RELU"
    assert [tensor.name for tensor in graph.taken(first)] == ["image", "conv/kernel", "conv/bias"]
    assert [graph.tensors[index].dtype for index in graph.inputs + graph.outputs] == ["INT8"] * 2
    assert graph.producer(graph.outputs[0]).name == "SOFTMAX"
    assert graph.producer(graph.inputs[0]) is None
    assert models.load(model.data).data == int8_file.data
    assert model.require_manifest().layers[0].name == "conv"


def test_values_cannot_be_changed(int8_file):
    model = int8_file
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.main.ops[0].name = "ADD"


def test_scales_of_channels(int8_file):
    tensors = {tensor.name: tensor for tensor in int8_file.main.tensors}
    assert tensors["depthwise/kernel"].quantization.scale.shape == (4,)
    assert tensors["depthwise/kernel"].quantization.axis == 3
    assert tensors["conv"].quantization.zero_point.tolist() == [112]
    assert tensors["conv"].data is None


def test_float_file_has_no_manifest(float_file):
    model = float_file
    assert model.manifest is None
    with pytest.raises(ValueError, match="no tfbinreg manifest"):
        model.require_manifest()


@pytest.mark.parametrize(
    ("dtype", "packing"),
    [("INT4", ([0x8F, 0x07], [-1, -8, 7])), ("INT2", ([0b11_10_01_00], [0, 1, -2, -1]))],
)
def test_packed_types_are_unpacked(int8_file, edit, tensor_of, dtype, packing):
    packed, values = packing

    def pack(container):
        tensor = tensor_of(container, "head/bias")
        tensor.type, tensor.shape = (
            getattr(schema.TensorType, dtype),
            np.array([len(values)], np.int32),
        )
        container.buffers[tensor.buffer].data = np.array(packed, np.uint8)

    tensors = edit(int8_file, pack).main.tensors
    (bias,) = (tensor for tensor in tensors if tensor.name == "head/bias")
    assert bias.dtype == dtype
    assert bias.data.tolist() == values


def test_packed_values_must_fill_the_shape(int8_file, edit, tensor_of):
    def pack(container):
        tensor_of(container, "head/bias").type = schema.TensorType.INT4

    with pytest.raises(ValueError, match=r"'head/bias'.*12 bytes do not hold 3 values of 4 bits"):
        edit(int8_file, pack)


def test_zero_points_must_fit_the_scales(int8_file, edit, tensor_of):
    def damage(container):
        tensor_of(container, "conv/kernel").quantization.zeroPoint = np.zeros(3, np.int64)

    with pytest.raises(ValueError, match="4 scales but 3 zero points"):
        edit(int8_file, damage)
