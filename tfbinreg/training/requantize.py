"""`requantize`: continue a quantized model at other bits."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.problems import raise_problems
from tfbinreg.core.recipe import Recipe, RecipeData
from tfbinreg.layers.folded_kernel import FoldedKernel
from tfbinreg.layers.sites import Site, sites
from tfbinreg.methods.roster import check_methods
from tfbinreg.network.graph import trace
from tfbinreg.planning.decide import decide
from tfbinreg.training.assemble import place
from tfbinreg.training.calibrate import calibrate
from tfbinreg.training.distillation import distill
from tfbinreg.training.lost_numbers import coarse_numbers, warn_coarse
from tfbinreg.training.model import QuantizedModel
from tfbinreg.training.quantize import given_recipe, with_samples
from tfbinreg.training.strip import strip_quantization


def requantize(
    model: QuantizedModel,
    recipe: RecipeData = None,
    *,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    calibration_data: Any = None,
) -> QuantizedModel:
    """Make a model that continues from a quantized model at other bits: 8 -> 4 -> 3 -> 2.

    Weights, biases and normalizations are those of `model`, which is not changed. Grids that are
    the same in both recipes are kept: at equal bits the result computes the same. All other grids
    start again. Those of kernels start from the current weights (`Recipe.weight_start`). Those of
    activations start from the learned range (step_new * qmax_new = step_old * qmax_old) or from
    `calibration_data`, which works better where few levels are left. If the model was compiled, the
    result is compiled too. Its optimizer continues with the same step count and with the moments of
    all variables that continue. The teacher (`distill`) and the strengths of the penalties are
    kept. A learning rate that has decayed to zero stays at zero: compile again for another
    schedule. The effect of `finalize` ends.

    Args:
        model: from `quantize_apply` or `load_model`, trained or not.
        recipe: as for `quantize_apply`; None for the model's own recipe with the bits below. It
            applies to annotated layers too.
        weight_bits: replaces the bits in the model's own recipe, like the next argument.
        activation_bits: bits of the unsigned activations.
        calibration_data: as for `quantize_apply`: activation grids start from it, and batch
            normalization's moving statistics are set to those at the new bits.

    Returns:
        A new `QuantizedModel`.

    Raises:
        ValueError: if `model` is not a `QuantizedModel`, both a recipe and bits are given, the
            calibration data does not fit, a trained step is not finite, or layers have problems;
            the message lists all of them.
    """
    if not isinstance(model, QuantizedModel):
        raise ValueError("requantize needs a model from tfbinreg.quantize_apply.")
    recipe = _next_recipe(model, recipe, weight_bits, activation_bits)
    check_methods(recipe)
    recipe, batches = with_samples(model, recipe, calibration_data)
    with model.distribute_strategy.scope():
        plain = strip_quantization(model)
        plan = decide(trace(plain), recipe)
        raise_problems(plan.problems, f"requantize model {model.name!r}")
        result: QuantizedModel = place(plan, QuantizedModel, recipe)
        result.describe(recipe)
        changed = _take_over(model, result)
        if batches is not None:
            calibrate(result, batches)
            warn_coarse(coarse_numbers(plan, plain, batches))
            changed = result.step_variables
        if getattr(model, "compiled_loss", None) is not None:
            result.compile(**_compat.compile_arguments(model))
            _compat.continue_optimizer(result, model, changed)
    result.float_model = model.float_model
    if model.distillation is not None:
        distill(result, **model.distillation.arguments())
    return result


def _next_recipe(
    model: QuantizedModel,
    recipe: RecipeData,
    weight_bits: int | None,
    activation_bits: int | None,
) -> Recipe:
    own = given_recipe(recipe, weight_bits, activation_bits, base=model.recipe)
    if own.unsigned_input is None:
        return dataclasses.replace(own, unsigned_input=model.recipe.unsigned_input)
    return own


def _take_over(old: QuantizedModel, new: QuantizedModel) -> list[tf.Variable]:
    """Copy to `new` the grids, strengths and states of `old` that it can continue with; returns the
    learned variables for which this is not possible.
    """
    former = {site.name: site for site in sites(old)}
    changed: list[tf.Variable] = []
    same: set[str] = set()
    for site in sites(new):
        before = former.get(site.name)
        if before is not None and before.quantizer == site.quantizer:
            same.add(site.name)
            _copy(before.variables, site.variables)
            continue
        changed += site.learned
        if before is not None and site.kernel is None:
            _keep_range(before, site)
    folded = {layer.name: layer for layer in old.layers if isinstance(layer, FoldedKernel)}
    for layer in new.layers:
        if isinstance(layer, FoldedKernel) and layer.name in folded:
            layer.statistics_frozen.assign(folded[layer.name].statistics_frozen)
    _copy(old.strengths, new.strengths)
    if old.recipe.updates == new.recipe.updates:
        for past, now in zip(old.updates, new.updates, strict=True):
            for name in same & set(now.states):
                _copy(past.states[name], now.states[name])
    return changed


def _copy(old: Any, new: Any) -> None:
    """Assign variables to those of the same name and shape."""
    for name, variable in new.items():
        if name in old and old[name].shape == variable.shape:
            variable.assign(old[name])


def _keep_range(old: Site, new: Site) -> None:
    """Start an activation grid from the range of another, if that has started."""
    initialized = old.variables["initialized"]
    if initialized.numpy():
        grid = old.grid()
        ends = grid.scale * np.float32(grid.qmin), grid.scale * np.float32(grid.qmax)
        new.quantizer.start_from(new.quantizer.spanning(*ends), new.variables)
        new.variables["initialized"].assign(initialized)
