import warnings

import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg.core.warning import QuantizationWarning
from tflite_tools.arithmetic.lost_numbers import lost

layers = keras.layers


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def joined(boxes_scale):
    """Boxes and scores in one output."""
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    boxes = layers.Rescaling(boxes_scale)(layers.Conv2D(4, 1, name="boxes")(x))
    scores = layers.Conv2D(2, 1, activation="sigmoid", name="scores")(x)
    return keras.Model(inputs, layers.Concatenate(name="joined")([boxes, scores]))


def row_net(factors=(1.0, 1.0, 1.0)):
    """A net whose output columns are of the sizes of `factors`."""
    inputs = keras.Input((3,), name="row")
    outputs = layers.Dense(3, name="targets", kernel_initializer="identity")(inputs)
    model = keras.Model(inputs, outputs)
    model.layers[-1].set_weights([np.diag(np.float32(factors)), np.zeros(3, np.float32)])
    return model


def told(model, data, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tfbinreg.quantize_apply(model, calibration_data=data, **options)
    return [str(w.message) for w in caught if w.category is QuantizationWarning]


@pytest.mark.parametrize(
    ("span", "step", "largest", "expected"),
    [(3.9, 1.0, 127.0, True), (4.1, 1.0, 127.0, False), (0.0, 1.0, 127.0, False)]
    + [(0.18, 1.0, 3.0, True), (0.2, 1.0, 3.0, False)],  # two bits have few levels for all
)
def test_lost(span, step, largest, expected):
    assert lost(np.array([span]), step, largest).tolist() == [expected]


def test_concatenated_numbers_of_different_size():
    (message,) = told(joined(1000.0), normal(32, 4, 4, 3), weight_bits=8)
    assert message.startswith("joined: its input 1 spans 0.")
    assert "separate outputs" in message
    assert not told(joined(1.0), normal(32, 4, 4, 3), weight_bits=8)


def test_columns_of_inputs():
    data = normal(64, 3) * np.float32([1, 1000, 1])
    messages = told(row_net(), data, weight_bits=8)
    assert any(m.startswith("row: column 0, 2 of this input spans at most") for m in messages)
    assert not told(row_net(), normal(64, 3), weight_bits=8)


def test_columns_of_outputs():
    (message,) = told(row_net((1, 500, 1)), normal(64, 3), weight_bits=8, activation_bits=8)
    assert "column 0, 2 of this output" in message
    assert "targets" in message


def test_plan_says_it_and_leaves_the_model_alone():
    model, data = joined(1000.0), normal(32, 4, 4, 3)
    before = model.get_weights()
    plan = tfbinreg.plan(model, weight_bits=8, calibration_data=data)
    assert [problem.layer for problem in plan.coarse] == ["joined"]
    assert "warning: joined: its input 1" in str(plan)
    assert not tfbinreg.plan(model, weight_bits=8).coarse
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
