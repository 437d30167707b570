"""What `inspect` shows."""

import numpy as np
import pytest

from tflite_tools.reports.describe import describe


def _weights(description):
    return {weight.layer: weight for weight in description.weights}


def test_trained_layers(int8_file, codes):
    weights = _weights(describe(int8_file))
    assert weights.keys() == codes.keys()
    assert {name: weight.bits for name, weight in weights.items()} == {
        "conv": 8,
        "depthwise": 2,
        "pointwise": 2,
        "head": 8,
    }
    for name, weight in weights.items():
        values, counts = np.unique(codes[name], return_counts=True)
        assert weight.histogram == dict(zip(values.tolist(), counts.tolist(), strict=True))
        assert weight.distinct == len(values)
        assert weight.trained
        assert weight.dtype == "INT8"


def test_prescaled_weights_are_shown_as_codes(int8_file):
    weight = _weights(describe(int8_file))["pointwise"]
    assert weight.prescale == 32
    assert set(weight.histogram) <= {-2, -1, 0, 1}


def test_packed_size(int8_file):
    description = describe(int8_file)
    assert description.packed_weight_bytes == 108 + 36 // 4 + 24 // 4 + 18
    assert sum(description.size_by_category.values()) == description.size == len(int8_file.data)


def test_inputs_outputs_and_operators(int8_file):
    description = describe(int8_file)
    (image,), (output,) = description.inputs, description.outputs
    assert (image.name, image.dtype, image.shape) == ("image", "INT8", (1, 8, 8, 3))
    assert output.scale == (1 / 256,)
    assert output.zero_point == (-128,)
    assert [op.name for op in description.ops].count("DEPTHWISE_CONV_2D") == 1
    assert description.ops[0].inputs == ("image", "conv/kernel", "conv/bias")
    assert description.ops[0].activation == "RELU"


def test_versions_and_recipe(int8_file):
    description = describe(int8_file)
    assert "tensorflow" in description.versions
    assert description.recipe["weight_bits"] == 2


def test_files_without_manifest(float_file):
    description = describe(float_file)
    assert description.versions is None
    assert description.recipe is None
    assert len(description.weights) == 4
    for weight in description.weights:
        assert weight.dtype == "FLOAT32"
        assert weight.bits is weight.histogram is None
        assert not weight.trained
        assert weight.distinct > 0
    assert description.inputs[0].scale is None


def test_bits_that_distinct_values_need(int8_file, edit):
    def drop(container):
        container.metadata = []

    weights = _weights(describe(edit(int8_file, drop)))
    pointwise = weights["pointwise/kernel"]
    assert not pointwise.trained
    assert pointwise.bits == 2
    assert set(pointwise.histogram) <= {-64, -32, 0, 32}


def test_damaged_weights_are_an_error(int8_file, edit, tensor_of):
    def damage(container):
        buffer = container.buffers[tensor_of(container, "pointwise/kernel").buffer]
        buffer.data = np.array(buffer.data) ^ np.uint8(1)

    with pytest.raises(ValueError, match="pointwise: the weights are no multiples"):
        describe(edit(int8_file, damage))
