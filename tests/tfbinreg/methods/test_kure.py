"""KURE against its twin, and what it does to a trained net."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from built_quantizers import batch
from trainable_net import build, data

import tfbinreg
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.methods.contract import GridTensors, KernelView
from tfbinreg.methods.kure import KureOptions, kurtosis_error


def run(weights, target=1.8, kernels=1):
    weights = tf.constant(weights, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        view = KernelView("conv", weights, GridTensors(tf.constant(0.1), -2, 1), kernels=kernels)
        value = kurtosis_error(view, KureOptions(target=target))
    return value.numpy(), tape.gradient(value, weights).numpy()


def kurtosis(weights):
    weights = np.asarray(weights, np.float64)
    centred = weights - weights.mean()
    return np.mean(centred**4) / np.mean(centred**2) ** 2


@pytest.mark.parametrize("target, kernels", [(1.8, 1), (3.0, 5)])
def test_value_and_gradient(target, kernels):
    weights = batch(0, (3, 3, 4, 5)).numpy() * 0.1 + 0.02
    value, to_weights = run(weights, target, kernels)
    twin = reference.kurtosis_error(weights, target, kernels)
    assert value == pytest.approx(twin[0], rel=1e-4)
    np.testing.assert_allclose(to_weights, twin[1], rtol=1e-3, atol=1e-5)


def test_the_targets_of_uniform_and_of_two_valued_weights():
    assert run(np.linspace(-0.3, 0.3, 10001))[0] == pytest.approx(0.0, abs=1e-6)
    assert run([-1.0, 1.0])[0] == pytest.approx(0.8**2, rel=1e-5)
    assert run([-1.0, 1.0], 3.0, 4)[0] == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("bits", [(2, 0, 4, 0), (0, 0, 0, 0)])
def test_weights_of_pruned_channels_do_not_count(bits):
    weights = batch(1, (30, 4)).numpy() * 0.1 + 0.02
    left = [channel for channel, own in enumerate(bits) if own]
    latent = tf.constant(weights * np.sign(bits), tf.float32)
    grid = GridTensors(tf.fill([4], 0.1), -8, 7, 1, None, bits)
    with tf.GradientTape() as tape:
        tape.watch(latent)
        value = kurtosis_error(KernelView("conv", latent, grid), KureOptions())
    to_latent = tape.gradient(value, latent).numpy()
    twin = reference.kurtosis_error(weights[:, left], 1.8, 1) if left else (0.0, 0.0)
    assert float(value) == pytest.approx(twin[0], rel=1e-4)
    np.testing.assert_allclose(to_latent[:, left], twin[1], rtol=1e-3, atol=1e-5)
    assert not np.any(np.delete(to_latent, left, 1))


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e6])
def test_a_factor_and_an_offset_change_nothing(scale):
    weights = batch(0, (50,)).numpy()
    value, to_weights = run(weights * scale)
    assert value == pytest.approx(run(weights)[0], rel=1e-4)
    assert abs(np.sum(to_weights * weights * scale)) < 1e-3 * np.sum(np.abs(to_weights)) * scale
    assert run(weights + 3.0)[0] == pytest.approx(run(weights)[0], rel=1e-3)


@pytest.mark.parametrize("weights", [
    np.zeros(7), np.full(7, 0.3), np.full((5, 5), -1e-3), np.full(3, 1e30), [2.0],
    [1.0, np.nextafter(np.float32(1.0), np.float32(2.0))],
])  # fmt: skip
def test_a_constant_kernel_adds_nothing(weights):
    value, to_weights = run(weights)
    assert value == 0 and np.array_equal(to_weights, np.zeros_like(to_weights))


def test_a_strength_of_one_is_the_mean_over_the_counted_kernels():
    rule = tfbinreg.Rule(kind="Dense", penalty_weights={"kure": 0.0})
    model = build(recipe=tfbinreg.Recipe(weight_bits=2, penalties=("kure",), rules=(rule,)))
    first, middle, _ = (site.kernel.numpy() for site in kernel_sites(model))
    expected = np.mean([(kurtosis(kernel) - 1.8) ** 2 for kernel in (first, middle)])
    assert float(model.penalty("kure")) == pytest.approx(expected, rel=1e-4)


def test_the_kurtosis_of_a_net_nears_the_target():
    model = build(0.01, tfbinreg.Recipe(weight_bits=2, penalties=("kure",)))
    for site in kernel_sites(model):
        site.kernel.assign(0.2 * tf.random.stateless_normal(site.kernel.shape, [1, 2]))
    before = [kurtosis(site.kernel) for site in kernel_sites(model)]
    schedule = tfbinreg.PenaltySchedule("kure", "joint", strength=1.0)
    history = model.fit(*data(), 16, 40, shuffle=False, verbose=0, callbacks=[schedule]).history
    after = [kurtosis(site.kernel) for site in kernel_sites(model)]
    assert np.all(np.abs(np.subtract(after, 1.8)) < 0.1)
    assert np.max(np.abs(np.subtract(before, 1.8))) > 0.7
    assert history["kure_loss"][-1] < 0.05 * history["kure_loss"][0]


@pytest.mark.parametrize("target", [1.0, 0.0, -3.0, float("nan"), float("inf")])
def test_impossible_targets_are_refused(target):
    with pytest.raises(ValueError, match=r"target of kure must be a number above 1"):
        KureOptions(target=target)
