"""Options of the bin regularization as arguments, as version 0.1.0 had them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from tfbinreg.core.recipe import BIN_REGULARIZATION, Recipe


def with_bin_options(recipe: Recipe, given: Mapping[str, Any]) -> Recipe:
    """The recipe with the options of the bin regularization that were passed separately.

    Warns:
        DeprecationWarning: if there are any, showing what to write instead.
    """
    if not given:
        return recipe
    warnings.warn(
        f"{', '.join(given)}: give them in the recipe, Recipe(options="
        f"{{{BIN_REGULARIZATION!r}: {dict(given)!r}}}).",
        DeprecationWarning,
        stacklevel=3,
    )
    return recipe.with_options(BIN_REGULARIZATION, **given)
