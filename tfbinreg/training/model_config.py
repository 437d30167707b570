"""The quantization part of a saved configuration, in this and earlier versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tfbinreg.core.recipe import BIN_REGULARIZATION, Recipe
from tfbinreg.core.target import LITERT


def quantization_config(model: Any) -> dict[str, Any]:
    """A quantized model's recipe and the names of its outputs."""
    return {"recipe": model.recipe.to_json(), "output_names": list(model.output_names)}


def saved_recipe(config: Mapping[str, Any]) -> Recipe:
    """The recipe in a `quantization_config`."""
    # Recipes of version 0.1.0 have no target: LiteRT was the only one.
    recipe = Recipe.from_data({"target": LITERT, **json.loads(config["recipe"])})
    if "bin_options" not in config:
        return recipe
    # They kept these options apart, and computed the paper's formula.
    options = {"bounded_pull": False, **config["bin_options"]}
    return recipe.with_options(BIN_REGULARIZATION, **options)
