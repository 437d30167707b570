import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfbinreg import LSQActivationQuantizer, LSQWeightQuantizer
from tfbinreg.quantizers import calibration


def built(quantizer, shape=(None, 4)):
    return quantizer, quantizer.build(shape, "tensor", keras.layers.Layer())


def step(variables):
    return variables["step"].numpy()


def batch(seed, shape=(6, 4)):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


class TestWeights:
    def test_step_starts_at_twice_the_mean_over_the_root_of_qmax(self):
        kernel = np.float32([[0.5, -0.25], [0.75, -0.5]])
        for bits, expected in [(2, 1.0), (3, 1 / np.sqrt(3)), (8, 1 / np.sqrt(127))]:
            quantizer, variables = built(LSQWeightQuantizer(bits), kernel.shape)
            quantizer.initialize(variables, kernel)
            assert step(variables) == pytest.approx(expected, rel=2e-7)

    @pytest.mark.parametrize(("axis", "shape"), [(3, (3, 3, 2, 5)), (2, (3, 3, 5, 1))])
    def test_one_step_per_channel(self, axis, shape):
        kernel = batch(0, shape)
        quantizer, variables = built(LSQWeightQuantizer(4, axis), shape)
        quantizer.initialize(variables, kernel)
        rows = np.moveaxis(kernel, axis, 0).reshape(5, -1).astype(np.float64)
        expected = 2 * np.abs(rows).mean(axis=1) / np.sqrt(7)
        np.testing.assert_allclose(step(variables), expected, rtol=2e-7)

    def test_a_channel_of_zeros_takes_the_mean_of_the_others(self):
        quantizer, variables = built(LSQWeightQuantizer(2, 1), (2, 3))
        quantizer.initialize(variables, np.float32([[0.5, 0.0, -1.0], [0.5, 0.0, 1.0]]))
        assert step(variables).tolist() == [1.0, 1.5, 2.0]

    @pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
    @pytest.mark.parametrize("axis", [None, 1])
    def test_no_step_from_zeros_or_broken_weights(self, value, axis):
        quantizer, variables = built(LSQWeightQuantizer(2, axis), (2, 3))
        with pytest.raises(ValueError, match="all zero or not finite"):
            quantizer.initialize(variables, np.full((2, 3), value, np.float32))

    def test_a_variable_may_start_from_a_kernel(self):
        kernel = tf.Variable([[0.5, 0.0], [-0.5, 0.0]])
        assert step(built(LSQWeightQuantizer(2, 1, kernel), (2, 2))[1]).tolist() == [1.0, 1.0]
        kernel.assign(tf.zeros([2, 2]))
        assert step(built(LSQWeightQuantizer(2, None, kernel), (2, 2))[1]) == 1

    def test_codes_are_those_of_the_training_op(self):
        kernel = batch(1, (3, 3, 2, 4))
        for axis in (None, 3):
            quantizer, variables = built(LSQWeightQuantizer(3, axis), kernel.shape)
            quantizer.initialize(variables, kernel)
            codes = quantizer.codes(kernel, variables)
            grid = quantizer.settle(variables, "k")
            assert codes.dtype == np.int32
            np.testing.assert_array_equal(codes, grid.codes(kernel))
            trained = quantizer(kernel, True, variables)
            np.testing.assert_allclose(trained, grid.values(codes), rtol=1e-6)


class TestActivations:
    def test_first_training_batch_sets_the_step_in_a_graph_and_the_second_does_not(self):
        quantizer, variables = built(LSQActivationQuantizer(4))
        train = tf.function(lambda x: quantizer(x, True, variables))
        train(batch(0))
        expected = np.float32(2 * np.maximum(batch(0), 0).mean() / np.sqrt(15))
        assert step(variables) == pytest.approx(expected, rel=1e-6)
        assert int(variables["initialized"]) == 1
        first = step(variables)
        train(5 * batch(1))
        assert step(variables) == first

    @pytest.mark.parametrize("first", [0.0, -1.0, np.nan, np.inf])
    def test_a_first_batch_without_a_usable_value_leaves_it_unset(self, first):
        quantizer, variables = built(LSQActivationQuantizer(4))
        train = tf.function(lambda x: quantizer(x, True, variables))
        train(np.full((2, 4), first, np.float32))
        assert (int(variables["initialized"]), step(variables)) == (0, 1)
        train(np.ones((2, 4), np.float32))
        assert int(variables["initialized"]) == 1
        assert step(variables) == np.float32(2 / np.sqrt(15))

    def test_inference_writes_nothing_and_uses_the_batch_until_then(self):
        quantizer, variables = built(LSQActivationQuantizer(4))
        infer = tf.function(lambda x: quantizer(x, False, variables))
        ours = infer(batch(0))
        assert (int(variables["initialized"]), step(variables)) == (0, 1)
        trained = quantizer(batch(0), True, variables)
        np.testing.assert_array_equal(ours, trained)
        again = infer(10 * batch(1))  # from now on by the step
        assert np.max(again) == np.float32(15) * step(variables)

    def test_calibration_is_the_mean_over_batches(self):
        quantizer, variables = built(LSQActivationQuantizer(3, signed=True))
        estimates = {}
        for seed, scale in [(0, 1), (1, 4), (2, 0)]:  # zeros say nothing
            with calibration(estimates):
                quantizer(scale * batch(seed), False, variables)
                quantizer(100 * batch(3), False, variables)  # a second tensor on the same grid
        both = [np.abs(batch(0)).mean(), 4 * np.abs(batch(1)).mean()]
        assert step(variables) == pytest.approx(2 * np.mean(both) / np.sqrt(3), rel=1e-6)
        assert int(variables["initialized"]) == 1

    def test_an_output_grid_starts_from_the_range_and_is_trained(self):
        quantizer, variables = built(LSQActivationQuantizer(8, signed=True, from_range=True))
        quantizer(tf.constant([[-25.4, 3.0]]), True, variables)
        assert variables["step"].numpy() == np.float32(25.4) / 127
        assert variables["step"].trainable
        assert type(quantizer)(**quantizer.get_config()) == quantizer

    def test_a_fixed_grid_spans_the_data_and_a_relu6_limits_the_start(self):
        quantizer, variables = built(LSQActivationQuantizer(8, signed=True, fixed=True))
        estimates = {}
        for seed in (0, 1):
            with calibration(estimates):
                quantizer(batch(seed), False, variables)
        largest = max(np.abs(batch(0)).max(), np.abs(batch(1)).max())
        assert step(variables) == pytest.approx(largest / 127, rel=1e-6)
        assert not variables["step"].trainable
        quantizer, variables = built(LSQActivationQuantizer(2, upper_limit=6.0))
        assert variables["step"].trainable
        quantizer(tf.fill([1, 4], 100.0), True, variables)
        assert step(variables) == 2.0  # limited by the ReLU6

    def test_batch_size_does_not_change_the_gradient_factor(self):
        quantizer, variables = built(LSQActivationQuantizer(2), (None, None, 4))
        variables["step"].assign(0.1)
        variables["initialized"].assign(1)

        @tf.function(input_signature=[tf.TensorSpec([None, None, 4])])
        def gradient(inputs):
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(quantizer(inputs, True, variables))
            return tape.gradient(total, variables["step"])

        # All clipped: each of the numbers adds qmax = 3; the factor is 1 / sqrt(features * 3).
        assert float(gradient(tf.ones([1, 3, 4]))) == pytest.approx(36 / np.sqrt(36))
        assert float(gradient(tf.ones([2, 3, 4]))) == pytest.approx(72 / np.sqrt(36))

    def test_without_a_start_there_is_no_grid(self):
        quantizer, variables = built(LSQActivationQuantizer(4))
        with pytest.raises(ValueError, match=r"'relu' was never initialised: .*calibration_data"):
            quantizer.settle(variables, "relu")
        quantizer(batch(0), True, variables)
        grid = quantizer.settle(variables, "relu")
        assert (grid.bits, grid.signed, grid.qmin, grid.qmax) == (4, False, 0, 15)
        assert grid.scale == step(variables)


@pytest.mark.parametrize("bits", [1, 9, "two", True, None])
def test_wrong_bits(bits):
    with pytest.raises(ValueError, match="weight bits must be"):
        LSQWeightQuantizer(bits)
    with pytest.raises(ValueError, match="activation bits must be"):
        LSQActivationQuantizer(bits)


def test_quantizers_are_values():
    for one, other in [
        (LSQWeightQuantizer(4, 3), LSQWeightQuantizer(4)),
        (LSQActivationQuantizer(4, True, 6.0, True), LSQActivationQuantizer(4, True, 6.0)),
    ]:
        again = type(one).from_config(one.get_config())
        assert again == one
        assert hash(again) == hash(one)
        assert one != other
    assert LSQWeightQuantizer(4) != LSQActivationQuantizer(4)


def test_two_replicas_start_and_train_like_one_device(tmp_path):
    script = pathlib.Path(__file__).parent / "two_replicas.py"
    environment = {**os.environ, "PYTHONPATH": str(script.parent.parent)}
    command = [sys.executable, script, tmp_path / "out.npz"]
    subprocess.run(command, env=environment, check=True, timeout=300)
    weights = np.load(tmp_path / "out.npz")
    names = [name.removeprefix("one/") for name in weights if name.startswith("one/")]
    assert sum("step" in name for name in names) >= 5
    for name in names:
        one, two = weights[f"one/{name}"], weights[f"two/{name}"]
        np.testing.assert_allclose(two, one, rtol=1e-6, atol=1e-6, err_msg=name)
        if "initialized" in name:
            assert one == two == 1
