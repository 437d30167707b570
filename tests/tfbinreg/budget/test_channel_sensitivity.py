"""What gradients tell of channels against what a model of these bits computes."""

import dataclasses

import numpy as np
import pytest

import tfbinreg
from tfbinreg import Recipe, Rule
from tfbinreg.budget.channel_sensitivity import CHANNEL_WIDTHS, channel_sensitivities
from tfbinreg.core.weight_starts import start_step_of_bits
from tfbinreg.layers.sites import kernel_sites

RECIPES = {
    "plain": Recipe(float_activations=True),
    "folded": Recipe(float_activations=True, fold_batch_norm=True),
}


def test_every_channel_is_estimated_at_every_width(float_net, images):
    recipe = Recipe(rules=[Rule(layer="head", weight_bits=5)])
    found = {part.layer: part for part in channel_sensitivities(float_net, images, recipe=recipe)}
    assert list(found) == ["conv", "depthwise", "pointwise", "head"]
    conv = found["conv"]
    assert (conv.parameters, conv.channels, conv.outputs, conv.fixed) == (3 * 3 * 3 * 4, 4, 4, None)
    assert set(conv.moved) == set(CHANNEL_WIDTHS)
    assert all(moved.shape == (4,) and np.all(moved >= 0.0) for moved in conv.moved.values())
    assert found["head"].fixed == 5
    sums = [np.sum(conv.moved[width]) for width in (8, 4, 3, 2, 1)]
    assert sums == sorted(sums)


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("layer", ["conv", "depthwise"])
def test_small_changes_are_estimated_right(float_net, images, kind, layer):
    """4 bits for one channel, everything else at 8, activations float."""
    recipe, width, channel = RECIPES[kind], 4, 1
    eight = dataclasses.replace(recipe, weight_bits=8, first_last_bits=None, per_channel=True)
    model = tfbinreg.quantize_apply(float_net, eight, calibration_data=images)
    expected = model(images).numpy()
    (site,) = (site for site in kernel_sites(model) if site.name == layer)
    latent = np.asarray(site.latent)
    axis = site.quantizer.axis % latent.ndim
    rows = np.moveaxis(latent.copy(), axis, 0)
    step = start_step_of_bits(rows[channel : channel + 1], width, 0, how="mse")
    rows[channel] = step * np.clip(np.floor(rows[channel] / step + 0.5), -8, 7)
    changed = np.moveaxis(rows, 0, axis)
    factor = np.broadcast_to(np.asarray(site.layer.latent_factor()), latent.shape)
    site.kernel.assign(changed / factor)
    moved = np.mean((model(images).numpy() - expected) ** 2)
    moved /= np.var(expected - expected.mean(axis=0))
    (found,) = (
        own
        for own in channel_sensitivities(float_net, images, recipe=recipe, projections=100)
        if own.layer == layer
    )
    assert found.moved[width][channel] == pytest.approx(moved, rel=0.35)
