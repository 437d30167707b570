import contextlib

import numpy as np
import pytest

import tfbinreg
from tfbinreg import Recipe, Rule
from tfbinreg.budget import flash_budget
from tfbinreg.budget.channel_sensitivity import channel_sensitivities
from tfbinreg.budget.flash_budget import choose_channels, fit_flash_budget
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


@pytest.mark.parametrize("verbose", [0, 1])
@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_progress_is_shown_if_wanted(float_net, images, granularity, verbose, monkeypatch):
    told = []

    @contextlib.contextmanager
    def progress(*, enabled):
        yield lambda share, text: told.append((share, text)) if enabled else None

    monkeypatch.setattr(flash_budget, "progress", progress)
    fit_flash_budget(float_net, 10**6, images, granularity=granularity, verbose=verbose)
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and len(told) == len(dict(told)) and bool(told) == bool(verbose)
    assert all(0.0 <= share < 1.0 for share in shares)


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


def channel_bytes(choice, outputs, channels):
    """Bytes of a choice, counted by hand: codes, and six bytes for each output that is left."""
    bits = choice.bits if isinstance(choice.bits, tuple) else (choice.bits,) * channels
    codes = sum(bits) * choice.parameters / channels / 8
    return int(np.ceil(codes + 6 * outputs / channels * np.count_nonzero(bits)))


@pytest.mark.parametrize("share", [0.15, 0.4, 0.8])
def test_channels_have_bits_of_their_own(float_net, images, share):
    limit = round(share * weights_at(float_net, 8))
    budget = fit_flash_budget(float_net, limit, images, granularity="channel")
    assert 0.9 * limit < budget.bytes <= limit
    model = tfbinreg.quantize_apply(float_net, budget.recipe, calibration_data=images)
    sites = {site.name: site for site in kernel_sites(model)}
    for choice in budget.layers:
        site = sites[choice.layer]
        grid = site.grid()
        assert (grid.channel_bits or (grid.bits,) * grid.scale.size) == choice.bits
        assert choice.bytes == channel_bytes(choice, site.layer.channels, grid.scale.size)
        assert any(choice.bits)  # each kernel keeps a channel
        assert (choice.layer in budget.squeezed) == (min(choice.bits) < 8)
    assert str(budget).splitlines()[-1] == f"{budget.bytes} of {limit} bytes, estimated"


def test_channels_move_the_outputs_no_more_than_kernels_of_as_many_bytes(float_net, images):
    """By the same estimates: a uniform choice is one of those that channels have."""
    by_layer = fit_flash_budget(float_net, weights_at(float_net, 3), images)
    measured = channel_sensitivities(float_net, images)
    budget = choose_channels(measured, by_layer.bytes + len(measured))
    bits = {choice.layer: choice.bits for choice in by_layer.layers}
    uniform = sum(float(np.sum(own.moved[bits[own.layer]])) for own in measured)
    assert budget.moved <= uniform


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_the_widths_to_choose_from(float_net, images, granularity):
    limit = weights_at(float_net, 1) + 20
    budget = fit_flash_budget(float_net, limit, images, granularity=granularity, widths=(8, 1))
    assert budget.bytes <= limit
    assert all(set(np.ravel(choice.bits)) <= {1, 8} for choice in budget.layers)


def test_rules_stand_for_channels_too(float_net, images):
    own = (0, 2, 8, 1)
    rules = [Rule(layer="head", weight_bits=5), Rule(layer="conv", weight_bits=own)]
    limit = weights_at(float_net, 4)
    recipe = Recipe(rules=rules)
    budget = fit_flash_budget(float_net, limit, images, recipe=recipe, granularity="channel")
    choices = {choice.layer: choice for choice in budget.layers}
    assert (choices["head"].bits, choices["conv"].bits) == (5, own)
    assert choices["conv"].fixed and "0-8, 1 pruned (rule)" in str(budget)
    assert budget.recipe.rules[:2] == recipe.rules


def test_too_few_bytes_for_channels_and_no_such_granularity(float_net, images):
    with pytest.raises(ValueError, match=r"^20 bytes are not enough: with all channels pruned but"):
        fit_flash_budget(float_net, 20, images, granularity="channel")
    with pytest.raises(ValueError, match=r"widths must be an integer from 1 to 8, got 0"):
        fit_flash_budget(float_net, 40, images, widths=(0, 2))
    with pytest.raises(ValueError, match=r"granularity must be 'layer' or 'channel', got 'filter'"):
        fit_flash_budget(float_net, 40, images, granularity="filter")
