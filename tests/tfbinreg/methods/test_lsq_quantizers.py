import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from built_quantizers import batch, built, step

from tfbinreg import LSQActivationQuantizer, LSQWeightQuantizer


class TestWeights:
    def test_step_starts_at_twice_the_mean_over_the_root_of_qmax(self):
        kernel = np.float32([[0.5, -0.25], [0.75, -0.5]])
        for bits, expected in [(2, 1.0), (3, 1 / np.sqrt(3)), (8, 1 / np.sqrt(127))]:
            quantizer, variables = built(LSQWeightQuantizer(bits), kernel.shape)
            quantizer.initialize(variables, kernel, "lsq")
            assert step(variables) == pytest.approx(expected, rel=2e-7)

    @pytest.mark.parametrize(("axis", "shape"), [(3, (3, 3, 2, 5)), (2, (3, 3, 5, 1))])
    def test_one_step_per_channel(self, axis, shape):
        kernel = batch(0, shape)
        quantizer, variables = built(LSQWeightQuantizer(4, axis), shape)
        quantizer.initialize(variables, kernel, "lsq")
        rows = np.moveaxis(kernel, axis, 0).reshape(5, -1).astype(np.float64)
        expected = 2 * np.abs(rows).mean(axis=1) / np.sqrt(7)
        np.testing.assert_allclose(step(variables), expected, rtol=2e-7)

    def test_a_channel_of_zeros_takes_the_mean_of_the_others(self):
        quantizer, variables = built(LSQWeightQuantizer(2, 1), (2, 3))
        quantizer.initialize(variables, np.float32([[0.5, 0.0, -1.0], [0.5, 0.0, 1.0]]), "lsq")
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


def test_a_negative_axis_counts_from_the_back():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32)
    codes = []
    for axis in (-2, 2):
        quantizer = LSQWeightQuantizer(3, axis=axis)
        variables = quantizer.build(kernel.shape, "kernel", keras.layers.Layer())
        quantizer.initialize(variables, kernel)
        assert variables["step"].shape == (2,)
        codes.append(quantizer.codes(kernel, variables))
    np.testing.assert_array_equal(*codes)
