"""Codes read back from files."""

import dataclasses

import numpy as np
import pytest

from tflite_tools.schema import codes as file_codes
from tflite_tools.schema import flatbuffer, manifest


@pytest.mark.parametrize(
    ("kind", "shape", "stored"),
    [
        ("Conv2D", (3, 2, 4, 5), (5, 3, 2, 4)),
        ("DepthwiseConv2D", (3, 2, 4, 2), (1, 3, 2, 8)),
        ("Dense", (4, 5), (5, 4)),
    ],
)
def test_layouts_are_inverse(kind, shape, stored):
    kernel = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    turned = file_codes.to_tflite_layout(kind, kernel)
    assert turned.shape == stored
    np.testing.assert_array_equal(file_codes.to_keras_layout(kind, turned, shape), kernel)


def test_layouts_by_hand():
    dense = np.array([[1, 2, 3], [4, 5, 6]])  # two inputs, three outputs
    np.testing.assert_array_equal(
        file_codes.to_tflite_layout("Dense", dense), [[1, 4], [2, 5], [3, 6]]
    )


def test_codes_are_those_of_the_trained_model(int8_file, float_io_file, codes):
    for file in (int8_file, float_io_file):
        stored = file_codes.codes_of(file)
        assert stored.keys() == codes.keys()
        for name, expected in codes.items():
            assert stored[name].dtype == np.int8
            np.testing.assert_array_equal(stored[name], expected)


def test_weights_that_are_no_multiples_name_the_layer(int8_file, edit, tensor_of):
    def damage(container):
        tensor = tensor_of(container, "pointwise/kernel")
        weights = flatbuffer.constant(container, tensor).copy()
        weights.flat[0] += 1
        flatbuffer.set_constant(container, tensor, weights)

    with pytest.raises(ValueError, match="pointwise: the weights are no multiples of 32"):
        file_codes.codes_of(edit(int8_file, damage))


def test_renamed_weights_name_the_layer(int8_file, edit, tensor_of):
    def damage(container):
        tensor_of(container, "pointwise/kernel").name = "lost"

    with pytest.raises(ValueError, match="pointwise: the file has no int8 weights"):
        file_codes.codes_of(edit(int8_file, damage))


def test_files_without_manifest_are_refused(float_file):
    with pytest.raises(ValueError, match=manifest.MISSING):
        file_codes.read_codes(float_file.data)


@pytest.mark.parametrize(
    ("rows", "fields", "wrong"),
    [
        ([[-2, 1], [2, -1], [0, 0]], {}, 0),  # evenly spaced, turned round, constant
        ([[-2, 2], [3, 1], [-128, 0]], {}, 3),
        ([[-3, 0], [3, 0], [0, 5]], {"bits": 4, "levels": (-3, 0, 5)}, 0),
        ([[-3, 3], [-5, 5], [4, 0]], {"bits": 4, "levels": (-3, 0, 5)}, 3),
        ([[0, 0], [-1, 1], [-4, 3]], {"bits": 3, "channel_bits": (0, 1, 3)}, 0),
        ([[0, 1], [0, 1], [-4, 4]], {"bits": 3, "channel_bits": (0, 1, 3)}, 3),
        ([[0, 0], [0, 0], [0, 0]], {"channel_bits": (1, 2)}, 6),  # of another number of channels
        ([[0, 0], [-1, 1], [9, -4]], {"channel_levels": ((0,), (-1, 1), (-9, 0, 4))}, 0),
        ([[0, 1], [0, 1], [-9, 9]], {"channel_levels": ((0,), (-1, 1), (-9, 0, 4))}, 3),
        ([[0, 0], [0, 0], [0, 0]], {"channel_levels": ((0,), (-1, 1))}, 6),
    ],
)
def test_codes_off_their_grid_are_counted(rows, fields, wrong):
    codes = np.array(rows, np.int8).T  # (inputs, outputs)
    entry = manifest.LayerEntry(
        "head", "Dense", "head/kernel", fields.pop("bits", 2), 1, (2, 3), "", **fields
    )
    assert file_codes.off_grid(entry, codes) == wrong
    planes = codes.reshape(2, 1, 3, 1)
    depthwise = dataclasses.replace(entry, kind="DepthwiseConv2D", shape=planes.shape)
    assert file_codes.off_grid(depthwise, planes) == wrong
