"""Small nets and data that several test files share. Session fixtures are not to be changed, and
say so at the end if they were."""

import contextlib

import numpy as np
import pytest
import tf_keras as keras
from hypothesis import settings

import tfbinreg

layers = keras.layers
settings.register_profile("same every time", derandomize=True, deadline=None)
settings.load_profile("same every time")


def residual_net():
    """Conv, depthwise, residual sum, pooling and softmax, with statistics as after training."""
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="conv_bn")(x)
    x = skip = layers.ReLU(6.0, name="conv_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_bn")(x)
    x = layers.Add(name="add")([x, skip])
    x = layers.ReLU(name="add_relu")(x)
    x = layers.AveragePooling2D(2, name="pool")(x)
    x = layers.Conv2D(6, 1, activation="relu", name="pointwise")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(3, activation="softmax", name="head")(x)
    model = keras.Model(image, x, name="residual")
    age_batch_norm(model)
    return model


def age_batch_norm(model):
    """Give every BatchNormalization factors, offsets and statistics that are not 1 and 0."""
    random = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            channels = layer.gamma.shape[0]
            gamma, variance = random.uniform(0.5, 1.5, (2, channels))
            beta, mean = random.normal(size=(2, channels)) / 4
            layer.set_weights([gamma, beta, mean, variance])


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(3).normal(size=(48, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="session")
def labels():
    return np.random.default_rng(4).integers(0, 3, 48)


@contextlib.contextmanager
def left_alone(model):
    """Asserts that the model's weights are the same afterwards."""
    before = model.get_weights()
    yield model
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value, f"A test has changed {weight.name}")


@pytest.fixture(scope="session")
def float_net():
    with left_alone(residual_net()) as net:
        yield net


@pytest.fixture(scope="session")
def quantized_net(float_net, images):
    """`float_net` at two bits, calibrated and not trained."""
    model = tfbinreg.quantize_apply(float_net, weight_bits=2, calibration_data=images)
    with left_alone(model) as net:
        yield net


@pytest.fixture(scope="session")
def make_trained(float_net, images, labels):
    """Makes a new `trained_net`, for tests that change it."""

    def make():
        recipe = tfbinreg.Recipe(
            weight_bits=2,
            activation_bits=4,
            per_channel=True,
            options={"bin_regularization": {"detach_step": False, "scale_free": True}},
        )
        model = tfbinreg.quantize_apply(float_net, recipe, calibration_data=images)
        model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
        model.fit(images, labels, batch_size=16, shuffle=False, verbose=0)
        tfbinreg.finalize(model, target="tflm")
        return model

    return make


@pytest.fixture(scope="session")
def trained_net(make_trained):
    """`float_net` at two bits after an epoch, compiled and finalized."""
    with left_alone(make_trained()) as net:
        yield net


@pytest.fixture
def make_net():
    """Builds a new `float_net`, for tests that change it."""
    return residual_net
