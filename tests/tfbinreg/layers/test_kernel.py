import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg import LSQActivationQuantizer, LSQQuantizeConfig
from tfbinreg.layers.kernel import QuantizeActivation, QuantizedKernel

layers = keras.layers


@pytest.fixture
def wrapped(images):
    keras.utils.set_random_seed(0)
    layer = QuantizedKernel(layers.Conv2D(4, 3, name="conv"), LSQQuantizeConfig(2))
    layer(images[:2])
    layer.initialize_steps()
    return layer


def again(layer):
    with tfbinreg.quantize_scope():
        return type(layer).from_config(layer.get_config())


class TestQuantizedKernel:
    def test_runs_the_layer_with_the_kernel_on_its_grid(self, wrapped, images):
        ((latent, quantizer, variables),) = wrapped.kernels
        grid = quantizer.settle(variables, "conv")
        expected = tf.nn.conv2d(images[:2], grid.values(grid.codes(latent.numpy())), 1, "VALID")
        np.testing.assert_allclose(wrapped(images[:2]), expected, rtol=1e-5, atol=1e-5)
        assert set(np.unique(grid.codes(latent.numpy()))) == {-1, 0, 1}

    def test_the_layer_keeps_its_own_kernel(self, wrapped, images):
        latent = wrapped.kernels[0].weight
        wrapped(images[:2], training=True)
        assert wrapped.layer.kernel is latent

    def test_also_when_the_layer_fails(self, wrapped):
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
            wrapped.call(tf.zeros([2, 8, 8, 5]))  # not the channels it was built for
        assert wrapped.layer.kernel is wrapped.kernels[0].weight

    def test_weights_have_one_order_and_own_names(self, wrapped):
        names = ["quant_conv/kernel:0", "quant_conv/bias:0", "quant_conv/kernel_step:0"]
        assert [weight.name for weight in wrapped.weights] == names
        loaded = again(wrapped)
        loaded.build((None, 8, 8, 3))
        assert [weight.name for weight in loaded.weights] == names
        assert loaded.quantize_config == wrapped.quantize_config

    def test_a_frozen_layer_trains_neither_kernel_nor_step(self, wrapped):
        everything = [weight.name for weight in wrapped.weights]
        wrapped.trainable = False
        assert wrapped.trainable_weights == []
        assert [weight.name for weight in wrapped.non_trainable_weights] == everything
        wrapped.trainable = True
        assert len(wrapped.trainable_weights) == 3
        assert wrapped.non_trainable_weights == []

    def test_output_shape(self, wrapped):
        assert wrapped.compute_output_shape((None, 8, 8, 3)) == (None, 6, 6, 4)

    def test_gradients_reach_kernel_bias_and_step(self, wrapped, images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(wrapped(images[:2], training=True)))
        gradients = tape.gradient(loss, wrapped.trainable_weights)
        assert all(np.any(gradient.numpy() != 0) for gradient in gradients)

    def test_half_precision_reads_float32_weights(self, images):
        keras.utils.set_random_seed(0)
        convolution = layers.Conv2D(4, 3, dtype="mixed_float16", name="conv")
        layer = QuantizedKernel(convolution, LSQQuantizeConfig(4), dtype="mixed_float16")
        output = layer(images[:2])
        layer.initialize_steps()
        assert output.dtype == tf.float16
        assert {weight.dtype for weight in layer.weights} == {tf.float32}
        ((latent, quantizer, variables),) = layer.kernels
        grid = quantizer.settle(variables, "conv")
        kernel = grid.values(grid.codes(latent.numpy()))
        expected = tf.nn.conv2d(images[:2], kernel, 1, "VALID")
        np.testing.assert_allclose(layer(images[:2]), expected, atol=0.02)


class TestQuantizeActivation:
    def test_puts_a_tensor_on_the_grid(self):
        layer = QuantizeActivation(LSQActivationQuantizer(2), name="grid")
        layer.build((None, 5))
        layer.grid_variables["step"].assign(0.5)
        layer.grid_variables["initialized"].assign(1)
        values = layer(np.float32([[-1.0, 0.2, 0.3, 1.3, 9.0]]))
        np.testing.assert_array_equal(values, [[0.0, 0.0, 0.5, 1.5, 1.5]])
        assert {weight.name for weight in layer.weights} == {
            "grid/activation_step:0",
            "grid/activation_initialized:0",
        }

    def test_config_round_trip(self):
        quantizer = LSQActivationQuantizer(3, signed=True, upper_limit=6.0, fixed=True)
        loaded = again(QuantizeActivation(quantizer, name="grid"))
        assert loaded.quantizer == quantizer
        assert loaded.name == "grid"
        assert loaded.compute_output_shape((None, 7)) == (None, 7)

    def test_the_training_phase_decides_where_none_is_given(self):
        layer = QuantizeActivation(LSQActivationQuantizer(4))
        layer(tf.ones([2, 3]))
        assert int(layer.grid_variables["initialized"]) == 0
        layer(tf.ones([2, 3]), training=True)
        assert int(layer.grid_variables["initialized"]) == 1

    @pytest.mark.parametrize(("signed", "expected"), [(False, [0.0, 0.0, 1.0]), (True, [0, 0, 2])])
    def test_averages_half_way_between_levels_round_as_the_runtimes_do(self, signed, expected):
        layer = QuantizeActivation(LSQActivationQuantizer(8, signed=signed))
        layer.build((None, 3))
        layer.grid_variables["step"].assign(1.0)
        layer.grid_variables["initialized"].assign(1)
        # Unsigned: code - 128 is below zero, away from zero is down. Signed: code is above, so up.
        values = np.float32([[0.0, 0.25, 1.5]])
        np.testing.assert_array_equal(layer(values, averaged=True), [expected])
