import keras as keras_3
import numpy as np
import pytest
import tf_keras as keras

from tfbinreg.checks import check_layers, check_model_type

layers = keras.layers


def chain(*middle, shape=(8, 8, 3)):
    image = x = keras.Input(shape, name="image")
    for layer in middle:
        x = layer(x)
    return keras.Model(image, x)


def listed(model):
    return [str(problem) for problem in check_layers(model)]


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


class TestModelType:
    def test_sequential_and_functional_models_are_fine(self, float_net):
        check_model_type(float_net)
        check_model_type(keras.Sequential([layers.Dense(3, input_shape=(4,))]))
        built_later = keras.Sequential([layers.Dense(3)])
        built_later.build((None, 4))
        check_model_type(built_later)

    def test_keras_3_model_is_refused_with_the_way_out(self):
        model = keras_3.Sequential([keras_3.layers.Input((4,)), keras_3.layers.Dense(3)])
        with pytest.raises(TypeError, match=r"tf_keras model, got keras\..*Build .* with tf_keras"):
            check_model_type(model)

    @pytest.mark.parametrize("other", [None, 3, layers.Dense(3)])
    def test_other_things_are_no_models(self, other):
        with pytest.raises(TypeError, match=type(other).__name__):
            check_model_type(other)

    def test_unbuilt_sequential(self):
        with pytest.raises(ValueError, match=r"'net' is not built: .*input_shape"):
            check_model_type(keras.Sequential([layers.Dense(3)], name="net"))

    def test_subclassed_model(self):
        with pytest.raises(ValueError, match=r"'net' is a subclassed model.*Functional"):
            check_model_type(Subclassed(name="net"))


class TestLayers:
    def test_a_good_model_has_no_problems(self, float_net):
        assert listed(float_net) == []

    def test_all_unsupported_layers_are_named_with_remedies(self):
        model = chain(
            layers.Conv2D(4, 1, name="conv"),
            layers.LayerNormalization(name="norm"),
            layers.UpSampling2D(name="up"),
        )
        norm, up = listed(model)
        assert norm.startswith("norm: layer class LayerNormalization is not supported; replace it")
        assert up.startswith("up: layer class UpSampling2D is not supported; replace it")
        assert "DepthwiseConv2D" in up

    def test_own_class_with_a_known_name_is_not_taken_for_it(self):
        dense = type("Dense", (layers.Layer,), {"call": lambda self, inputs: inputs})
        (problem,) = listed(chain(dense(name="mine")))
        assert problem.startswith("mine: layer class Dense is not supported")

    def test_settings_of_layers_are_checked(self):
        model = chain(layers.Conv2D(4, 1, activation="elu", name="conv"), layers.ReLU(1, name="r"))
        assert [problem.split(";")[0] for problem in listed(model)] == [
            "conv: activation 'elu'",
            "r: max_value=1.0",
        ]

    def test_a_layer_used_twice(self):
        shared = layers.Dense(4, name="shared")
        problems = listed(chain(layers.Flatten(), layers.Dense(4), shared, shared))
        assert problems == ["shared: layer used several times; use one layer per place"]

    def test_a_nested_model(self):
        inner = keras.Sequential([layers.Dense(4, input_shape=(192,))], name="inner")
        (problem,) = listed(chain(layers.Flatten(), inner))
        assert problem.startswith("inner: layer class Sequential is not supported")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_weights_that_are_not_finite(self, value):
        model = chain(layers.Conv2D(4, 1, name="conv"), layers.BatchNormalization(name="bn"))
        kernel, bias = model.get_layer("conv").get_weights()
        kernel[0, 0, 0, 1] = value
        model.get_layer("conv").set_weights([kernel, bias])
        model.get_layer("bn").gamma.assign(np.full(4, value))
        conv, norm = listed(model)
        assert conv == "conv: kernel has NaN or infinite values; train or load it again"
        assert norm == "bn: gamma has NaN or infinite values; train or load it again"

    def test_a_kernel_of_zeros(self):
        model = chain(
            layers.SeparableConv2D(4, 1, depthwise_initializer="zeros", name="sep"),
            layers.Conv2D(4, 1, kernel_initializer="zeros", name="conv"),
            layers.BatchNormalization(gamma_initializer="zeros"),  # only kernels need values
        )
        remedy = "is all zeros; train it first, or remove the layer"
        assert listed(model) == [f"sep: depthwise_kernel {remedy}", f"conv: kernel {remedy}"]

    def test_a_constant_kernel_is_fine(self):
        assert listed(chain(layers.Conv2D(4, 1, kernel_initializer="ones"))) == []

    def test_a_quantized_model_is_said_to_be_so(self, quantized_net):
        assert listed(quantized_net) == ["residual: already quantized; start from the float model"]
