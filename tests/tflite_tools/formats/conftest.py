"""Canonical files of a net whose layers are large enough to be worth packing."""

import functools

import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tests.conftest import age_batch_norm

layers = keras.layers


def packable_net():
    """Kernels of every packable kind, with a thousand weights or more in the hidden ones."""
    keras.utils.set_random_seed(5)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="first")(image)
    x = layers.Conv2D(64, 1, activation="relu", name="pointwise")(x)
    x = layers.DepthwiseConv2D(5, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_bn")(x)
    x = layers.ReLU(name="depthwise_relu")(x)
    x = layers.Conv2D(32, 3, padding="same", strides=2, name="conv")(x)
    x = layers.ReLU(name="conv_relu")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    x = layers.Dense(5, activation="softmax", name="head")(x)
    model = keras.Model(image, x, name="packable")
    age_batch_norm(model)
    return model


@pytest.fixture(scope="session")
def canonical():
    """canonical(bits, per_channel): bytes of the int8 file; made once."""
    inputs = np.random.default_rng(6).normal(size=(32, 8, 8, 3)).astype(np.float32)

    @functools.lru_cache(maxsize=None)
    def make(bits, per_channel, input_type="int8"):
        recipe = tfbinreg.Recipe(weight_bits=bits, activation_bits=4, per_channel=per_channel)
        model = tfbinreg.quantize_apply(packable_net(), recipe, calibration_data=inputs)
        tfbinreg.finalize(model, inputs)
        return tfbinreg.to_tflite(model, input_type=input_type)

    return make


@pytest.fixture(scope="session")
def two_bits(canonical):
    """The file at two bits with a scale per channel."""
    return canonical(2, True)
