import numpy as np
import pytest
import reference
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


class TestFewBits:
    """1 bit, and channels with bits of their own."""

    BITS = (1, 0, 3, 8, 2)

    def make(self, bits, axis, shape=(3, 3, 2, 5)):
        kernel = batch(0, shape).numpy()
        kernel.flat[:3] = [0.0, -0.0, 0.25]
        quantizer, variables = built(LSQWeightQuantizer(bits, axis), kernel.shape)
        quantizer.initialize(variables, kernel)
        return kernel, quantizer, variables

    @pytest.mark.parametrize(("bits", "axis"), [(1, None), (1, 3), (BITS, 3), (BITS, -1)])
    def test_training_computes_the_values_of_the_grid(self, bits, axis):
        kernel, quantizer, variables = self.make(bits, axis)
        grid, codes = quantizer.settle(variables, "k"), quantizer.codes(kernel, variables)
        now = quantizer.grid_now(variables)
        np.testing.assert_array_equal(codes, now.codes(kernel))
        if axis != -1:
            np.testing.assert_array_equal(codes, grid.codes(kernel))
            np.testing.assert_array_equal(quantizer(kernel, True, variables), grid.values(codes))
        assert (grid.qmin, grid.qmax) == (now.qmin, now.qmax)
        if bits == 1:
            assert (grid.levels, grid.bits) == ((-1, 1), 1) and {*codes.ravel()} == {-1, 1}
        else:
            assert (grid.channel_bits, grid.bits) == (bits, 8)
            assert not codes[..., 1].any() and {*codes[..., 0].ravel()} == {-1, 1}

    def test_the_factor_of_a_step_follows_its_channel(self):
        kernel, quantizer, variables = self.make(self.BITS, 3)
        with tf.GradientTape() as tape:
            quantized = quantizer(tf.constant(kernel), True, variables)
        found = tape.gradient(quantized, variables["step"]).numpy()
        for channel, bits in enumerate(self.BITS):
            own = step(variables)[channel].astype(np.float64)
            slopes = [
                reference.lsq_of_bits(float(value), own, bits)[2]
                for value in kernel[..., channel].ravel()
            ]
            qmax = max(1, 2 ** (bits - 1) - 1)
            expected = np.sum(slopes) / np.sqrt(len(slopes) * qmax)
            assert found[channel] == pytest.approx(expected, rel=1e-4, abs=1e-5)

    def test_a_kernel_without_any_weight_left(self):
        _, quantizer, variables = self.make((0,) * 5, 3)
        grid = quantizer.settle(variables, "k")
        assert (grid.bits, grid.channel_bits, step(variables).tolist()) == (1, (0,) * 5, [1.0] * 5)
        assert not np.any(quantizer(batch(1, (3, 3, 2, 5)), True, variables))

    def test_a_variable_may_start_from_a_kernel(self):
        kernel = batch(0, (4, 5))
        variables = built(LSQWeightQuantizer(self.BITS, 1, kernel), kernel.shape)[1]
        means = np.abs(kernel).mean(axis=0)
        expected = means * np.float32([1, 2, 2 / np.sqrt(3), 2 / np.sqrt(127), 2])
        np.testing.assert_allclose(step(variables), expected, rtol=1e-6)
        variables = built(LSQWeightQuantizer(1, None, kernel), kernel.shape)[1]
        assert step(variables) == pytest.approx(np.abs(kernel).mean())

    def test_it_is_a_value(self):
        one = LSQWeightQuantizer([1, 0, 8], 3)
        again = LSQWeightQuantizer.from_config(one.get_config())
        assert again == one and hash(again) == hash(one)
        assert one != LSQWeightQuantizer((1, 0, 4), 3)

    def test_bits_per_channel_need_channels(self):
        with pytest.raises(ValueError, match="need the channels' axis, got \\(2, 4\\)"):
            LSQWeightQuantizer((2, 4))


@pytest.mark.parametrize("bits", [0, 9, "two", True, None])
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
