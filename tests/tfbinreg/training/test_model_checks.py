import keras as keras_3
import pytest
import tf_keras as keras

from tfbinreg.training.model_checks import check_model

layers = keras.layers


class TestModelType:
    def test_sequential_and_functional_models_are_fine(self, float_net):
        check_model(float_net)
        check_model(keras.Sequential([layers.Dense(3, input_shape=(4,))]))
        built_later = keras.Sequential([layers.Dense(3)])
        built_later.build((None, 4))
        check_model(built_later)

    def test_keras_3_models_are_fine(self):
        check_model(keras_3.Sequential([keras_3.layers.Input((4,)), keras_3.layers.Dense(3)]))
        image = keras_3.Input((4,))
        check_model(keras_3.Model(image, keras_3.layers.Dense(3)(image)))

    @pytest.mark.parametrize("other", [None, 3, layers.Dense(3)])
    def test_other_things_are_no_models(self, other):
        with pytest.raises(TypeError, match=type(other).__name__):
            check_model(other)

    @pytest.mark.parametrize("own", [keras, keras_3])
    def test_unbuilt_sequential(self, own):
        with pytest.raises(ValueError, match=r"'net' is not built: .*input_shape"):
            check_model(own.Sequential([own.layers.Dense(3)], name="net"))

    @pytest.mark.parametrize("own", [keras, keras_3])
    def test_subclassed_model(self, own):
        subclassed = type("Subclassed", (own.Model,), {"call": lambda self, inputs: inputs})
        with pytest.raises(ValueError, match=r"'net' is a subclassed model.*Functional"):
            check_model(subclassed(name="net"))

    def test_a_quantized_model_is_said_to_be_so(self, quantized_net):
        with pytest.raises(ValueError, match="residual: already quantized; start from the float"):
            check_model(quantized_net)
