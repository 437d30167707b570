import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg.layers.sites import activation_sites, kernel_sites
from tfbinreg.training.weight_statistics import (
    bin_statistics,
    scaled_weights,
    share_of_few_bits,
    shares_near_edges,
)


@pytest.fixture
def small():
    """Kernels (3, 2) at eight and (2, 2) at two bits per channel, on inputs that are set."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [layers.Input((3,)), layers.Dense(2, name="a"), layers.Dense(2, name="b")]
    )
    rules = [tfbinreg.Rule(layer="b", weight_bits=2, per_channel=True)]
    model = tfbinreg.quantize_apply(net, tfbinreg.Recipe(rules=rules))
    a, b = kernel_sites(model)
    a.latent.assign([[0.5, 1.0], [1.5, 2.0], [2.5, 3.0]])
    a.step.assign(0.5)
    b.latent.assign([[0.3, -0.5], [-2.0, 2.5]])
    b.step.assign([0.5, -1.0])  # the sign of a step does not count
    return model


def test_weights_in_steps(small):
    a, b = kernel_sites(small)
    np.testing.assert_array_equal(scaled_weights(a), [1, 2, 3, 4, 5, 6])
    np.testing.assert_allclose(scaled_weights(b), [0.6, -0.5, -4.0, 2.5], rtol=1e-6)


def test_every_weight_counts_once(small):
    # b: 0.6 -> 1, -0.5 -> 0 (half up), -4 -> -2 and 2.5 -> 1 (clipped); a is on its levels.
    squares = 0.4**2 + 0.5**2 + 2.0**2 + 1.5**2
    statistics = bin_statistics(small)
    assert statistics.error == pytest.approx(squares / 10, rel=1e-6)
    assert statistics.near == 0.6


def test_near_means_within_a_tenth_of_a_step(small):
    a, _ = kernel_sites(small)
    a.latent.assign(0.5 * np.float32([[1.09, 1.91], [3.11, 3.89], [5.0, 6.0]]))
    assert bin_statistics(small).near == pytest.approx(0.4)


@pytest.fixture
def mixed():
    """Kernels (3, 4) with channels of 0, 1, 3 and 8 bits, and (4, 2) of 8 and 0, set to 0."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [layers.Input((3,)), layers.Dense(4, name="a"), layers.Dense(2, name="b")]
    )
    rules = [
        tfbinreg.Rule(layer="a", weight_bits=(0, 1, 3, 8)),
        tfbinreg.Rule(layer="b", weight_bits=(8, 0)),
    ]
    model = tfbinreg.quantize_apply(net, tfbinreg.Recipe(rules=rules))
    a, b = kernel_sites(model)
    a.kernel.assign(np.float32([[5, 1, 0.48, 9], [5, -2, 1, 0.5], [5, 1, 2, 1]]) * 0.5)
    a.step.assign([0.5] * 4)
    b.kernel.assign(np.float32([[0.0, 5.0]] * 4))
    return model


def test_weights_of_pruned_channels_do_not_count(mixed):
    a, b = kernel_sites(mixed)
    np.testing.assert_allclose(scaled_weights(a), [1, 0.48, 9, -2, 1, 0.5, 1, 2, 1])
    assert scaled_weights(b).tolist() == [0.0] * 4
    statistics = bin_statistics(mixed)
    # Beyond -1 by 1, half a step from 0, half a step from 1.
    assert statistics.error == pytest.approx((1.0 + 0.48**2 + 0.25) / 13, rel=1e-6)
    assert statistics.near == pytest.approx(10 / 13)
    assert statistics.beyond == ()
    assert shares_near_edges(mixed) == pytest.approx({"a": 2 / 9, "b": 0.0})
    assert shares_near_edges(mixed, 4) == pytest.approx({"a": 1 / 6, "b": 0.0})


def test_which_weights_have_few_bits(mixed):
    a, _ = (site.quantizer.grid_now(site.variables) for site in kernel_sites(mixed))
    flags = np.zeros((3, 4), bool)
    flags[0] = True
    flags[1, 3] = True
    assert float(share_of_few_bits(a, tf.constant(flags))) == pytest.approx(2 / 6)
    assert float(share_of_few_bits(a, tf.constant(flags), 8)) == pytest.approx(4 / 9)
    many = dataclasses.replace(a, bits=(0, 8, 8, 8))
    assert float(share_of_few_bits(many, tf.constant(flags))) == pytest.approx(4 / 9)
    none = dataclasses.replace(a, bits=(0, 0, 0, 0))
    assert float(share_of_few_bits(none, tf.constant(flags))) == 0.0


def test_codes_agree_with_the_deployed_ones(trained_net):
    for site in kernel_sites(trained_net):
        scaled = scaled_weights(site).reshape(site.latent.shape)
        inside = np.clip(scaled, site.quantizer.qmin, site.quantizer.qmax)
        np.testing.assert_array_equal(np.floor(inside + 0.5), site.codes())


def test_activations_and_float_models_are_refused(small, float_net):
    with pytest.raises(ValueError, match="is an activation: it has no weights"):
        scaled_weights(activation_sites(small)[0])
    with pytest.raises(ValueError, match="'residual' is not quantized"):
        bin_statistics(float_net)
