"""The mean squared quantization error as a penalty, against its twin."""

import functools

import numpy as np
import pytest
import reference
import tensorflow as tf
from built_quantizers import batch
from trainable_net import build, data

import tfbinreg
from tfbinreg.core.grid import Grid
from tfbinreg.methods import lsq_functions
from tfbinreg.methods.contract import GridTensors, KernelView
from tfbinreg.methods.msqe import MSQE, MsqeOptions, mean_squared_error
from tfbinreg.training.weight_statistics import bin_statistics


def run(weights, step, qmin, qmax, axis=None, **options):
    weights, step = tf.constant(weights, tf.float32), tf.constant(step, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([weights, step])
        view = KernelView("conv", weights, GridTensors(step, qmin, qmax, axis))
        value = mean_squared_error(view, MsqeOptions(**options))
    zero = tf.UnconnectedGradients.ZERO
    return value, *tape.gradient(value, [weights, step], unconnected_gradients=zero)


@pytest.mark.parametrize("qmin, qmax", [(-2, 1), (-8, 7), (-127, 127)])
def test_value_and_gradients(qmin, qmax):
    step = 0.25
    kinks = step * np.arange(-3.0, 3.0, 0.5)
    weights = np.concatenate([kinks, batch(0, (30,)).numpy()]).astype(np.float32)
    value, to_weights, to_step = run(weights, step, qmin, qmax, detach_step=False)
    twin = reference.mean_squared_error(weights, step, qmin, qmax)
    assert float(value) == pytest.approx(twin[0], rel=1e-6)
    np.testing.assert_allclose(to_weights, twin[1], rtol=1e-5, atol=1e-8)
    assert float(to_step) == pytest.approx(twin[2], rel=1e-5)
    assert float(run(weights, step, qmin, qmax)[2]) == 0.0  # detached by default


def test_of_several_channels_it_is_the_mean():
    weights, steps = batch(0, (6, 4)).numpy(), np.float32([0.1, 0.2, 0.3, 0.4])
    value, to_weights, _ = run(weights, steps, -2, 1, 1)
    channels = [
        reference.mean_squared_error(weights[:, c], float(steps[c]), -2, 1) for c in range(4)
    ]
    assert float(value) == pytest.approx(np.mean([channel[0] for channel in channels]), rel=1e-6)
    expected = np.stack([channel[1] for channel in channels], axis=1) / 4
    np.testing.assert_allclose(to_weights, expected, rtol=1e-5)


@pytest.mark.parametrize("scale_free", [False, True])
@pytest.mark.parametrize("learned_strength", [False, True])
def test_weights_of_pruned_channels_do_not_count(learned_strength, scale_free):
    weights, steps = batch(0, (6, 4)).numpy(), np.float32([0.1, 0.2, 0.3, 0.4])
    options = MsqeOptions(learned_strength=learned_strength, scale_free=scale_free)
    left = [0, 3]

    def error(columns, bits):
        grid = GridTensors(tf.constant(steps[columns]), -2, 1, 1, None, bits)
        return mean_squared_error(KernelView("a", tf.constant(weights[:, columns]), grid), options)

    weights[:, 1:3] = 0.0
    assert float(error([0, 1, 2, 3], (2, 0, 0, 2))) == pytest.approx(float(error(left, (2, 2))))


def test_scale_free_divides_distances_by_the_step():
    weights, step = batch(0, (6, 4)).numpy(), 0.25
    plain, free = run(weights, step, -2, 1), run(weights, step, -2, 1, scale_free=True)
    assert float(free[0]) == pytest.approx(float(plain[0]) / step**2, rel=1e-6)
    np.testing.assert_allclose(free[1], plain[1] / step**2, rtol=1e-6)


@pytest.mark.parametrize("scale_free", [False, True])
def test_the_learned_strength_is_the_stationary_one(scale_free):
    weights, step = batch(0, (6, 4)).numpy(), 0.25
    options = {"scale_free": scale_free, "learned_strength": True}
    value, pull, _ = run(weights, step, -2, 1, **options)
    error, slope, _ = reference.mean_squared_error(weights, step, -2, 1)
    # What is least in a of a R - log a, at R = error + floor.
    candidates = np.geomspace(0.01, 1e4, 200001)
    floored = error + 1e-4 * step**2
    strength = candidates[np.argmin(candidates * floored - np.log(candidates))]
    np.testing.assert_allclose(pull, strength * slope, rtol=1e-3)
    assert float(value) == pytest.approx(np.log(floored / step**2), rel=1e-5)


def test_the_learned_strength_grows_towards_the_levels_and_stays_bounded():
    levels, step = np.float32([-0.5, -0.25, 0.0, 0.25]), 0.25
    strengths = []
    for distance in np.float32([0.1, 0.01, 1e-3, 1e-5]):
        _, pull, _ = run(levels + distance, step, -2, 1, learned_strength=True)
        strengths.append(float(pull[0]) * 4 / (2 * distance))
    assert strengths == sorted(strengths)
    assert strengths[-1] == pytest.approx(1 / (1e-4 * step**2), rel=1e-2)
    value, pull, _ = run(levels, step, -2, 1, learned_strength=True)
    assert np.isfinite(value) and not np.any(pull)


@pytest.mark.parametrize("options, strength", [
    ({}, 10.0),
    pytest.param({"learned_strength": True}, 0.05, marks=pytest.mark.slow),
])  # fmt: skip
def test_it_brings_a_net_nearer_to_its_levels(options, strength):
    recipe = tfbinreg.Recipe(
        weight_bits=2, first_last_bits=None, penalties=("msqe",), options={"msqe": options}
    )
    errors = []
    for own in (0.0, strength):
        model = build(0.02, recipe)
        schedule = tfbinreg.PenaltySchedule("msqe", "joint", strength=own)
        model.fit(*data(), 16, 20, shuffle=False, verbose=0, callbacks=[schedule])
        errors.append(bin_statistics(model).error)
    assert errors[1] < 0.75 * errors[0]


def test_options_are_known_by_name():
    assert MSQE.read_options({"detach_step": False}) == MsqeOptions(detach_step=False)
    with pytest.raises(ValueError, match="'msqe' has no option 'detach'; it has detach_step, "):
        MSQE.read_options({"detach": True})


def test_of_a_codebook_it_is_the_distance_from_its_levels():
    weights = batch(0, (30,))
    nearest = functools.partial(lsq_functions.nearest_levels, levels=(-4, -1, 1, 4))
    view = KernelView("conv", weights, GridTensors(tf.constant(0.5), -4, 4, None, nearest))
    codes = Grid.codebook((-4, -1, 1, 4), 0.5).codes(weights.numpy())
    expected = np.mean((weights.numpy() - 0.5 * codes) ** 2)
    assert float(mean_squared_error(view, MsqeOptions())) == pytest.approx(expected, rel=1e-6)
