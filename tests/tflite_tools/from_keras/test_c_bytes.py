"""Bytes of the C of a Keras model, counted in the middle of a training."""

import warnings

import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tflite_tools import c_bytes
from tflite_tools.c import generate
from tflite_tools.schema import contents


def test_bytes_are_those_of_the_sources_and_the_model_stays():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [layers.Input((8, 8, 3)), layers.Conv2D(8, 3, name="conv"), layers.BatchNormalization()]
    )
    samples = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype(np.float32)
    recipe = tfbinreg.Recipe(weight_bits=2, first_last_bits=None)
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=samples)
    before = [weight.copy() for weight in model.get_weights()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that it is not finalized is no surprise
        counted = c_bytes(model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    tfbinreg.finalize(model)
    sources = generate.generate(contents.load(tfbinreg.to_tflite(model)), whole=True)
    assert counted == sources.packed_weight_bytes + sources.constant_bytes
    assert 3 * 3 * 3 * 8 * 2 // 8 < counted < 3 * 3 * 3 * 8 * 2 // 8 + 9 * 8


def test_only_quantized_models_with_known_sizes():
    net = keras.Sequential([keras.layers.Input((None, None, 3)), keras.layers.Conv2D(4, 3)])
    with pytest.raises(ValueError, match="quantize_apply"):
        c_bytes(net)
    model = tfbinreg.quantize_apply(net, calibration_data=np.ones((4, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="input_shape"):
        c_bytes(model)
    assert c_bytes(model, input_shape=(8, 8, 3)) > 3 * 3 * 3 * 4
