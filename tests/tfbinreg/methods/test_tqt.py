"""TQT against its twin, and what is its own: scales that are powers of two."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from built_quantizers import batch, built

from tfbinreg.methods.tqt import (
    TQTActivationQuantizer,
    TQTWeightQuantizer,
    power_of_two_scale,
    tqt_quantize,
)

RANGES = {"signed 2": (-2, 1), "signed 4": (-8, 7), "weights 8": (-127, 127), "unsigned 2": (0, 3)}


def run(values, threshold, qmin, qmax, axis=None):
    values, threshold = tf.constant(values, tf.float32), tf.constant(threshold, tf.float32)
    upstream = tf.constant(np.random.default_rng(1).normal(size=values.shape), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([values, threshold])
        quantized = tqt_quantize(values, threshold, qmin, qmax, axis)
        total = tf.reduce_sum(quantized * upstream)
    return quantized, *tape.gradient(total, [values, threshold]), upstream


@pytest.mark.parametrize("qmin, qmax", RANGES.values(), ids=RANGES)
@pytest.mark.parametrize("threshold", [-2.0, -1.3, 0.2])
def test_value_and_gradients_are_the_papers(qmin, qmax, threshold):
    scale = 2.0 ** np.ceil(threshold) / (qmax + 1)
    kinks = scale * np.arange(qmin - 1, qmax + 1.5, 0.5)  # levels, and half-way between them
    values = np.concatenate([kinks, batch(0, (40,)).numpy()]).astype(np.float32)
    quantized, to_values, to_threshold, upstream = run(values, threshold, qmin, qmax)
    twin = np.array([reference.tqt(float(v), threshold, qmin, qmax) for v in values])
    np.testing.assert_allclose(quantized, twin[:, 0], rtol=1e-6, atol=0)
    np.testing.assert_allclose(to_values, twin[:, 1] * upstream, rtol=1e-6)
    assert float(to_threshold) == pytest.approx(float(np.sum(twin[:, 2] * upstream)), rel=1e-4)


def test_a_threshold_per_channel_is_that_of_each_channel():
    values, thresholds = batch(0, (5, 3)).numpy(), np.float32([-1.0, 0.3, 1.7])
    together = run(values, thresholds, -2, 1, 1)
    for channel, threshold in enumerate(thresholds):
        column = tf.constant(values[:, channel])
        with tf.GradientTape() as tape:
            own = tf.constant(threshold)
            tape.watch(own)
            quantized = tqt_quantize(column, own, -2, 1)
            total = tf.reduce_sum(quantized * together[3][:, channel])
        np.testing.assert_array_equal(together[0][:, channel], quantized)
        assert float(together[2][channel]) == pytest.approx(float(tape.gradient(total, own)))


@pytest.mark.parametrize("exponent", [-40, -3, 0, 17])
def test_scales_are_exact_powers_of_two(exponent):
    for threshold in (exponent - 0.99, float(exponent)):
        assert float(power_of_two_scale(tf.constant(threshold), 7)) == 2.0**exponent / 8


def test_a_threshold_that_is_not_finite_is_no_grid():
    quantizer, variables = built(TQTWeightQuantizer(4), (3, 3))
    for value in (np.nan, np.inf, -np.inf):
        variables["log2_threshold"].assign(value)
        if np.isnan(value):
            with pytest.raises(ValueError, match="'conv' is not finite"):
                quantizer.settle(variables, "conv")
        else:
            assert np.isfinite(quantizer.settle(variables, "conv").scale)


def test_values_beyond_the_range_push_the_threshold_up():
    with tf.GradientTape() as tape:
        threshold = tf.Variable(0.0)
        loss = tf.reduce_sum(tf.square(tqt_quantize(tf.constant([5.0]), threshold, -8, 7) - 5.0))
    assert float(tape.gradient(loss, threshold)) < 0


@pytest.mark.parametrize("axis", [None, 1])
def test_a_kernel_starts_at_the_power_of_two_nearest_to_the_step(axis):
    kernel = batch(0, (20, 3)).numpy() * np.float32([1.0, 4.0, 0.1])
    quantizer, variables = built(TQTWeightQuantizer(4, axis), kernel.shape)
    quantizer.initialize(variables, kernel, "range")
    largest = np.abs(kernel).max(axis=None if axis is None else 0)
    exponents = np.log2(np.asarray(quantizer.settle(variables, "k").scale))
    np.testing.assert_array_equal(exponents, np.round(exponents))
    assert np.all(np.abs(exponents - np.log2(largest / 8)) < 0.75)
    with pytest.raises(ValueError, match="all zero"):
        quantizer.initialize(variables, np.zeros_like(kernel))


def test_an_activation_starts_from_data_and_settles():
    quantizer, variables = built(TQTActivationQuantizer(8, signed=True, from_range=True))
    quantizer(tf.constant([[-3.0, 5.0]]), True, variables)
    grid = quantizer.settle(variables, "x")
    assert float(grid.scale) == 2.0**-5  # 5 / 127 is nearest to it
    assert (grid.qmin, grid.qmax) == (-128, 127)
    assert type(quantizer)(**quantizer.get_config()) == quantizer
