"""The verbs: `plan` shows what would be done, `quantize_apply` does it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.problems import raise_problems
from tfbinreg.core.recipe import Recipe, RecipeData
from tfbinreg.frontend.normalize import normalize
from tfbinreg.layers.config import layer_settings
from tfbinreg.methods.roster import check_methods
from tfbinreg.network.graph import clone_layer, trace
from tfbinreg.planning.decide import decide
from tfbinreg.planning.plan import Plan
from tfbinreg.training.assemble import place
from tfbinreg.training.bin_options import with_bin_options
from tfbinreg.training.calibrate import calibrate, sample_batches
from tfbinreg.training.constant_columns import constant_columns_kept_small
from tfbinreg.training.lost_numbers import coarse_numbers, warn_coarse
from tfbinreg.training.model import QuantizedModel
from tfbinreg.training.model_checks import check_model
from tfbinreg.training.saving import load_float_model

keras = _compat.keras


def plan(
    model: Any,
    recipe: RecipeData = None,
    *,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    calibration_data: Any = None,
) -> Plan:
    """Show, layer by layer and without changing anything, what `quantize_apply` would do.

    Args:
        model: a built Sequential or Functional model of tf_keras or Keras 3, or the path of one.
        recipe: bits per layer, in place of the two arguments below: a `Recipe`, a dict of its
            fields, JSON text or the path of a JSON file.
        weight_bits: bits of the kernels, 1 to 8; 4 by default.
        activation_bits: bits of the unsigned activations, 2 to 8; 8 by default.
        calibration_data: as for `quantize_apply`, to find numbers that a grid cannot represent.

    Returns:
        A `Plan`; `print` shows it as a table, `problems` lists what is unsupported in the layers'
        wiring, `coarse` lists what loses most of its levels (see `coarse_numbers`).

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if it is unbuilt or subclassed, if both a recipe and bits are given, or if
            layers are not supported; the message lists all of them.
    """
    model = _opened(model)
    recipe = given_recipe(recipe, weight_bits, activation_bits)
    recipe, batches = with_samples(model, recipe, calibration_data)
    normal, decided = _decided(model, recipe)
    if batches is None or decided.problems:
        return decided
    return dataclasses.replace(decided, coarse=coarse_numbers(decided, normal, batches))


def quantize_apply(
    model: Any,
    recipe: RecipeData = None,
    *,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    calibration_data: Any = None,
    detach_step: bool | None = None,
    scale_free: bool | None = None,
    bounded_pull: bool | None = None,
) -> QuantizedModel:
    """Prepare a model for LSQ training with bin regularization.

    The model itself is not changed: the result has its own weights. The weight steps start with the
    least squared error (`Recipe.weight_start`). The activation steps start from `calibration_data`
    or, without it, from the first training batch. The first and last kernels stay at 8 bits unless
    the recipe sets other bits. The bin regularization is attached at strength 0; the
    `BinRegularization` callback turns it on.

    Args:
        model: a built Sequential or Functional model of tf_keras or Keras 3, or the path of one. It
            is first rewritten to plain tf_keras layers (`normalize`). The layers of a tf_keras
            model may be annotated with tfmot's `quantize_annotate_layer` and an
            `LSQQuantizeConfig`, whose settings take precedence.
        recipe: bits per layer, in place of the two arguments below: a `Recipe`, a dict of its
            fields, JSON text or the path of a JSON file.
        weight_bits: bits of the kernels, 1 to 8; 4 by default.
        activation_bits: bits of the unsigned activations, 2 to 8; 8 by default.
        calibration_data: typical inputs, of which 512 samples are used: an array, a list or dict of
            arrays (one per input), (inputs, labels), a tf.data.Dataset, an iterable of batches, or
            the path of an .npy or .npz file. The activation steps start from it, and batch
            normalization's moving statistics are set to those of the quantized model. It also shows
            whether the inputs are never negative and can therefore use an unsigned grid, and which
            numbers are lost on a grid with far larger ones; a `QuantizationWarning` reports each of
            them.
        detach_step: deprecated, like the two below: an option of the bin regularization, which
            belongs in the recipe (`Recipe.options`, `BinOptions`).
        scale_free: deprecated.
        bounded_pull: deprecated.

    Returns:
        A `QuantizedModel`, not compiled.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if it is unbuilt or subclassed, if both a recipe and bits are given, if the
            calibration data does not fit, or if layers have problems; the message lists all of
            them.
    """
    model = _opened(model)
    recipe = given_recipe(recipe, weight_bits, activation_bits)
    old = {"detach_step": detach_step, "scale_free": scale_free, "bounded_pull": bounded_pull}
    recipe = with_bin_options(recipe, {k: v for k, v in old.items() if v is not None})
    check_methods(recipe)
    recipe, batches = with_samples(model, recipe, calibration_data)
    normal, decided = _decided(model, recipe)
    raise_problems(decided.problems, f"quantize model {model.name!r}")
    quantized = place(decided, QuantizedModel, recipe)
    quantized.describe(recipe)
    quantized.float_model = lambda: normal
    if batches is not None:
        calibrate(quantized, batches)
        warn_coarse(coarse_numbers(decided, normal, batches))
    return quantized


def with_samples(
    model: Any, recipe: Recipe, calibration_data: Any
) -> tuple[Recipe, list[Any] | None]:
    """The recipe with the inputs' sign taken from the data, and the batches; None without data."""
    if calibration_data is None:
        return recipe, None
    batches = sample_batches(calibration_data, model.inputs)
    if recipe.unsigned_input is None:
        recipe = dataclasses.replace(recipe, unsigned_input=_never_negative(batches))
    return recipe, batches


def _opened(model: Any) -> Any:
    """A model that can be read: `model` itself, or loaded from this path."""
    model = load_float_model(model) if isinstance(model, (str, os.PathLike)) else model
    check_model(model)
    return model


def _decided(model: Any, recipe: Recipe) -> tuple[Any, Plan]:
    """`model` as simple layers without annotations, and its plan with the user's names."""
    float_model, annotated = _strip_annotations(model)
    layer_settings(annotated)  # reports configs of other methods by the user's names
    with constant_columns_kept_small(float_model):
        normal, origin = normalize(float_model)
    configs = {name: annotated.get(source) for name, source in origin.items()}
    decided = decide(trace(normal), recipe, layer_settings(configs))
    kinds = {node.name: node.kind for node in decided.graph.nodes}
    problems = tuple(
        dataclasses.replace(
            problem,
            layer=origin.get(problem.layer, problem.layer),
            kind=kinds.get(problem.layer, ""),
        )
        for problem in decided.problems
    )
    return normal, dataclasses.replace(decided, problems=problems)


def _strip_annotations(model: Any) -> tuple[Any, dict[str, Any]]:
    """A copy of `model` without tfmot's annotations, and their configs by layer name.

    A model without annotations is returned as it is.
    """
    wrappers = [layer for layer in model.layers if isinstance(layer, _compat.QuantizeAnnotate)]
    if not wrappers:
        return model, {}

    def bare(layer: Any) -> Any:
        return clone_layer(layer.layer if isinstance(layer, _compat.QuantizeAnnotate) else layer)

    stripped = keras.models.clone_model(model, clone_function=bare)
    stripped.set_weights(model.get_weights())
    return stripped, {wrapper.layer.name: wrapper.quantize_config for wrapper in wrappers}


def given_recipe(
    recipe: RecipeData,
    weight_bits: int | None,
    activation_bits: int | None,
    base: Recipe = Recipe(),  # noqa: B008 - frozen
) -> Recipe:
    """A recipe from a verb's arguments: in any form, or else `base` with these bits."""
    bits = {"weight_bits": weight_bits, "activation_bits": activation_bits}
    given: dict[str, Any] = {name: value for name, value in bits.items() if value is not None}
    if recipe is None:
        return dataclasses.replace(base, **given)
    if given:
        raise ValueError(f"Give a recipe or {' and '.join(given)}, not both.")
    return Recipe.from_data(recipe)


def _never_negative(batches: Sequence[Any]) -> bool:
    return all(np.min(np.asarray(part)) >= 0 for part in tf.nest.flatten(batches))
