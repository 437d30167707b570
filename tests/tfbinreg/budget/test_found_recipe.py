"""Training anew at the bits that a method has found."""

import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg import Rule
from tfbinreg.layers.sites import kernel_sites

IMAGES = np.random.default_rng(0).uniform(size=(64, 8, 8, 3)).astype(np.float32)


def net():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(6, 3, activation="relu", name="first"),
            layers.DepthwiseConv2D(3, activation="relu", name="second"),
            layers.Conv2D(5, 1, activation="relu", name="third.1"),
            layers.Flatten(),
            layers.Dense(4, name="head"),
        ]
    )


def quantized(recipe):
    return tfbinreg.quantize_apply(net(), recipe, calibration_data=IMAGES)


def bits_of(model):
    return {name: coded.bits for name, coded in tfbinreg.integer_codes(model).items()}


def test_planes_that_were_found_become_rules():
    model = quantized(tfbinreg.Recipe(method="bsq", weight_bits=8, first_last_bits=None))
    for site, count in zip(kernel_sites(model), (7, 2, 2, 1), strict=True):
        site.variables["count"].assign(count)
    recipe = tfbinreg.found_recipe(model)
    assert recipe.method == "lsq"
    assert [(rule.layer, rule.weight_bits) for rule in recipe.rules] == [
        ("head", 2),
        (r"second|third\.1", 3),
        ("first", 8),
    ]
    assert recipe == tfbinreg.Recipe.from_json(recipe.to_json())
    assert bits_of(quantized(recipe)) == {"first": 8, "second": 3, "third.1": 3, "head": 2}


def test_gates_of_channels_become_a_rule_for_each_kernel():
    options = {"cpq": {"drop_bits": True, "strength": 0.1, "granularity": "channel"}}
    model = quantized(tfbinreg.Recipe(method="cpq", weight_bits=4, options=options))
    gates = kernel_sites(model)[2].variables["gates"]
    gates.assign(np.where(np.arange(5) % 2, 9.0, -9.0) * np.ones(gates.shape))
    recipe = tfbinreg.found_recipe(model)
    found = recipe.settings(("third.1", "Conv2D")).weight_bits
    assert found == (2, 4, 2, 4, 2)
    again = kernel_sites(quantized(recipe))[2].grid()
    assert again.channel_bits == found == kernel_sites(model)[2].grid().channel_bits


def test_rules_stay_but_for_their_method():
    rules = (Rule(layer="second", method="bsq", activation_bits=4), Rule(layer="head", skip=True))
    recipe = tfbinreg.found_recipe(quantized(tfbinreg.Recipe(rules=rules)))
    assert recipe.rules[:2] == (Rule(layer="second", activation_bits=4), rules[1])
    settings = recipe.settings(("second", "DepthwiseConv2D"))
    assert (settings.method, settings.activation_bits, settings.weight_bits) == ("lsq", 4, 4)
    assert "head" not in "".join(rule.layer for rule in recipe.rules[2:])


def test_a_float_model_has_no_bits():
    with pytest.raises(ValueError, match="quantize_apply"):
        tfbinreg.found_recipe(net())
