"""Convolutions in groups: against one with zeros between the groups, and against Keras."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfbinreg.network.grouped_convolution import compute_by_groups

layers = keras.layers


def with_zeros(kernel, groups):
    """The kernel over all input channels."""
    one, own = np.eye(groups), np.ones((kernel.shape[2], kernel.shape[3] // groups))
    return tf.tile(kernel, [1, 1, groups, 1]) * np.kron(one, own).astype(np.float32)


@pytest.mark.parametrize(
    ("groups", "options"),
    [(2, {"padding": "same"}), (6, {"strides": (2, 1)}), (3, {"dilation_rate": 2})],
)
def test_a_group_sees_its_own_channels(groups, options):
    random = np.random.default_rng(0)
    inputs = tf.constant(random.normal(size=(2, 7, 6, 6)), tf.float32)
    layer = layers.Conv2D(12, 3, groups=groups, bias_initializer="ones", **options)
    compute_by_groups(layer)
    whole = layers.Conv2D(12, 3, bias_initializer="ones", **options)
    layer.build(inputs.shape)
    whole.build(inputs.shape)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        found = layer(inputs)
        wanted = whole.convolution_op(inputs, with_zeros(layer.kernel, groups)) + layer.bias
        sums = [tf.reduce_sum(tf.sin(own)) for own in (found, wanted)]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    for source in (inputs, layer.kernel):
        mine, theirs = (tape.gradient(own, source) for own in sums)
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_a_layer_computes_what_it_did():
    inputs = np.random.default_rng(0).normal(size=(2, 5, 5, 6)).astype(np.float32)
    layer = layers.Conv2D(4, 3, groups=2, padding="same", bias_initializer="ones")
    before = layer(inputs)
    compute_by_groups(layer)
    np.testing.assert_allclose(layer(inputs), before, atol=1e-5)
