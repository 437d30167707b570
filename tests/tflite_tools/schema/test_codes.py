"""Codes read back from files."""

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
    for data in (int8_file, float_io_file):
        stored = file_codes.read_codes(data)
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
        file_codes.read_codes(edit(int8_file, damage))


def test_renamed_weights_name_the_layer(int8_file, edit, tensor_of):
    def damage(container):
        tensor_of(container, "pointwise/kernel").name = "lost"

    with pytest.raises(ValueError, match="pointwise: the file has no int8 weights"):
        file_codes.read_codes(edit(int8_file, damage))


def test_files_without_manifest_are_refused(float_file):
    with pytest.raises(ValueError, match=manifest.MISSING):
        file_codes.read_codes(float_file)
