import pytest
import tensorflow_model_optimization as tfmot
import tf_keras as keras

import tfbinreg
from tfbinreg import LSQQuantizeConfig, LSQQuantizeScheme, Recipe, Rule
from tfbinreg.layers import QuantizeActivation, QuantizedKernel
from tfbinreg.scheme import LSQQuantizeRegistry, layer_settings
from tfbinreg.sites import activation_sites, kernel_sites

layers = keras.layers
annotate = tfmot.quantization.keras.quantize_annotate_layer
tfmot_apply = tfmot.quantization.keras.quantize_apply


def annotated_net(config, last=None):
    """A Sequential whose first layer (and last, if given) is annotated."""
    keras.utils.set_random_seed(0)
    convolution = layers.Conv2D(4, 3, activation="relu", input_shape=(8, 8, 3), name="conv")
    head = layers.Dense(3, name="head")
    return keras.Sequential(
        [
            annotate(convolution, config),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flat"),
            layers.Dense(5, name="hidden"),
            head if last is None else annotate(head, last),
        ]
    )


def bits(sites):
    return {site.name: site.quantizer.bits for site in sites}


class TestConfig:
    @pytest.mark.parametrize("value", [1, 9, "two", True, 0])
    @pytest.mark.parametrize("field", ["weight_bits", "activation_bits"])
    def test_wrong_bits_are_reported_where_they_are_written(self, field, value):
        with pytest.raises(ValueError, match=f"{field} must be an integer from 2 to 8"):
            LSQQuantizeConfig(**{field: value})

    def test_configs_are_values(self):
        config = LSQQuantizeConfig(2, 5, per_channel=True)
        again = LSQQuantizeConfig.from_config(config.get_config())
        assert again == config
        assert hash(again) == hash(config)
        assert config != LSQQuantizeConfig(2, 5)
        assert config != "config"

    def test_weights_and_output_of_a_layer(self):
        layer = layers.Conv2D(4, 3, activation="relu")
        layer.build((None, 8, 8, 3))
        config = LSQQuantizeConfig(2, 5, per_channel=True)
        ((kernel, quantizer),) = config.get_weights_and_quantizers(layer)
        assert kernel is layer.kernel
        assert quantizer.get_config() == {"bits": 2, "axis": 3}
        (output,) = config.get_output_quantizers(layer)
        assert (output.bits, output.signed) == (5, False)
        assert config.get_activations_and_quantizers(layer) == []
        assert config.get_weights_and_quantizers(layers.ReLU()) == []
        assert not config.get_output_quantizers(layers.ReLU())[0].signed
        assert config.get_output_quantizers(layers.Add())[0].signed

    @pytest.mark.parametrize("layer", [layers.LSTM(3, name="odd"), layers.SeparableConv2D(3, 3)])
    def test_layers_that_it_cannot_quantize_are_named(self, layer):
        layer.build((None, 4, 3) if layer.name == "odd" else (None, 8, 8, 3))
        with pytest.raises(ValueError, match=f"'{layer.name}' .*use LSQQuantizeScheme"):
            LSQQuantizeConfig(2).get_weights_and_quantizers(layer)


def test_settings_of_annotations():
    config = LSQQuantizeConfig(2, per_channel=True)
    assert layer_settings({"a": config, "b": None}) == {"a": config.settings, "b": None}


def test_registry_knows_kernels_that_are_not_placed():
    recipe = Recipe(weight_bits=3, rules=[Rule(layer="head", weight_bits=6, activation_bits=5)])
    registry = LSQQuantizeRegistry(recipe, {"done"})
    config = registry.get_quantize_config(layers.Dense(3, name="head"))
    assert config == LSQQuantizeConfig(6, 5, per_channel=False)
    assert registry.supports(layers.Dense(3, name="hidden"))
    for layer in (layers.Dense(3, name="done"), layers.ReLU(name="relu"), layers.LSTM(3)):
        assert not registry.supports(layer)
        with pytest.raises(ValueError, match=f"'{layer.name}' .* has no LSQ config"):
            registry.get_quantize_config(layer)


class TestThroughTfmot:
    def test_annotated_layers_are_quantized_and_no_others(self):
        model = annotated_net(LSQQuantizeConfig(weight_bits=2, activation_bits=5))
        quantized = tfmot_apply(model, LSQQuantizeScheme())
        assert bits(kernel_sites(quantized)) == {"conv": 2}
        own = {name: n for name, n in bits(activation_sites(quantized)).items() if "conv" in name}
        assert own == {"conv_relu_grid": 5}
        assert len(activation_sites(quantized)) == 2  # and the input, which the kernel reads
        assert type(quantized.get_layer("hidden")) is layers.Dense

    def test_annotations_without_a_config_follow_the_recipe(self):
        scheme = LSQQuantizeScheme(Recipe(weight_bits=3, first_last_bits=None, per_channel=True))
        model = tfmot.quantization.keras.quantize_annotate_model(annotated_net(None))
        quantized = tfmot_apply(model, scheme)
        assert bits(kernel_sites(quantized)) == {"conv": 3, "hidden": 3, "head": 3}
        assert {site.quantizer.axis for site in kernel_sites(quantized)} == {3, 1}

    def test_the_result_computes_and_trains(self, images, labels):
        model = annotated_net(LSQQuantizeConfig(2), last=LSQQuantizeConfig(8))
        quantized = tfmot_apply(model, LSQQuantizeScheme())
        before = kernel_sites(quantized)[0].step.numpy()
        quantized.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        quantized.fit(images, labels, verbose=0)
        assert kernel_sites(quantized)[0].step.numpy() != before
        assert set(kernel_sites(quantized)[0].codes().ravel()) <= {-2, -1, 0, 1}

    def test_tfmots_own_scheme_starts_and_trains_the_steps(self, images, labels):
        quantized = tfmot_apply(annotated_net(LSQQuantizeConfig(2, 4)))
        wrapper = quantized.get_layer("quant_conv")
        variables = {v.name.split("/")[-1]: v for v in wrapper.weights}
        kernel, step = variables["kernel:0"], variables["kernel_step:0"]
        start = step.numpy()
        assert start == pytest.approx(2 * abs(kernel.numpy()).mean(), rel=1e-6)
        quantized.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        quantized.fit(images, labels, verbose=0)
        assert step.numpy() != start
        assert int(variables["output_initialized:0"]) == 1
        assert 0 < variables["output_step:0"].numpy() < 1

    def test_a_scheme_places_kernels_and_grids_as_layers(self):
        model = annotated_net(LSQQuantizeConfig(2))
        quantized = tfmot_apply(model, LSQQuantizeScheme())
        assert isinstance(quantized.get_layer("quant_conv"), QuantizedKernel)
        assert isinstance(quantized.get_layer("conv_relu_grid"), QuantizeActivation)

    def test_other_configs_are_refused_by_layer(self):
        class OwnConfig(LSQQuantizeConfig.__base__):
            get_weights_and_quantizers = get_activations_and_quantizers = None
            set_quantize_weights = set_quantize_activations = get_output_quantizers = None

            def get_config(self):
                return {}

        model = annotated_net(OwnConfig(), last=OwnConfig())
        wrong = "conv: annotated with OwnConfig; .*\n.*head: annotated with OwnConfig"
        with keras.utils.custom_object_scope({"OwnConfig": OwnConfig}):
            with pytest.raises(ValueError, match=wrong):
                tfmot_apply(model, LSQQuantizeScheme())
            with pytest.raises(ValueError, match=wrong):
                tfbinreg.plan(model)

    def test_unsupported_layers_are_listed(self):
        model = keras.Sequential(
            [
                layers.Input((8, 8, 3)),
                annotate(layers.Conv2D(4, 3, activation="elu", name="conv")),
                layers.UpSampling2D(name="up"),
            ]
        )
        with pytest.raises(ValueError, match=r"(?s)conv: activation 'elu'.*up: layer class UpSam"):
            tfmot_apply(model, LSQQuantizeScheme())

    def test_wiring_problems_are_listed(self):
        model = keras.Sequential(
            [layers.Input((8, 8, 3)), annotate(layers.ReLU()), layers.BatchNormalization(name="bn")]
        )
        with pytest.raises(ValueError, match="bn: BatchNormalization that cannot be folded"):
            tfmot_apply(model, LSQQuantizeScheme())
