import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tfbinreg
from tfbinreg import Recipe, Rule
from tfbinreg.budget.flash_budget import _cheapest, fit_flash_budget
from tfbinreg.budget.sensitivity import WIDTHS
from tfbinreg.layers.sites import kernel_sites


def weights_at(net, bits):
    """Bytes of `net` with all kernels at `bits`."""
    recipe = Recipe(rules=[Rule(weight_bits=bits)])
    return fit_flash_budget(
        net, 10**6, np.random.default_rng(0).random((16, 8, 8, 3), np.float32), recipe=recipe
    ).bytes


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_the_choice_fits_and_the_recipe_makes_it(float_net, images, share):
    least, most = weights_at(float_net, 2), weights_at(float_net, 8)
    limit = round(least + share * (most - least))
    budget = fit_flash_budget(float_net, limit, images)
    assert budget.bytes <= limit
    below_eight = {choice.layer for choice in budget.layers if choice.bits < 8}
    assert set(budget.squeezed) == below_eight
    assert bool(below_eight) == (share < 1.0)
    model = tfbinreg.quantize_apply(float_net, budget.recipe, calibration_data=images)
    bits = {site.name: site.quantizer.bits for site in kernel_sites(model)}
    assert bits == {choice.layer: choice.bits for choice in budget.layers}
    if share in (0.0, 1.0):
        assert set(bits.values()) == {8 if share else 2}
    assert str(budget).splitlines()[-1] == f"{budget.bytes} of {limit} bytes, estimated"


def test_more_bits_move_the_outputs_less(float_net, images):
    for choice in fit_flash_budget(float_net, 10**6, images).layers:
        moved = [choice.sensitivity[width] for width in WIDTHS]
        assert moved[0] > moved[2] > moved[3] == 0.0


def test_the_model_is_left_alone(float_net, images):
    before = float_net.get_weights()
    fit_flash_budget(float_net, 10**6, images)
    for own, value in zip(float_net.get_weights(), before, strict=True):
        np.testing.assert_array_equal(own, value)


def test_rules_for_weight_bits_stand(float_net, images, tmp_path):
    recipe = Recipe(activation_bits=4, rules=[Rule(layer="head", weight_bits=5)])
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    limit = weights_at(float_net, 4)
    budget = fit_flash_budget(float_net, limit, images, recipe=recipe)
    as_data = {"activation_bits": 4, "rules": [{"layer": "head", "weight_bits": 5}]}
    for form in (as_data, tmp_path / "recipe.json"):
        assert fit_flash_budget(float_net, limit, images, recipe=form) == budget
    (head,) = (choice for choice in budget.layers if choice.layer == "head")
    assert (head.bits, head.fixed) == (5, True)
    assert "head" not in budget.squeezed and budget.recipe.activation_bits == 4
    assert "5 (rule)" in str(budget)


def test_what_cannot_fit_is_refused_with_the_largest_layers(float_net, images):
    least = weights_at(float_net, 2)
    fit_flash_budget(float_net, least, images)
    with pytest.raises(ValueError, match=rf"{least - 1} bytes are not enough.*need {least}.*conv"):
        fit_flash_budget(float_net, least - 1, images)


OPTION = st.tuples(st.sampled_from(WIDTHS), st.integers(0, 50), st.floats(0.0, 10.0))
LAYERS = st.lists(st.lists(OPTION, min_size=1, max_size=4), min_size=1, max_size=5)


@given(LAYERS, st.integers(0, 60))
def test_the_choice_is_the_cheapest_that_fits(layers, slack):
    limit = sum(min(size for _, size, _ in options) for options in layers) + slack
    every = [
        (sum(cost for _, _, cost in chosen), sum(size for _, size, _ in chosen))
        for chosen in itertools.product(*layers)
    ]
    best = min(cost for cost, size in every if size <= limit)
    bits = _cheapest(layers, limit)
    # Several options of a layer may have the same width: the cheapest reading counts.
    readings = itertools.product(
        *(
            [o for o in options if o[0] == width]
            for options, width in zip(layers, bits, strict=True)
        )
    )
    assert any(
        sum(o[1] for o in chosen) <= limit
        and sum(o[2] for o in chosen) == pytest.approx(best, abs=1e-9)
        for chosen in readings
    )
