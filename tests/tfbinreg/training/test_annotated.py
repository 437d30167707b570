"""Models annotated with tfmot's own functions: through tfmot's verb, and through ours."""

import numpy as np
import pytest
import tensorflow_model_optimization as tfmot
import tf_keras as keras

import tfbinreg
from tfbinreg import LSQQuantizeConfig, LSQQuantizeScheme, Recipe, Rule
from tfbinreg.layers.kernel import QuantizeActivation, QuantizedKernel
from tfbinreg.layers.sites import activation_sites, kernel_sites

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

    @pytest.mark.slow
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
        wrong = "conv, head: annotated with OwnConfig; "
        with keras.utils.custom_object_scope({"OwnConfig": OwnConfig}):
            with pytest.raises(ValueError, match=wrong):
                tfmot_apply(model, LSQQuantizeScheme())
            with pytest.raises(ValueError, match=wrong):
                tfbinreg.plan(model)

    def test_unsupported_layers_are_listed(self):
        model = keras.Sequential(
            [
                layers.Input((8, 8, 3)),
                annotate(layers.Conv2DTranspose(6, 3, dilation_rate=2, name="conv")),
                layers.UpSampling2D(interpolation="bicubic", name="up"),
            ]
        )
        with pytest.raises(ValueError, match=r"(?s)conv: dilation_rate.*up: interpolation 'bic"):
            tfmot_apply(model, LSQQuantizeScheme())

    def test_wiring_problems_are_listed(self):
        model = keras.Sequential(
            [
                layers.Input((8, 8, 3)),
                annotate(layers.ReLU()),
                layers.BatchNormalization(name="bn"),
            ],
            name="net",
        )
        with pytest.raises(ValueError, match="net: no layer has a kernel to quantize"):
            tfmot_apply(model, LSQQuantizeScheme())


class TestThroughTfbinreg:
    @pytest.fixture
    def net(self):
        keras.utils.set_random_seed(0)
        return keras.Sequential(
            [
                layers.Input((8, 8, 3), name="image"),
                layers.SeparableConv2D(4, 3, name="first"),
                annotate(
                    layers.Conv2D(4, 3, activation="relu", name="conv"), LSQQuantizeConfig(2, 5)
                ),
                annotate(layers.Flatten(name="flat")),
                layers.Dense(5, name="hidden"),
                annotate(layers.Dense(3, name="head"), LSQQuantizeConfig(per_channel=True)),
            ]
        )

    def test_annotations_win_and_the_rest_follows_the_recipe(self, net, images):
        recipe = Recipe(weight_bits=3, rules=[Rule(kind="Conv2D", weight_bits=6)])
        model = tfbinreg.quantize_apply(net, recipe)
        assert bits(kernel_sites(model)) == {
            "first_depthwise": 8, "first_pointwise": 6, "conv": 2, "hidden": 3, "head": 8
        }  # fmt: skip
        axes = {site.name: site.quantizer.axis for site in kernel_sites(model)}
        assert axes["head"] == 1
        assert axes["hidden"] is None
        assert bits(activation_sites(model))["conv_relu_grid"] == 5
        kernel = next(site.latent for site in kernel_sites(model) if site.name == "conv")
        np.testing.assert_array_equal(kernel, net.get_layer(index=1).layer.kernel)
        assert model(images[:2]).shape == (2, 3)

    def test_the_plan_says_so_and_the_annotated_model_can_be_used_again(self, net, images):
        before = net(images[:2]).numpy()
        rows = {row["layer"]: row["weight_bits"] for row in tfbinreg.plan(net).rows()}
        assert (rows["conv"], rows["hidden"], rows["head"]) == (2, 4, 8)
        for _ in range(2):
            assert bits(kernel_sites(tfbinreg.quantize_apply(net)))["conv"] == 2
        assert all(len(layer._inbound_nodes) == 1 for layer in net.layers)
        np.testing.assert_array_equal(net(images[:2]), before)
