import dataclasses
import itertools

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
from tfbinreg.methods.freezing import FREEZING, FreezingOptions, freeze

SCALE = 0.3
SHAPE = (5, 4)


def step_of(before, kernel, progress, *, factor=1.0, levels=4):
    grid = GridTensors(tf.constant(SCALE), -levels // 2, levels // 2 - 1)
    before, kernel = (tf.constant(array, tf.float32) for array in (before, kernel))
    return KernelStep(
        name="a",
        before=before,
        kernel=kernel,
        factor=factor,
        codes_before=grid.codes(before * factor),
        grid=grid,
        rate=tf.constant(0.1),
        progress=tf.constant(progress),
    )


def tensors(state):
    return {name: tf.constant(value) for name, value in state.items()}


def test_a_weight_is_frozen_as_its_twin_is():
    random = np.random.default_rng(0)
    options = FreezingOptions(momentum=0.2, first_threshold=0.5, last_threshold=0.1)
    state = tensors(FREEZING.state(SHAPE, options))
    twins = {i: reference.Freezing(0.2, 0.5, 0.1, 0.25) for i in np.ndindex(SHAPE)}
    kernel = random.normal(size=SHAPE).astype(np.float32) * SCALE
    held = 0
    for count in range(60):
        moved = kernel + random.normal(size=SHAPE).astype(np.float32) * SCALE
        moved[0] = kernel[0] + 0.01  # a row that hardly moves
        step = step_of(kernel, moved, count / 60)
        result, state = freeze(step, state, options)
        codes_before, codes, result = step.codes_before.numpy(), step.codes.numpy(), result.numpy()
        for i, twin in twins.items():
            twin.step(int(codes_before[i]), int(codes[i]), count / 60)
            np.testing.assert_allclose(state["frequency"][i], twin.frequency, rtol=1e-5)
            np.testing.assert_allclose(state["average"][i], twin.average, rtol=1e-4, atol=1e-6)
            assert bool(state["frozen"][i]) == (twin.frozen is not None)
            expected = moved[i] if twin.frozen is None else np.float32(twin.frozen) * SCALE
            np.testing.assert_allclose(result[i], expected, rtol=1e-6)
        kernel = result
        held = sum(twin.frozen is not None for twin in twins.values())
        assert count / 60 >= 0.25 or not held
    assert 0 < held < len(twins)


def test_the_frequency_follows_a_hand_made_sequence():
    # Codes 0, 1, 0, 1, 1, 0: the first change has no direction before it, all others turn back.
    options = FreezingOptions(momentum=0.5, first_threshold=5.0, last_threshold=5.0)
    state = tensors(FREEZING.state((1,), options))
    found = []
    codes = [0, 1, 0, 1, 1, 0]
    for before, after in itertools.pairwise(codes):
        step = step_of([before * SCALE], [after * SCALE], 0.0)
        _, state = freeze(step, state, options)
        found.append(float(state["frequency"][0]))
    assert found == [0.0, 0.5, 0.75, 0.375, 0.6875]


def test_frozen_weights_stay_on_their_level_when_step_and_factor_move():
    options = FreezingOptions(momentum=0.5, first_threshold=0.1, last_threshold=0.1, begin=0.0)
    state = tensors(FREEZING.state((1,), options))
    state["frozen"], state["code"] = tf.constant([1], tf.int8), tf.constant([-2], tf.int8)
    for factor, expected in ((2.0, -SCALE), (-0.5, 4.0 * SCALE), (0.0, 0.0)):
        step = step_of([0.1], [0.2], 0.5, factor=factor)
        kernel, state = freeze(step, state, options)
        np.testing.assert_allclose(kernel, [expected], rtol=1e-6)
    assert state["code"].numpy() == [-2]


def test_kernels_of_many_bits_are_left_alone():
    options = FreezingOptions(momentum=0.9, first_threshold=0.1, last_threshold=0.1, begin=0.0)
    for levels, frozen in ((16, 1), (32, 0)):
        state = tensors(FREEZING.state((1,), options))
        for before, after in ((0.0, SCALE), (SCALE, 0.0), (0.0, SCALE)):
            _, state = freeze(step_of([before], [after], 0.5, levels=levels), state, options)
        assert state["frozen"].numpy() == [frozen]


def test_channels_of_many_bits_are_left_alone():
    options = FreezingOptions(momentum=0.9, first_threshold=0.1, last_threshold=0.1, begin=0.0)
    state = tensors(FREEZING.state((1, 3), options))
    grid = GridTensors(tf.fill([3], SCALE), -128, 127, 1, None, (8, 4, 0))
    for before, after in ((0.0, SCALE), (SCALE, 0.0), (0.0, SCALE)):
        step = step_of([[before] * 3], [[after] * 3], 0.5)
        codes = grid.codes(step.before)
        _, state = freeze(dataclasses.replace(step, grid=grid, codes_before=codes), state, options)
    assert state["frozen"].numpy().tolist() == [[0, 1, 1]]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("momentum", 1.0, "momentum must be between 0 and 1"),
        ("last_threshold", 0.0, "thresholds must be positive"),
        ("last_threshold", 0.2, "the last not above the first"),
        ("begin", 1.0, "begin must be at least 0 and below 1"),
        ("begin", float("nan"), "begin must be at least 0 and below 1"),
        ("most_bits", 1, "most_bits must be from 2 to 8"),
    ],
)
def test_options_outside_their_range(option, value, message):
    with pytest.raises(ValueError, match=message):
        FreezingOptions(**{option: value})


@pytest.mark.parametrize("fold", [True, *slow(False)])
def test_codes_that_are_frozen_never_change_again(fold):
    """The method's promise, on a net that oscillates: fewer changes, none of frozen codes."""
    own = {"momentum": 0.05, "first_threshold": 0.06, "last_threshold": 0.04}
    frozen_at = {}

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            for site in kernel_sites(self.model):
                (update,) = self.model.updates
                frozen = update.states[site.name]["frozen"].numpy().astype(bool)
                codes = site.codes()
                for place in zip(*np.nonzero(frozen), strict=True):
                    at = (site.name, *map(int, place))
                    assert frozen_at.setdefault(at, codes[place]) == codes[place]

    changes = {}
    for updates, options in (((), {}), (("freezing",), {"freezing": own})):
        recipe = tfbinreg.Recipe(
            weight_bits=2,
            first_last_bits=None,
            fold_batch_norm=fold,
            updates=updates,
            options=options,
        )
        model = trainable_net.build(0.05, recipe)
        callbacks = [tfbinreg.TransitionLog(), *([Watch()] if updates else [])]
        fit = {"epochs": 20, "batch_size": 8, "shuffle": False, "verbose": 0}
        history = model.fit(*trainable_net.data(), callbacks=callbacks, **fit).history
        changes[updates] = np.mean(history["code_changes"][-5:])
    assert len(frozen_at) > 10
    assert changes[("freezing",)] < 0.7 * changes[()]
