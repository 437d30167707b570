"""tfmot's own verbs with our scheme, all the way to a verified file."""

import dataclasses

import numpy as np
import pytest
import tensorflow_model_optimization as tfmot
import tf_keras as keras

import tfbinreg
from tfbinreg import BinOptions, LSQQuantizeConfig, LSQQuantizeScheme, Recipe, Rule, recipes
from tfbinreg.layers.folded_kernel import FoldedKernel
from tfbinreg.training.tfmot_scheme import LSQQuantizeRegistry
from tflite_tools import read_codes
from tflite_tools.checks.trained_model import verify
from tflite_tools.checks.verdict import Verdict
from tflite_tools.from_keras import convert
from tflite_tools.schema.contents import load

layers = keras.layers


def test_registry_knows_kernels_that_are_not_placed():
    head = {"weight_bits": 6, "activation_bits": 5, "learned_offset": False, "bin_weight": 2.0}
    recipe = Recipe(weight_bits=3, rules=[Rule(layer="head", **head), Rule(layer="f.*", skip=True)])
    registry = LSQQuantizeRegistry(recipe, {"done"})
    config = registry.get_quantize_config(layers.Dense(3, name="head"))
    assert config == LSQQuantizeConfig(**head, per_channel=False, method="lsq")
    assert registry.supports(layers.Dense(3, name="hidden"))
    others = layers.Dense(3, name="free"), layers.ReLU(name="relu"), layers.LSTM(3)
    for layer in (layers.Dense(3, name="done"), *others):
        assert not registry.supports(layer)
        with pytest.raises(ValueError, match=f"'{layer.name}' .* has no LSQ config"):
            registry.get_quantize_config(layer)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(3)
    return random.normal(size=(48, 8, 8, 3)).astype(np.float32), random.integers(0, 3, 48)


def quantized(model, recipe=None, **options):
    annotated = tfmot.quantization.keras.quantize_annotate_model(model)
    return tfmot.quantization.keras.quantize_apply(annotated, LSQQuantizeScheme(recipe, **options))


def fit(model, data, *callbacks):
    model.compile(keras.optimizers.SGD(0.01, 0.9), "sparse_categorical_crossentropy")
    model.fit(*data, 16, verbose=0, shuffle=False, callbacks=list(callbacks))


def trained(model, data, *callbacks):
    fit(model, data, *callbacks)
    tfbinreg.finalize(model, data[0])
    return model


def verified(model, path, images):
    """Save the model, convert it and ask `verify` about the file."""
    model.save(path)
    file = tfbinreg.to_tflite(model)
    inputs = {model.input_names[0]: images}
    report = verify(load(file), reference=convert.reference(path, inputs), inputs=inputs)
    codes = read_codes(file)
    for name, coded in tfbinreg.integer_codes(model).items():
        np.testing.assert_array_equal(codes[name], coded.codes)
    return report.passed and report["agreement"].verdict is Verdict.PASSED


RECIPES = {
    "default": None,
    "paper": recipes.paper(2),
    "hardware_friendly": recipes.hardware_friendly(4),
    "int4": Recipe(stored_bits=4),
}


@pytest.mark.parametrize("recipe", [
    pytest.param(recipe, id=name, marks=[pytest.mark.slow] if name != "hardware_friendly" else [])
    for name, recipe in RECIPES.items()
])  # fmt: skip
def test_goes_all_the_way_to_a_verified_file(recipe, make_net, data, tmp_path):
    with pytest.warns(DeprecationWarning, match="give them in the recipe"):
        model = quantized(make_net(), recipe, bin_options=BinOptions(detach_step=False))
    assert type(model) is tfbinreg.QuantizedModel
    options = dataclasses.asdict(BinOptions(detach_step=False))
    assert model.recipe == (recipe or Recipe()).with_options("bin_regularization", **options)
    trained(model, data, tfbinreg.BinRegularization("joint"))
    assert verified(model, tmp_path / "q.keras", data[0])


@pytest.mark.slow
def test_folded_kernels_know_the_grid_of_their_inputs(make_net, data, tmp_path):
    model = quantized(make_net(), recipes.hardware_friendly(4))
    fit(model, data)
    model.save(tmp_path / "q.keras")
    with tfbinreg.quantize_scope():
        loaded = keras.models.load_model(tmp_path / "q.keras")
    for own in (model, loaded):
        kernels = [layer for layer in own.layers if isinstance(layer, FoldedKernel)]
        assert len(kernels) == 4
        for layer in kernels:
            offset = layer.fold().offset
            rounded = layer._quantized_bias(offset).numpy()
            assert np.any(rounded != offset.numpy())  # 8 bits
            bias = layer._bias_codes(offset)
            assert np.abs(bias.codes).max() <= 127 and int(bias.shift) >= 0


@pytest.mark.parametrize("name", ["q.keras", pytest.param("folder", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_saved_and_loaded_with_keras_it_trains_on_and_converts(name, make_net, data, tmp_path):
    model = quantized(make_net(), Recipe(weight_bits=3, per_channel=True))
    trained(model, data).save(tmp_path / name)
    with tfbinreg.quantize_scope():
        loaded = keras.models.load_model(tmp_path / name)
    assert loaded.recipe == model.recipe
    np.testing.assert_array_equal(loaded(data[0]), model(data[0]))
    assert tfbinreg.to_tflite(loaded) == tfbinreg.to_tflite(model)
    loaded = tfbinreg.load_model(tmp_path / name)
    assert verified(trained(loaded, data), tmp_path / "again.keras", data[0])


@pytest.mark.slow
def test_annotated_layer_by_layer(data, tmp_path):
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            layers.Input((8, 8, 3), name="image"),
            annotate(layers.Conv2D(4, 3, activation="relu", name="conv"), LSQQuantizeConfig(2, 4)),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flat"),
            annotate(layers.Dense(3, name="head"), LSQQuantizeConfig(4, bin_weight=0.5)),
            layers.Softmax(name="classes"),
        ]
    )
    scheme = LSQQuantizeScheme(dataclasses.replace(Recipe(), weight_bits=8))
    q_model = trained(tfmot.quantization.keras.quantize_apply(model, scheme), data)
    bits = {name: coded.bits for name, coded in tfbinreg.integer_codes(q_model).items()}
    assert bits == {"conv": 2, "head": 4}
    assert verified(q_model, tmp_path / "q.keras", data[0])


def test_skipped_layers_stay_float_and_are_named_when_converting(make_net, data):
    model = quantized(make_net(), Recipe(rules=[Rule(layer="depthwise.*", skip=True)]))
    assert type(model.get_layer("depthwise")) is layers.DepthwiseConv2D
    fit(model, data)
    with pytest.raises(ValueError, match="depthwise: is not quantized"):
        tfbinreg.to_tflite(model)


@pytest.mark.slow
def test_the_recipe_comes_in_any_form(make_net, tmp_path):
    recipe = Recipe(weight_bits=3, rules=[Rule(layer="head", weight_bits=5)])
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    for given in (dataclasses.asdict(recipe), str(tmp_path / "recipe.json")):
        assert quantized(make_net(), given).recipe == recipe
