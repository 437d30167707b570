"""Oscillation dampening against its twin, and what it does to a trained net."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from built_quantizers import batch
from trainable_net import build, data

import tfbinreg
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.methods.contract import GridTensors, KernelView
from tfbinreg.methods.dampening import DampeningOptions, dampening
from tfbinreg.training.weight_statistics import bin_statistics


def run(weights, step, qmin, qmax, axis=None, channels=1):
    weights, step = tf.constant(weights, tf.float32), tf.constant(step, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([weights, step])
        view = KernelView("conv", weights, GridTensors(step, qmin, qmax, axis), channels=channels)
        value = dampening(view, DampeningOptions())
    return value, *tape.gradient(value, [weights, step])


@pytest.mark.parametrize("qmin, qmax", [(-2, 1), (-8, 7), (-127, 127)])
@pytest.mark.parametrize("channels", [1, 4, 12])
def test_value_and_gradients(qmin, qmax, channels):
    step = 0.25
    kinks = step * np.concatenate(
        [np.arange(-3.0, 3.0, 0.5), [qmin, qmax, qmin - 1, qmax + 1, qmin - 0.1, qmax + 0.1]]
    )
    weights = np.concatenate([kinks, batch(0, (30,)).numpy()]).astype(np.float32)
    weights = weights.reshape(-1, channels)
    value, to_weights, to_step = run(weights, step, qmin, qmax, channels=channels)
    twin = reference.dampening(weights, step, qmin, qmax, channels)
    assert float(value) == pytest.approx(twin[0], rel=1e-6)
    np.testing.assert_allclose(to_weights, twin[1], rtol=1e-5, atol=1e-8)
    assert to_step is None


def test_clipped_weights_and_weights_on_levels_are_left_alone():
    step = np.float32([0.25, 0.5])
    levels = np.float32([[-2, -2], [0, 0], [1, 1], [-5, -2.001], [1.001, 9]]) * step
    value, to_weights, _ = run(levels, step, -2, 1, axis=1, channels=2)
    assert value == 0 and not np.any(to_weights)
    # A little lower, 1.001 steps are no longer clipped.
    _, to_weights, _ = run(levels - 0.01, step, -2, 1, axis=1, channels=2)
    assert np.array_equal(np.any(to_weights != 0, axis=1), [False, True, True, False, True])


def test_a_channel_of_fewer_levels_is_clipped_at_its_own():
    most = tf.constant([1.0, 3.0])
    nearest = lambda ratio: tf.floor(tf.clip_by_value(ratio, -most, most) + 0.5)  # noqa: E731
    weights = tf.constant([[-3.3, -3.3], [1.1, 1.1], [0.9, 2.9]])
    with tf.GradientTape() as tape:
        tape.watch(weights)
        grid = GridTensors(tf.constant([1.0, 1.0]), -3, 3, 1, nearest)
        value = dampening(KernelView("conv", weights, grid, channels=2), DampeningOptions())
    assert float(value) == pytest.approx((0.1**2 + 0.1**2 + 0.1**2) / 3, rel=1e-4)
    moved = np.array(tape.gradient(value, weights)) != 0
    np.testing.assert_array_equal(moved, [[False, False], [False, True], [True, True]])


@pytest.mark.parametrize("fold", [False, True])
def test_a_view_knows_the_channels_of_every_kind(fold):
    import tf_keras as keras

    layers = keras.layers
    net = keras.Sequential([
        layers.Input((8, 8, 3)),
        layers.Conv2D(4, 3),
        layers.BatchNormalization(),
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        layers.Conv2DTranspose(5, 2),
        layers.Flatten(),
        layers.Dense(6),
    ])  # fmt: skip
    seen = []

    def penalty(view, options):
        seen.append((view.channels, view.kernels))
        return tf.constant(0.0)

    name = f"seen_{fold}"
    tfbinreg.register_method(tfbinreg.Method(name=name, options=DampeningOptions, penalty=penalty))
    rule = tfbinreg.Rule(kind="Dense", penalty_weights={name: 0.0})
    recipe = tfbinreg.Recipe(penalties=(name,), fold_batch_norm=fold, rules=(rule,))
    tfbinreg.quantize_apply(net, recipe).penalty(name)
    assert seen == [(4, 3), (8, 3), (5, 3), (6, 3)]


def test_it_brings_a_net_nearer_to_its_levels():
    recipe = tfbinreg.Recipe(weight_bits=2, first_last_bits=None, penalties=("dampening",))
    errors = []
    for strength in (0.0, 5.0):
        model = build(0.02, recipe)
        schedule = tfbinreg.PenaltySchedule("dampening", "joint", strength=strength)
        model.fit(*data(), 16, 20, shuffle=False, verbose=0, callbacks=[schedule])
        errors.append(bin_statistics(model).error)
    assert errors[1] < 0.75 * errors[0]
    assert all(np.all(np.isfinite(site.kernel)) for site in kernel_sites(model))
