import keras as keras_3
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

import tfbinreg
from tfbinreg import QuantizedModel, Recipe, Rule
from tfbinreg.core.weight_starts import start_step
from tfbinreg.layers.sites import activation_sites, kernel_sites
from tfbinreg.training.batch_statistics import BatchStatistics

layers = keras.layers
annotate = tfmot.quantization.keras.quantize_annotate_layer


def bits(model):
    return {site.name: site.quantizer.bits for site in kernel_sites(model)}


def steps(model):
    return {site.name: site.step.numpy() for site in activation_sites(model)}


def sequential(*middle):
    keras.utils.set_random_seed(0)
    return keras.Sequential([layers.Input((8, 8, 3), name="image"), *middle], name="net")


class TestResult:
    def test_is_a_functional_model_with_the_recipe(self, quantized_net, float_net):
        assert isinstance(quantized_net, QuantizedModel)
        assert quantized_net.name == float_net.name
        assert quantized_net.recipe == Recipe(weight_bits=2, unsigned_input=False)
        assert quantized_net.recipe.penalties == ("bin_regularization",)
        assert bits(quantized_net) == {"conv": 8, "depthwise": 2, "pointwise": 2, "head": 8}

    def test_does_what_the_plan_says(self, quantized_net, float_net):
        plan = tfbinreg.plan(float_net, weight_bits=2)
        rows = {row["layer"]: row for row in plan.rows()}
        assert {n: row["weight_bits"] for n, row in rows.items() if row["weight_bits"]} == bits(
            quantized_net
        )
        for site in activation_sites(quantized_net):
            row = rows[site.name.removesuffix("_grid")]
            assert row["activation_bits"] == site.quantizer.bits
            assert row["grid"] == ("signed" if site.quantizer.signed else "unsigned")

    def test_starts_with_the_float_weights_and_their_steps(self, quantized_net, float_net):
        for site in kernel_sites(quantized_net):
            source = float_net.get_layer(site.name)
            kernel = next(w.numpy() for w in source.weights if "kernel" in w.name)
            np.testing.assert_array_equal(site.latent, kernel)
            quantizer = site.quantizer
            expected = start_step(kernel, quantizer.qmin, quantizer.qmax, how="mse")
            assert site.step.numpy() == expected
        norm = quantized_net.get_layer("conv_bn")
        # Factors and offsets; the statistics are those of the quantized model.
        pairs = zip(norm.weights[:2], float_net.get_layer("conv_bn").weights, strict=False)
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours, theirs)

    def test_eight_bits_everywhere_stay_near_the_float_model(self, make_net, images):
        float_net = make_net()
        BatchStatistics(float_net).measure([images])
        recipe = Recipe(weight_bits=8, per_channel=True)
        model = tfbinreg.quantize_apply(float_net, recipe, calibration_data=images)
        for site in activation_sites(model):  # the start value clips; here nothing shall
            if not site.quantizer.from_range:
                site.step.assign(3 * site.step)
        assert np.max(np.abs(model(images) - float_net(images))) < 0.1

    def test_the_users_model_is_left_alone(self, make_net, images, labels):
        net = make_net()
        net.get_layer("conv").trainable = False
        net.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
        optimizer, loss = net.optimizer, net.loss
        weights = [weight.numpy() for weight in net.weights]
        config = net.get_config()
        calls = [len(layer._inbound_nodes) for layer in net.layers]
        model = tfbinreg.quantize_apply(net, calibration_data=images)
        assert not model.get_layer("quant_conv").trainable
        assert model.get_layer("quant_head").trainable
        model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
        model.fit(images, labels, verbose=0)
        for now, then in zip(net.weights, weights, strict=True):
            np.testing.assert_array_equal(now, then)
        assert (net.optimizer, net.loss) == (optimizer, loss)
        assert net.get_config() == config
        assert [layer.name for layer in net.layers if not layer.trainable] == ["conv"]
        assert [len(layer._inbound_nodes) for layer in net.layers] == calls

    def test_several_inputs_keep_their_order(self):
        keras.utils.set_random_seed(0)
        early, late = keras.Input((4,), name="early"), keras.Input((3,), name="late")
        deep = layers.Dense(4, name="b")(layers.Dense(4, name="a")(late))
        net = keras.Model([early, late], layers.Add()([layers.Dense(4, name="c")(early), deep]))
        data = [np.ones((5, 4), np.float32), np.full((5, 3), 2, np.float32)]
        model = tfbinreg.quantize_apply(net, calibration_data=data)
        assert model.input_names == ["early", "late"]
        assert steps(model)["early_grid"] == pytest.approx(1 / 255)
        assert steps(model)["late_grid"] == pytest.approx(2 / 255)

    def test_bin_options_travel_with_the_model(self, trained_net):
        options = {"detach_step": False, "scale_free": True}
        assert trained_net.recipe.options == {"bin_regularization": options}


class TestActivationStart:
    def test_calibration_sets_every_step(self, quantized_net, images):
        assert all(int(site.variables["initialized"]) for site in activation_sites(quantized_net))
        largest = np.abs(images).max()
        assert steps(quantized_net)["image_grid"] == pytest.approx(largest / 127, rel=1e-6)

    def test_the_first_training_batch_does_it_without(self, images):
        net = sequential(
            layers.Conv2D(4, 1, name="conv"), layers.ReLU(name="relu"),
            layers.Conv2D(4, 1, name="wide"), layers.Flatten(), layers.Dense(2),
        )  # fmt: skip
        model = tfbinreg.quantize_apply(net, Recipe(activation_bits=4, first_last_bits=None))
        model.predict(images[:4], verbose=0)
        assert set(steps(model).values()) == {1.0}  # inference leaves them alone
        model.compile(keras.optimizers.SGD(0.0), "mse")
        data = np.concatenate([images[:16], 9 * images[:16]])
        model.fit(data, np.zeros((32, 2)), batch_size=16, shuffle=False, verbose=0)
        first = np.abs(images[:16]).max()
        assert steps(model)["image_grid"] == pytest.approx(first / 127, rel=1e-6)
        conv = model.get_layer("quant_conv")(np.clip(images[:16], -first, first))
        expected = 2 * np.maximum(conv, 0).mean() / np.sqrt(15)  # the paper's
        assert steps(model)["relu_grid"] == pytest.approx(expected, rel=0.01)
        inner = model.get_layer("relu_grid")(conv)
        largest = np.abs(model.get_layer("quant_wide")(inner)).max()  # at 8 bits the range
        assert steps(model)["wide_grid"] == pytest.approx(largest / 127, rel=1e-6)

    @pytest.mark.parametrize("unsigned", [True, False])
    def test_the_input_grid_follows_the_data_and_is_fixed(self, unsigned, images):
        net = sequential(layers.Conv2D(2, 1))
        data = np.abs(images) if unsigned else images
        model = tfbinreg.quantize_apply(net, calibration_data=data)
        site = next(s for s in activation_sites(model) if s.name == "image_grid")
        assert site.quantizer.signed is not unsigned
        assert model.recipe.unsigned_input is unsigned
        assert not site.step.trainable
        assert all(site.step is not variable for variable in model.trainable_variables)
        assert site.step.numpy() == pytest.approx(data.max() / (255 if unsigned else 127), rel=0.1)

    def test_the_recipe_may_say_that_inputs_are_signed(self, images):
        net = sequential(layers.Conv2D(2, 1))
        recipe = Recipe(unsigned_input=False)
        model = tfbinreg.quantize_apply(net, recipe, calibration_data=np.abs(images))
        assert activation_sites(model)[0].quantizer.signed


class TestErrors:
    @pytest.fixture(params=[tfbinreg.plan, tfbinreg.quantize_apply], ids=["plan", "apply"])
    def verb(self, request):
        return request.param

    def test_models_of_other_kinds(self, verb, quantized_net):
        with pytest.raises(TypeError, match=r"Expected a Keras model, got .*Dense"):
            verb(keras_3.layers.Dense(2))
        with pytest.raises(ValueError, match="not built"):
            verb(keras.Sequential([layers.Dense(2)]))
        with pytest.raises(ValueError, match="already quantized"):
            verb(quantized_net)

    def test_wrong_recipe(self, verb, float_net):
        with pytest.raises(TypeError, match=r"must be a Recipe, a dict .*, got int"):
            verb(float_net, 4)
        with pytest.raises(ValueError, match="No recipe can be read from 'paper'"):
            verb(float_net, "paper")
        with pytest.raises(ValueError, match="Give a recipe or weight_bits, not both"):
            verb(float_net, {"weight_bits": 2}, weight_bits=2)

    @pytest.mark.parametrize("wrong", [-1, 9, "two", True])
    def test_wrong_bits(self, verb, wrong, float_net):
        with pytest.raises(ValueError, match="weight_bits must be an integer from 1 to 8"):
            verb(float_net, weight_bits=wrong)
        with pytest.raises(ValueError, match="activation_bits must be an integer from 2 to 8"):
            verb(float_net, activation_bits=wrong)

    @pytest.mark.parametrize("bits", ["weight_bits", "activation_bits"])
    def test_a_recipe_and_bits(self, verb, bits, float_net):
        with pytest.raises(ValueError, match=f"Give a recipe or {bits}, not both"):
            verb(float_net, tfbinreg.Recipe(), **{bits: 8})

    def test_all_layers_are_listed_at_once(self, verb):
        net = sequential(
            layers.Conv2DTranspose(6, 3, dilation_rate=2, name="conv"),
            layers.UpSampling2D(interpolation="bicubic", name="up"),
        )
        with pytest.raises(ValueError) as caught:
            verb(net)
        first, *lines = str(caught.value).splitlines()
        assert first == "Cannot quantize model 'net':"
        assert [line.split(":")[0] for line in lines] == ["  - conv", "  - up", "  refused"]

    def test_wiring_and_rules_are_listed_at_once(self):
        net = sequential(layers.ReLU())
        recipe = Recipe(rules=[Rule(layer="haed", weight_bits=2)])
        with pytest.raises(ValueError, match=r"(?s)no layer has a kernel.*haed.*matches no layer"):
            tfbinreg.quantize_apply(net, recipe)
        assert len(tfbinreg.plan(net, recipe).problems) == 2

    def test_calibration_data_is_looked_at_first(self, float_net):
        for data, message in [([], "empty"), (3, "Expected an array"), (np.array([np.nan]), "NaN")]:
            with pytest.raises(ValueError, match=message):
                tfbinreg.quantize_apply(float_net, calibration_data=data)


@pytest.mark.parametrize("keras3", [False, True])
def test_axes_may_be_negative_or_not(keras3):
    """Channels last, and height and width, counted from either end."""
    kind = keras_3 if keras3 else keras
    mean = kind.ops.mean if keras3 else tf.reduce_mean

    def net(channels, sides):
        kind.utils.set_random_seed(0)
        image = kind.Input((6, 6, 3))
        x = kind.layers.Conv2D(4, 3, name="conv")(image)
        x = kind.layers.BatchNormalization(axis=channels, name="norm")(x)
        x = kind.layers.Concatenate(axis=channels, name="concat")([x, kind.layers.ReLU()(x)])
        x = kind.layers.Softmax(axis=channels, name="soft")(x)
        return kind.Model(image, mean(x, axis=sides), name="net")

    plans = [tfbinreg.plan(net(*axes)).rows() for axes in ((-1, (-3, -2)), (3, [1, 2]))]
    shown = ("kind", "weight_bits", "activation_bits", "grid", "parameters")
    first, second = ([[row[key] for key in shown] for row in rows] for rows in plans)
    assert first == second and len(first) > 6
    with pytest.raises(ValueError, match=r"norm.* work over the last axis"):
        tfbinreg.plan(net(-2, (1, 2)))


def test_a_relu_with_a_limit_of_its_own_is_refused_where_no_operator_contains_it():
    inputs = keras.Input((3,))
    x = keras.layers.Dense(3)(keras.layers.ReLU(1.5, name="limited")(inputs))
    with pytest.raises(ValueError, match=r"limited: ReLU up to 1\.5 that shares its grid"):
        tfbinreg.quantize_apply(keras.Model(inputs, x))


def test_refusals_have_the_names_of_keras_3_that_tf_keras_does_not_take():
    inputs = keras_3.Input((4,))
    x = keras_3.layers.Dense(3)(keras_3.layers.ReLU(1.5, name="gate ü")(inputs))
    model = keras_3.Model(inputs, x)
    with pytest.raises(ValueError, match="gate ü: ReLU up to 1"):
        tfbinreg.quantize_apply(model)
    (problem,) = tfbinreg.plan(model).problems
    assert problem.layer == "gate ü"
