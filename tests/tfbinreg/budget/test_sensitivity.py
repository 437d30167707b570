import dataclasses

import grid_methods
import numpy as np
import pytest
from quick import combinations

import tfbinreg
from tfbinreg import Recipe, Rule, recipes
from tfbinreg.budget import flash_budget
from tfbinreg.budget.sensitivity import WIDTHS, at_width, sensitivities
from tfbinreg.core.grid import weight_code_range
from tfbinreg.layers.sites import kernel_sites

RECIPES = {
    "per tensor": Recipe(first_last_bits=None),
    "per channel": Recipe(first_last_bits=None, per_channel=True),
    "folded": recipes.hardware_friendly(8),
    "folded, per channel": dataclasses.replace(recipes.hardware_friendly(8), per_channel=True),
}


def rounded(kernel, step, bits):
    qmin, qmax = weight_code_range(bits)
    return step * np.clip(np.floor(kernel / step + 0.5), qmin, qmax)


def test_every_kernel_is_measured_at_every_width(float_net, images):
    recipe = Recipe(rules=[Rule(layer="head", weight_bits=5)])
    found = {part.layer: part for part in sensitivities(float_net, images, recipe=recipe)}
    assert list(found) == ["conv", "depthwise", "pointwise", "head"]
    assert (found["conv"].parameters, found["conv"].channels) == (3 * 3 * 3 * 4, 4)
    assert set(found["conv"].moved) == set(WIDTHS)
    assert (found["head"].moved, found["head"].fixed) == ({5: 0.0}, True)


@combinations(
    lambda kind, layer: (layer == "conv") == (kind in ("per tensor", "folded")),
    kind=RECIPES,
    layer=["conv", "depthwise"],
)
def test_what_is_measured_is_what_a_model_of_these_bits_computes(float_net, images, kind, layer):
    eight = dataclasses.replace(RECIPES[kind], weight_bits=8)
    two = dataclasses.replace(eight, rules=(Rule(layer=layer, weight_bits=2),))
    model, coarse = (
        tfbinreg.quantize_apply(float_net, own, calibration_data=images) for own in (eight, two)
    )
    for site in kernel_sites(model):
        site.quantizer.initialize(site.variables, site.latent.numpy(), "mse")
    coarse.set_weights(model.get_weights())
    (site,) = (site for site in kernel_sites(coarse) if site.name == layer)
    site.quantizer.initialize(site.variables, site.latent.numpy(), "mse")
    expected, outputs = model(images).numpy(), coarse(images).numpy()
    moved = np.mean((outputs - expected) ** 2) / np.var(expected - expected.mean(axis=0))
    (found,) = (
        s for s in sensitivities(float_net, images, recipe=RECIPES[kind]) if s.layer == layer
    )
    assert found.moved[2] == pytest.approx(moved, rel=1e-3)
    assert moved > 1e-3


def test_an_interruption_leaves_everything_as_it_was(float_net, images):
    model = tfbinreg.quantize_apply(float_net, Recipe(per_channel=True), calibration_data=images)
    before, outputs = model.get_weights(), model(images).numpy()
    site = kernel_sites(model)[1]
    with pytest.raises(KeyboardInterrupt), at_width(site, 2):
        assert np.any(model(images).numpy() != outputs)
        raise KeyboardInterrupt
    assert kernel_sites(model)[1].quantizer is site.quantizer
    np.testing.assert_array_equal(model(images), outputs)
    for own, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(own, value)


def test_grids_with_bits_of_their_own_take_their_own_bytes(float_net, images):
    tfbinreg.register_method(grid_methods.METHOD)
    options = {"straight_through": {"kind": "channels"}}
    rules = (tfbinreg.Rule(layer="head", method="straight_through", weight_bits=4),)
    recipe = tfbinreg.Recipe(rules=rules, options=options, per_channel=True)
    measured = {layer.layer: layer for layer in sensitivities(float_net, images, recipe=recipe)}
    head = measured["head"]
    own = grid_methods.channel_bits(head.channels, 4)
    assert head.code_bits == {4: head.parameters // head.channels * sum(own)}
    assert measured["conv"].code_bits == {}
    least = flash_budget.least_bytes([head])
    assert least == -(-head.code_bits[4] // 8) + 6 * head.channels


def test_a_width_that_changes_nothing_costs_nothing(float_net, images):
    tfbinreg.register_method(grid_methods.METHOD)
    options = {"straight_through": {"kind": "sign"}}
    recipe = tfbinreg.Recipe(method="straight_through", options=options)
    for layer in sensitivities(float_net, images, recipe=recipe):
        assert layer.code_bits == dict.fromkeys(WIDTHS, layer.parameters)
        assert set(layer.moved) == set(WIDTHS) and max(layer.moved.values()) < 1e-9


def test_bits_that_a_rule_gives_channels_are_kept(float_net, images):
    rules = [Rule(layer="head", weight_bits=(2, 0, 4)), Rule(layer="depthwise", weight_bits=0)]
    found = {s.layer: s for s in sensitivities(float_net, images, recipe=Recipe(rules=rules))}
    head, depthwise = found["head"], found["depthwise"]
    assert head.fixed and head.moved == {4: 0.0} and head.code_bits == {4: head.parameters * 2}
    assert depthwise.fixed and depthwise.moved == {0: 0.0}
    assert flash_budget.least_bytes([depthwise]) == 6 * depthwise.channels
    budget = flash_budget.choose(tuple(found.values()), 10_000, recipe=Recipe(rules=rules))
    assert budget.recipe.rules[:2] == tuple(rules)
