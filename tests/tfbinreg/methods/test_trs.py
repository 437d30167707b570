import dataclasses

import numpy as np
import pytest
import reference
import tensorflow as tf
import tf_keras as keras
import trainable_net
from quick import slow

import tfbinreg
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.methods.contract import GridTensors, KernelStep
from tfbinreg.methods.trs import TRS, TrsOptions, schedule_transitions

SCALE = 0.25


def step_of(before, kernel, *, rate=0.1, progress=0.0, bits=2):
    grid = GridTensors(tf.constant(SCALE), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    before, kernel = (tf.constant(array, tf.float32) for array in (before, kernel))
    return KernelStep(
        name="a",
        before=before,
        kernel=kernel,
        factor=1.0,
        codes_before=grid.codes(before),
        grid=grid,
        rate=tf.constant(rate, tf.float32),
        progress=tf.constant(progress, tf.float32),
    )


def test_the_rate_follows_its_twin():
    random = np.random.default_rng(0)
    options = TrsOptions(rate=0.2, momentum=0.8, gain=0.3)
    state = {name: tf.constant(value) for name, value in TRS.state((40,), options).items()}
    kernel = random.normal(size=40).astype(np.float32) * SCALE
    own_rate, share = 0.1, 0.0
    seen = []
    for count in range(30):
        learning_rate = 0.1 / (1 + count)
        moved = kernel + random.normal(size=40).astype(np.float32) * SCALE * 0.3
        step = step_of(kernel, moved, rate=learning_rate, progress=count / 30)
        result, state = schedule_transitions(step, state, options)
        expected = kernel + own_rate / learning_rate * (moved - kernel)
        np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)
        changed = np.mean(step.grid.codes(result).numpy() != step.codes_before.numpy())
        own_rate, share = reference.transition_rate(
            own_rate, share, changed, count / 30, 2, options
        )
        np.testing.assert_allclose(state["own_rate"], own_rate, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(state["share"], share, rtol=1e-4, atol=1e-6)
        seen.append(own_rate)
        kernel = result.numpy()
    assert min(seen) == 0.0 < max(seen)  # the kink at zero was reached


def test_the_first_step_is_the_optimizers_and_gives_the_gain():
    state = {name: tf.constant(value) for name, value in TRS.state((3,), TrsOptions()).items()}
    before, moved = [0.0, 0.1, 0.2], [0.03, 0.17, 0.11]
    result, after = schedule_transitions(step_of(before, moved), state, TrsOptions())
    np.testing.assert_array_equal(result, np.float32(moved))
    assert float(after["gain"]) == np.float32(0.1)


def test_many_bits_and_a_rate_of_zero_are_left_alone():
    options = TrsOptions(gain=1.0, most_bits=4)
    state = {
        "share": tf.constant(0.0), "own_rate": tf.constant(3.0), "gain": tf.constant(1.0)
    }  # fmt: skip
    moved = np.float32([0.03, 0.17])
    result, _ = schedule_transitions(step_of([0.0, 0.1], moved, bits=5), state, options)
    np.testing.assert_array_equal(result, moved)
    result, _ = schedule_transitions(step_of([0.0, 0.1], moved, rate=0.0), state, options)
    np.testing.assert_array_equal(result, np.float32([0.0, 0.1]))


def mixed_step(bits, nearest=None):
    """A step in which the first weight of each channel moves by a level."""
    channels = len(bits)
    grid = GridTensors(tf.fill([channels], SCALE), -8, 7, 1, nearest, bits)
    before = np.zeros((4, channels), np.float32)
    moved = before.copy()
    moved[0] = SCALE
    return KernelStep(
        name="a", before=tf.constant(before), kernel=tf.constant(moved), factor=1.0,
        codes_before=grid.codes(tf.constant(before)), grid=grid, rate=tf.constant(0.1),
        progress=tf.constant(0.0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("bits", "root"),
    [((1, 1), 1.0), ((4, 1), 1.5), ((0, 4), 2.0), ((8, 0, 1), 1.0), ((0, 0), 0.0), ((8, 8), 0.0)],
)
def test_each_channel_has_its_own_bits_and_pruned_ones_do_not_count(bits, root):
    options = TrsOptions(rate=0.1, momentum=0.5, gain=1.0, most_bits=4)
    state = {"share": tf.constant(0.0), "own_rate": tf.constant(0.2), "gain": tf.constant(1.0)}
    step = mixed_step(bits)
    kernel, after = schedule_transitions(step, state, options)
    left = [own > 4 for own in bits]  # to the optimizer
    np.testing.assert_allclose(kernel[0], SCALE * np.where(left, 1.0, 2.0))
    share = 0.5 * 0.25 * (root > 0.0)
    assert float(after["share"]) == pytest.approx(share)
    assert float(after["own_rate"]) == pytest.approx(0.2 + 0.1 * root - share)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("rate", 0.0, "rate must be between 0 and 1"),
        ("rate", float("nan"), "rate must be between 0 and 1"),
        ("momentum", 1.0, "momentum must be at least 0 and below 1"),
        ("gain", -1.0, "gain must not be negative"),
        ("gain", float("inf"), "gain must not be negative"),
        ("most_bits", 9, "most_bits must be from 2 to 8"),
    ],
)
def test_options_outside_their_range(option, value, message):
    with pytest.raises(ValueError, match=message):
        TrsOptions(**{option: value})


@pytest.mark.parametrize("optimizer", [keras.optimizers.Adam, *slow(keras.optimizers.SGD)])
@pytest.mark.slow
def test_fewer_codes_change_towards_the_end(optimizer):
    """The method's promise: changes follow the schedule, and steps rest if they are to be held."""
    plain = tfbinreg.Recipe(weight_bits=2, first_last_bits=None)
    own = {"rate": 0.02, "gain": 0.05, "momentum": 0.8}
    scheduled = dataclasses.replace(plain, updates=("trs",)).with_options("trs", **own)
    recipes = {
        "plain": plain,
        "scheduled": scheduled,
        "held": scheduled.with_options("trs", hold_steps=True),
    }
    late = {}
    for name, recipe in recipes.items():
        model = trainable_net.build(0.05, recipe)
        model.compile(optimizer(0.02), "sparse_categorical_crossentropy")
        before = [site.step.numpy() for site in kernel_sites(model)]
        fit = {"epochs": 20, "batch_size": 8, "shuffle": False, "verbose": 0}
        log = [tfbinreg.TransitionLog()]
        history = model.fit(*trainable_net.data(), callbacks=log, **fit).history
        late[name] = np.mean(history["code_changes"][-3:])
        now = [site.step.numpy() for site in kernel_sites(model)]
        rests = [new == old for new, old in zip(now, before, strict=True)]
        assert all(rests) == (name == "held")
    for name in ("scheduled", "held"):
        assert late[name] < 0.5 * late["plain"] and late[name] < 0.01
