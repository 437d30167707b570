"""The study's optimizers: rates and decay, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from examples.study.arm import Arm
from examples.study.optimizers import make_optimizer


def variables():
    return [tf.Variable([1.0, -2.0], name=name) for name in ("kernel", "gamma")]


@pytest.mark.parametrize(("name", "size"), [("adam", 0.1), ("sgd", 0.1 * 4.0)])
def test_first_update(name, size):
    kernel, gamma = variables()
    optimizer = make_optimizer(Arm(epochs=1, optimizer=name, rate=0.1), steps=10)
    gradient = tf.constant([4.0, 4.0])
    optimizer.apply_gradients((gradient, variable) for variable in (kernel, gamma))
    for variable in (kernel, gamma):
        np.testing.assert_allclose(variable, [1 - size, -2 - size], rtol=1e-5)


def test_the_rate_falls_to_zero_with_a_cosine():
    kernel, _ = variables()
    optimizer = make_optimizer(Arm(epochs=1, optimizer="sgd", rate=0.1), steps=4)
    rates = []
    for _ in range(5):
        rates.append(float(optimizer._learning_rate(optimizer.iterations)))
        optimizer.apply_gradients([(tf.zeros(2), kernel)])
    wanted = [0.05 * (1 + np.cos(np.pi * step / 4)) for step in range(5)]
    np.testing.assert_allclose(rates, wanted, atol=1e-7)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_only_kernels_decay(name):
    kernel, gamma = variables()
    optimizer = make_optimizer(Arm(epochs=1, optimizer=name, rate=0.1, weight_decay=0.5), steps=10)
    optimizer.apply_gradients([(tf.zeros(2), kernel), (tf.zeros(2), gamma)])
    np.testing.assert_allclose(kernel, [0.95, -1.9], rtol=1e-6)
    np.testing.assert_array_equal(gamma, [1.0, -2.0])
