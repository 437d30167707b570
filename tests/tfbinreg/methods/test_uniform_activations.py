import numpy as np
import pytest
import tensorflow as tf
from built_quantizers import batch, built, step

from tfbinreg import LSQActivationQuantizer, LSQPlusActivationQuantizer
from tfbinreg.methods.fixed_grid import PrescribedQuantizer
from tfbinreg.methods.uniform_activations import Observer, break_ties


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
        observer = Observer(quantizer, variables)
        for seed, scale in [(0, 1), (1, 4), (2, 0)]:  # zeros say nothing
            observer.begin_batch()
            observer.see(scale * batch(seed))
        both = [np.abs(batch(0)).mean(), 4 * np.abs(batch(1)).mean()]
        assert step(variables) == pytest.approx(2 * np.mean(both) / np.sqrt(3), rel=1e-6)
        assert int(variables["initialized"]) == 1

    def test_an_output_grid_starts_from_the_range_and_is_trained(self):
        quantizer, variables = built(LSQActivationQuantizer(8, signed=True, from_range=True))
        quantizer(tf.constant([[-25.4, 3.0]]), True, variables)
        assert variables["step"].numpy() == np.float32(25.4) / 127
        assert variables["step"].trainable
        assert type(quantizer)(**quantizer.get_config()) == quantizer

    def test_tensors_that_share_a_grid_widen_it_in_turn(self):
        quantizer, variables = built(LSQActivationQuantizer(8, signed=True, from_range=True))

        @tf.function
        def train(first, second):
            quantizer(first, True, variables, member=0)
            quantizer(second, True, variables, member=1)
            quantizer(99 * second, True, variables, member=None)

        train(batch(0), 3 * batch(1))
        widest = max(np.abs(batch(0)).max(), 3 * np.abs(batch(1)).max())
        assert step(variables) == pytest.approx(widest / 127, rel=1e-6)
        assert int(variables["initialized"]) == 2
        train(50 * batch(0), 50 * batch(1))
        assert step(variables) == pytest.approx(widest / 127, rel=1e-6)
        observer = Observer(quantizer, variables)
        observer.see(batch(0))
        observer.see(9 * batch(1))
        assert step(variables) == pytest.approx(9 * np.abs(batch(1)).max() / 127, rel=1e-6)

    def test_a_fixed_grid_spans_the_data_and_a_relu6_limits_the_start(self):
        quantizer, variables = built(LSQActivationQuantizer(8, signed=True, fixed=True))
        observer = Observer(quantizer, variables)
        for seed in (0, 1):
            observer.begin_batch()
            observer.see(batch(seed))
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

    def test_an_observer_knows_whether_it_has_seen_only_zeros(self):
        quantizer, variables = built(LSQActivationQuantizer(4))
        observer = Observer(quantizer, variables)
        assert not observer.only_zeros
        observer.see(tf.fill([2, 4], np.nan))
        assert not observer.only_zeros
        observer.see(tf.zeros([2, 4]))
        assert observer.only_zeros
        observer.see(tf.ones([2, 4]))
        observer.see(tf.zeros([2, 4]))
        assert not observer.only_zeros

    def test_without_a_start_there_is_no_grid(self):
        quantizer, variables = built(LSQActivationQuantizer(4))
        with pytest.raises(
            ValueError, match=r"'relu' was never initialised: .*calibration_data.*dead"
        ):
            quantizer.settle(variables, "relu")
        quantizer(batch(0), True, variables)
        grid = quantizer.settle(variables, "relu")
        assert (grid.bits, grid.signed, grid.qmin, grid.qmax) == (4, False, 0, 15)
        assert grid.scale == step(variables)


class TestLearnedOffset:
    def test_starts_from_the_range_with_zero_a_level(self):
        quantizer, variables = built(LSQPlusActivationQuantizer(8))
        values = tf.constant([[-0.3, 0.0, 1.0, 2.25]])
        quantizer(values, True, variables)
        assert step(variables) == pytest.approx(2.55 / 255, rel=1e-6)
        assert variables["offset"].numpy() == pytest.approx(-0.3)
        grid = quantizer.settle(variables, "swish")
        assert (grid.qmin, grid.qmax, grid.zero_point) == (-30, 225, -98)
        np.testing.assert_allclose(quantizer(values, False, variables), values, atol=0.006)
        scale, zero_point = quantizer.stored_grid(variables)
        assert (float(scale), int(zero_point)) == (float(grid.scale), grid.zero_point)

    @pytest.mark.parametrize("values, reach", [([1.0, 3.0], (0, 255)), ([-1.0, -3.0], (-255, 0))])
    def test_zero_is_inside_a_one_sided_range(self, values, reach):
        quantizer, variables = built(LSQPlusActivationQuantizer(8))
        quantizer(tf.constant([values]), True, variables)
        grid = quantizer.settle(variables, "swish")
        assert (grid.qmin, grid.qmax) == reach

    def test_calibration_and_members_take_the_widest_range(self):
        quantizer, variables = built(LSQPlusActivationQuantizer(4))
        observer = Observer(quantizer, variables)
        observer.see(tf.constant([[-1.0, 2.0]]))
        observer.see(tf.constant([[-0.5, 14.0]]))
        assert step(variables) == pytest.approx(1.0)
        assert variables["offset"].numpy() == -1.0

    def test_a_broken_offset_is_reported_by_name(self):
        quantizer, variables = built(LSQPlusActivationQuantizer(4))
        quantizer(tf.constant([[-1.0, 2.0]]), True, variables)
        variables["offset"].assign(np.nan)
        with pytest.raises(ValueError, match="offset of 'swish' is not finite"):
            quantizer.settle(variables, "swish")

    def test_config_round_trip(self):
        quantizer = LSQPlusActivationQuantizer(5)
        again = type(quantizer).from_config(quantizer.get_config())
        assert again == quantizer and (again.qmin, again.qmax) == (0, 31)


def test_a_prescribed_grid_learns_nothing():
    quantizer, variables = built(PrescribedQuantizer(1 / 256, 0, 255))
    assert variables == {}
    values = quantizer(tf.constant([0.001, 0.5, 0.999]), True, variables)
    np.testing.assert_array_equal(values, np.float32([0, 128, 255]) / 256)
    grid = quantizer.settle(variables, "gate")
    assert (grid.bits, grid.signed, grid.zero_point) == (8, False, -128)
    assert type(quantizer)(**quantizer.get_config()).scale == 1 / 256


@pytest.mark.parametrize("zero_point", [-128, -3, 0, 4])
def test_means_half_way_go_where_the_runtimes_round_the_stored_values(zero_point):
    halves = np.arange(-5, 6) + 0.5
    stored = halves + zero_point
    away = np.sign(stored) * np.floor(np.abs(stored) + 0.5) - zero_point
    means = tf.constant(halves / 4, tf.float32)
    nudged = break_ties(means, tf.constant(0.25), tf.constant(zero_point))
    np.testing.assert_array_equal(np.floor(nudged.numpy() * 4 + 0.5), away)
    exact = tf.constant([0.0, 0.25, -0.75])
    np.testing.assert_allclose(break_ties(exact, 0.25, zero_point), exact, atol=0.001)
