"""Small nets and data that several test files share. Session fixtures are not to be changed, and
say so at the end if they were."""

import contextlib
import gc
import importlib

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("same every time", derandomize=True, deadline=None)
settings.load_profile("same every time")


def pytest_collection_finish():
    """What is imported stays: the collector need not look at it, nor so often at graphs."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


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
def keras_nets():
    """The module `small_nets`; without TensorFlow what needs it is skipped."""
    pytest.importorskip("tensorflow")
    return importlib.import_module("small_nets")


@pytest.fixture(scope="session")
def float_net(keras_nets):
    with left_alone(keras_nets.residual_net()) as net:
        yield net


@pytest.fixture(scope="session")
def quantized_net(float_net, images):
    """`float_net` at two bits, calibrated and not trained."""
    import tfbinreg

    model = tfbinreg.quantize_apply(float_net, weight_bits=2, calibration_data=images)
    with left_alone(model) as net:
        yield net


@pytest.fixture(scope="session")
def make_trained(keras_nets, float_net, images, labels):
    """Makes a new `trained_net`, for tests that change it."""
    return lambda: keras_nets.trained(float_net, images, labels)


@pytest.fixture(scope="session")
def trained_net(make_trained):
    """`float_net` at two bits after an epoch, compiled and finalized."""
    with left_alone(make_trained()) as net:
        yield net


@pytest.fixture
def make_net(keras_nets):
    """Builds a new `float_net`, for tests that change it."""
    return keras_nets.residual_net
