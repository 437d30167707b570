"""The recipe with the bits that a training has found."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfbinreg.budget.choices import bit_rules
from tfbinreg.core.recipe import Recipe
from tfbinreg.layers.sites import kernel_sites, require_quantized
from tfbinreg.methods.lsq import LSQ


def found_recipe(model: Any, *, method: str = LSQ.name) -> Recipe:
    """The recipe that gives every kernel the bits that a method has found for it in `model`.

    Use it to train the float model again at these bits, with a method that keeps them:

        recipe = tfbinreg.found_recipe(q_model)
        again = tfbinreg.quantize_apply(model, recipe, calibration_data=images)

    Args:
        model: a model from `quantize_apply`, trained with a method that learns bits.
        method: name of the method for all layers, including those for which a rule named another.

    Returns:
        The model's recipe with `method`, and after its rules one rule for each width and one for
        each kernel whose channels differ.

    Raises:
        ValueError: if the model is not quantized, or a kernel has no grid.
    """
    require_quantized(model)
    bits = {}
    for site in kernel_sites(model):
        grid = site.grid()
        bits[site.name] = grid.bits if grid.channel_bits is None else tuple(grid.channel_bits)
    rules = [dataclasses.replace(rule, method=None) for rule in model.recipe.rules]
    return dataclasses.replace(model.recipe, method=method, rules=(*rules, *bit_rules(bits)))
