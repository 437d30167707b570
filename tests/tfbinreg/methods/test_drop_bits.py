"""Gates of bit levels: their draws, probabilities and what they leave at inference."""

import numpy as np
import pytest
import reference
import tensorflow as tf

from tfbinreg.methods import drop_bits


def test_the_grids_lie_one_within_the_other():
    assert drop_bits.nested_ranges(4) == [(-2, 1), (-4, 3), (-8, 7)]
    assert drop_bits.nested_ranges(8)[-1] == (-127, 127)
    assert drop_bits.nested_ranges(2) == [(-2, 1)]


@pytest.mark.parametrize("log_alpha", [-3.0, -0.5, 0.6, 2.5])
def test_the_probability_is_that_of_the_draws(log_alpha):
    expected = reference.open_probability(log_alpha)
    assert float(drop_bits.open_probability(tf.constant(log_alpha))) == pytest.approx(
        expected, abs=1e-4
    )
    assert drop_bits.start_of(expected) == pytest.approx(log_alpha, abs=1e-3)
    many = drop_bits.random_gates(tf.fill([1, 20000], log_alpha), tf.constant([3, 4]))
    assert np.mean(many.numpy() > 0.0) == pytest.approx(expected, abs=0.015)


def test_draws_are_decided_by_the_seed_and_never_rise():
    log_alpha = tf.constant(np.random.default_rng(0).normal(size=(3, 400)), tf.float32)
    one, again, other = (
        drop_bits.random_gates(log_alpha, tf.constant(seed)).numpy()
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    assert np.all(np.diff(one, axis=0) <= 0.0) and one.min() == 0.0 and one.max() == 1.0
    assert np.any((one > 0.0) & (one < 1.0))


def test_a_gate_passes_its_gradient_where_it_is_partly_open():
    log_alpha = tf.Variable(np.full((1, 500), 0.5, "f"))
    with tf.GradientTape() as tape:
        gates = drop_bits.random_gates(log_alpha, tf.constant([0, 1]))
    slopes = tape.gradient(gates, log_alpha).numpy()
    inside = (gates.numpy() > 0.0) & (gates.numpy() < 1.0)
    np.testing.assert_array_equal(slopes > 0.0, inside)


def test_at_inference_a_level_needs_all_within():
    log_alpha = tf.constant([[3.0, -3.0, -2.3, -2.5], [3.0, 3.0, 3.0, 3.0], [-4.0, 3.0, 3.0, 3.0]])
    np.testing.assert_array_equal(drop_bits.settled_bits(log_alpha), [4, 2, 5, 2])
    np.testing.assert_array_equal(
        drop_bits.settled_gates(log_alpha), [[1, 0, 1, 0], [1, 0, 1, 0], [0, 0, 1, 0]]
    )
    assert int(drop_bits.settled_bits(tf.zeros([0]))) == 2
