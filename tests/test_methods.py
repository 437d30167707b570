"""The contract: what every method of the roster keeps, and one that a user brings."""

import dataclasses
import importlib
import json
import pathlib
import re
import sys

import numpy as np
import pytest
import reference
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import test_distribute
import tf_keras as keras
from quick import slow

import tfbinreg
from tfbinreg.deploy.freeze import freeze
from tfbinreg.layers.sites import activation_sites, kernel_sites
from tfbinreg.methods import roster
from tflite_tools.schema.codes import read_codes
from tflite_tools.schema.contents import load

ROOT = pathlib.Path(__file__).parents[1]
QUANTIZERS = [*roster.with_part("weights"), "tanh"]
PENALTIES = [*roster.with_part("penalty"), "tanh"]
UPDATES = roster.with_part("update")
SOLVERS = roster.with_part("fit")
# So fast that something happens in a few steps.
OPTIONS = {
    "freezing": {"momentum": 0.5, "first_threshold": 0.1, "last_threshold": 0.1, "begin": 0.0},
    "trs": {"rate": 0.5, "gain": 1.0},
    "mirror_descent": {"hard_from": 0.0},
    "gdrq": {"groups": 2, "alpha": "least_loss", "search_every": 3, "clip": "latent"},
}
KINDS = {
    "tensor": {},
    "channel": {"per_channel": True},
    "folded": {"fold_batch_norm": True},
}
# Options that make a quantizer another one; a head of three channels cannot have two groups.
VARIANTS = {
    "grouped": {
        "rules": (tfbinreg.Rule(layer="head", per_channel=True),),
        "options": {"gdrq": {**OPTIONS["gdrq"], "masked": True}},
    },
    "one_bit": {"first_last_bits": None, "rules": (tfbinreg.Rule(weight_bits=1),)},
    "mixed": {
        "fold_batch_norm": True,
        "rules": (
            tfbinreg.Rule(layer="conv", weight_bits=(0, 1, 3, 8)),
            tfbinreg.Rule(layer="depthwise", weight_bits=(2, 0, 1, 4)),
            tfbinreg.Rule(layer="head", weight_bits=(1, 8, 2)),
        ),
    },
    "coordinates": {
        "fold_batch_norm": True,
        "rules": (
            tfbinreg.Rule(layer="conv", weight_bits=(0, 1, 3, 2)),
            tfbinreg.Rule(layer="depthwise", weight_bits=(2, 0, 1, 4)),
            tfbinreg.Rule(layer="head", weight_bits=(1, 7, 2)),
        ),
    },
    # Ternary kernels of every kind, and few levels behind the ReLU.
    "ternary": {
        "activation_bits": 2,
        "first_last_bits": None,
        "rules": (tfbinreg.Rule(weight_bits=2),),
        "options": {"mirror_descent": {"hard_from": 0.0}},
    },
    "signs": {
        "first_last_bits": None,
        "fold_batch_norm": True,
        "rules": (tfbinreg.Rule(weight_bits=1),),
        "options": {"mirror_descent": {"hard_from": 0.0, "form": "softmax"}},
    },
    # A codebook for each channel of every kernel, some of them pruned.
    "pruned": {
        "first_last_bits": None,
        "options": {"alq": {"basis_epochs": 1, "coordinate_epochs": 0, "rounds": 1, "pruned": 0.4}},
    },
    "fixed": {"options": {"bsq": {"planes_until": 0.0}}},
    # Gates that are closed at inference and at times open in training.
    "bits": {
        "first_last_bits": None,
        "options": {"cpq": {"drop_bits": True, "strength": 0.1, "keep": 0.25}},
    },
    "channel_bits": {
        "activation_bits": 3,
        "first_last_bits": None,
        "fold_batch_norm": True,
        "options": {
            "cpq": {
                "drop_bits": True,
                "strength": 0.1,
                "keep": 0.25,
                "granularity": "channel",
                "backward": "multiclass_ste",
            }
        },
    },
}
# Variants of the others are quick.
QUICK = {("lsq", "folded"), ("tanh", "tensor")}
METHODS_AND_KINDS = [
    *(
        pytest.param((m, k), marks=() if (m, k) in QUICK else pytest.mark.slow)
        for m in (*QUANTIZERS, *UPDATES)
        for k in KINDS
        if k != "folded" or roster.folds(m)
    ),
    ("gdrq", "grouped"),
    ("tsq", "ternary"),
    pytest.param(("alq", "pruned"), marks=pytest.mark.slow),
    pytest.param(("alq", "coordinates"), marks=pytest.mark.slow),
    pytest.param(("alq", "one_bit"), marks=pytest.mark.slow),
    ("bsq", "fixed"),
    pytest.param(("cpq", "bits"), marks=pytest.mark.slow),
    ("cpq", "channel_bits"),
    pytest.param(("lsq", "one_bit"), marks=pytest.mark.slow),
    ("lsq", "mixed"),
    pytest.param(("mirror_descent", "ternary"), marks=pytest.mark.slow),
    pytest.param(("mirror_descent", "signs"), marks=pytest.mark.slow),
]
TWINS = {
    "lsq": reference.lsq,
    "tqt": reference.tqt,
    "gdrq": reference.gdrq,
    "tsq": reference.tsq,
    "cpq": reference.cpq,
    "mirror_descent": reference.mirror_tanh,
    "lapq": reference.least_power_step,
    "alq": reference.alq_coordinates,
    "bsq": reference.bit_planes,
    "bin_regularization": reference.bin_penalty,
    "msqe": reference.mean_squared_error,
    "freezing": reference.Freezing,
    "trs": reference.transition_rate,
    "dampening": reference.dampening,
    "kure": reference.kurtosis_error,
}


# One of each kind: a quantizer that learns, one with statistics, a penalty and an update.
FIRST = ["lsq", "gdrq", "bin_regularization", "freezing"]


def some(names):
    """Parameters of which only those in FIRST are quick."""
    return [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(scope="module", autouse=True)
def own_method():
    """The example's method, registered as its reader would."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        yield importlib.import_module("own_method").METHOD
    finally:
        sys.path.remove(str(ROOT / "examples"))


def data():
    random = np.random.default_rng(0)
    return random.normal(size=(32, 6, 6, 2)).astype(np.float32), random.integers(0, 3, 32)


def make(method, *, penalties=("bin_regularization",), **options):
    """A small net by a method, which may be an update, calibrated and compiled."""
    if method in UPDATES:
        options = {"updates": (method,), "options": OPTIONS, **options}
        method = "lsq"
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [
            layers.Input((6, 6, 2)),
            layers.Conv2D(4, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.DepthwiseConv2D(3, activation="swish", name="depthwise"),
            layers.Flatten(name="flat"),
            layers.Dense(3, name="head"),
        ],
        name="net",
    )
    recipe = tfbinreg.Recipe(weight_bits=3, method=method, penalties=penalties, **options)
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=data()[0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    if roster.find(method, "weights").fit is not None:
        tfbinreg.solve(model, data(), verbose=0)
    return model


def train(model, epochs=1, callbacks=()):
    fit = {"epochs": epochs, "shuffle": False, "verbose": 0, "callbacks": list(callbacks)}
    return model.fit(*data(), 16, **fit)


def same_weights(one, other):
    for mine, yours in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, yours)


@pytest.fixture(scope="module", params=METHODS_AND_KINDS, ids="-".join)
def trained(request, own_method):
    """(method, model), trained for an epoch."""
    method, kind = request.param
    model = make(method, **{**KINDS, **VARIANTS}[kind])
    train(model, 2 if kind == "pruned" else 1)  # which it is between epochs
    return method, model


def test_every_method_has_a_twin_and_is_named_in_the_docs():
    names = {*QUANTIZERS, *PENALTIES, *UPDATES, *SOLVERS} - {"tanh"}
    assert names == set(TWINS)
    table = (ROOT / "docs" / "methods.md").read_text()
    assert all(f"| `{name}` |" in table for name in names)


@pytest.mark.parametrize("name", dict.fromkeys([*QUANTIZERS, *PENALTIES, *UPDATES, *SOLVERS]))
def test_options_go_through_json(name, own_method):
    options = dataclasses.asdict(roster._methods[name].options())
    recipe = tfbinreg.Recipe(options={name: json.loads(json.dumps(options))})
    again = tfbinreg.Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert (
        roster._methods[name].read_options(again.options[name]) == roster._methods[name].options()
    )


def test_training_computes_the_values_of_the_settled_grid_at_the_codes(trained):
    _, model = trained
    for site in kernel_sites(model):
        latent = tf.convert_to_tensor(site.latent)
        learns_bits = getattr(site.quantizer, "learns_bits", False)
        # Training passes that drop levels at random are tried in test_cpq.py.
        quantized = site.quantizer(latent, not learns_bits, site.variables)
        np.testing.assert_array_equal(quantized, site.grid().values(site.codes()))
        now, settled = site.quantizer.grid_now(site.variables), site.grid()
        np.testing.assert_array_equal(now.scale, settled.scale)
        assert now.axis == settled.axis
        if site.method != "bsq" and not learns_bits:  # their codes take what is found of the bits
            assert (int(now.qmin), int(now.qmax)) == (settled.qmin, settled.qmax)
        np.testing.assert_array_equal(now.codes(quantized), site.codes())
        in_graph = tf.function(site.quantizer.codes_now)(latent, site.variables)
        np.testing.assert_array_equal(in_graph, site.codes())
        own_bits = now.broadcast_bits(len(latent.shape)) + tf.zeros_like(latent)
        assert float(tf.reduce_sum(own_bits)) == settled.code_bits(site.size)
        np.testing.assert_array_equal(settled.codes(quantized), site.codes())
    for site in activation_sites(model):
        now, settled = site.quantizer.grid_now(site.variables), site.grid()
        assert (float(now.scale), int(now.qmin), int(now.qmax)) == (
            settled.scale, settled.qmin, settled.qmax
        )  # fmt: skip


@pytest.mark.parametrize("suffix", [".keras", pytest.param(".h5", marks=pytest.mark.slow)])
def test_a_model_is_saved_loaded_and_resumed(trained, suffix, tmp_path):
    _, model = trained
    with pytest.warns(tfbinreg.QuantizationWarning, match="without having been finalized"):
        model.save(tmp_path / f"q{suffix}")
    again, once_more = (tfbinreg.load_model(tmp_path / f"q{suffix}") for _ in range(2))
    same_weights(again, model)
    images = data()[0]
    np.testing.assert_array_equal(again(images), model(images))
    train(again)
    train(once_more)
    same_weights(again, once_more)
    model.save_weights(tmp_path / "q.weights.h5")
    once_more.load_weights(tmp_path / "q.weights.h5")
    same_weights(once_more, model)


def test_the_file_holds_the_codes_and_computes_the_same(trained):
    method, model = trained
    tfbinreg.finalize(model, data()[0])
    file = tfbinreg.to_tflite(model)  # which compares outputs with LiteRT's
    codes = read_codes(file)
    for name, kernel in freeze(model).trained_kernels().items():
        np.testing.assert_array_equal(codes[name], kernel.codes)
    written = load(file).manifest
    assert method in (written.recipe["method"], *written.recipe["updates"])
    bits = {layer.name: layer.bits for layer in written.layers}
    for site in kernel_sites(model):
        assert bits[site.name] == site.grid().bits


def penalized(name):
    """A net with a penalty at rest: of LSQ's kernels, or of those it comes with."""
    if name in QUANTIZERS and roster.find(name, "penalty").strength is not None:
        return make(name, penalties=(), options={name: {"strength": 0.0}})
    return make("lsq", penalties=(name,))


@pytest.mark.parametrize("name", some(PENALTIES))
def test_a_penalty_rests_at_strength_0_and_acts_without_a_new_trace(name, own_method):
    plain, resting, acting = (penalized(name) for _ in range(3))
    train(plain, 2)
    rest = tfbinreg.PenaltySchedule(name, "two_stage", 1, strength=0.0)
    train(resting, 2, [rest])
    same_weights(plain, resting)
    train(acting, 1)
    traced = acting.train_function
    history = train(acting, 2, [tfbinreg.PenaltySchedule(name, "two_stage", 1, strength=0.5)])
    assert acting.train_function is traced
    assert history.history[f"{name}_strength"] == [0.0, 0.5]
    assert np.all(np.isfinite(history.history[f"{name}_loss"]))
    assert any(np.any(a != b) for a, b in zip(
        plain.get_weights(), acting.get_weights(), strict=True
    ))  # fmt: skip


@pytest.mark.parametrize("name", UPDATES)
def test_an_update_changes_what_is_trained_and_is_not_traced_again(name):
    plain, updated = make("lsq"), make(name)
    train(plain, 3)
    train(updated, 2)
    traced = updated.train_function
    train(updated)
    assert updated.train_function is traced
    assert any(np.any(a.numpy() != b.numpy()) for a, b in zip(
        plain.trainable_variables, updated.trainable_variables, strict=True
    ))  # fmt: skip


@pytest.mark.parametrize("method", some([*QUANTIZERS, *UPDATES]))
def test_mixed_precision(method, own_method):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = make(method)
        train(model)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    for site in kernel_sites(model):
        quantized = site.quantizer(tf.convert_to_tensor(site.latent), True, site.variables)
        np.testing.assert_array_equal(quantized, site.grid().values(site.codes()))


OTHERS = [n for n in dict.fromkeys([*QUANTIZERS, *PENALTIES, *UPDATES]) if n not in FIRST]


# test_distribute has LSQ with a penalty.
@pytest.mark.parametrize("names", slow(["gdrq", "freezing"], ["lsq", "bin_regularization"], OTHERS))
def test_two_replicas(names, tmp_path):
    test_distribute.finish(test_distribute.start("methods", tmp_path, *names))
    for name in names:
        alone = np.load(tmp_path / f"{name}-one.npz")
        test_distribute.check_equal(tmp_path / f"{name}-two.npz", alone)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cpq", {"keep": "0.9", "drop_bits": 1}, "keep must be a number, got '0.9'; drop_bits must "
         "be True or False, got 1"),
        ("cpq", {"width": "0.3"}, "width must be a number or None, got '0.3'"),
        ("trs", {"most_bits": True}, "most_bits must be a whole number, got True"),
        ("bsq", {"strength": True, "every": 1.5}, "strength must be a number, got True; every must "
         "be a whole number, got 1.5"),
        ("mirror_descent", {"form": 1}, "form must be a string, got 1"),
    ],
)  # fmt: skip
def test_options_of_another_type(name, options, message):
    with pytest.raises(ValueError, match=f"^Options of method '{name}': {re.escape(message)}"):
        tfbinreg.quantize_apply(
            keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)]),
            tfbinreg.Recipe(options={name: options}),
        )


def test_names_that_nobody_knows():
    with pytest.raises(
        ValueError, match=r"no method 'lqs' with weights: choose lsq or tqt or gdrq"
    ):
        make("lqs")
    with pytest.raises(ValueError, match=r"no method 'l2' with penalty: choose bin_regul"):
        make("lsq", penalties=("l2",))
    with pytest.raises(ValueError, match=r"'bsq' comes with the kernels of method 'bsq'"):
        make("lsq", penalties=("bsq",))
    with pytest.raises(ValueError, match=r"no method 'msqe' with update: choose freezing or trs"):
        make("lsq", updates=("msqe",))
    with pytest.raises(ValueError, match=r"options are given for 'brr'"):
        make("lsq", options={"brr": {}})
    with pytest.raises(ValueError, match=r"has no penalty 'msqe', only bin_regularization"):
        make("lsq").penalty("msqe")


def test_a_name_is_given_once(own_method):
    tfbinreg.register_method(own_method)  # again is no harm
    with pytest.raises(ValueError, match="method 'tanh' already"):
        tfbinreg.register_method(dataclasses.replace(own_method, penalty=None))
    with pytest.raises(TypeError, match="A Method is expected, got str"):
        tfbinreg.register_method("tanh")


def test_a_rule_gives_a_layer_another_method():
    rules = (tfbinreg.Rule(layer="head", method="tqt"),)
    model = make("lsq", rules=rules)
    kinds = {site.name: type(site.quantizer).__name__ for site in kernel_sites(model)}
    assert kinds["head"] == "TQTWeightQuantizer" and kinds["conv"] == "LSQWeightQuantizer"
    scale = float(model.get_layer("head_grid").quantizer.grid_now(
        model.get_layer("head_grid").grid_variables
    ).scale)  # fmt: skip
    assert np.log2(scale) == round(np.log2(scale))


def test_an_annotated_layer_keeps_its_method():
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    config = tfbinreg.LSQQuantizeConfig(4, method="tqt")
    layers = keras.layers
    net = keras.Sequential(
        [layers.Input((4,)), annotate(layers.Dense(3, name="head"), config)], name="net"
    )
    (site,) = kernel_sites(tfbinreg.quantize_apply(net))
    assert type(site.quantizer).__name__ == "TQTWeightQuantizer"
    assert type(config).from_config(config.get_config()) == config
    assert config != tfbinreg.LSQQuantizeConfig(4)


def test_tensors_on_one_grid_have_one_method():
    layers = keras.layers
    image = keras.Input((4, 4, 2), name="image")
    parts = [layers.Conv2D(2, 1, activation="relu", name=name)(image) for name in ("a", "b")]
    x = layers.Flatten()(layers.Concatenate(name="joined")(parts))
    net = keras.Model(image, layers.Dense(2, name="head")(x))
    recipe = tfbinreg.Recipe(rules=[tfbinreg.Rule(layer="b", method="tqt")])
    with pytest.raises(ValueError, match=r"shares its grid with .* of other methods \(lsq, tqt\)"):
        tfbinreg.quantize_apply(net, recipe)
