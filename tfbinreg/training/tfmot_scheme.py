"""The tfmot side: registry, layout transform and scheme."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfbinreg import _compat
from tfbinreg.core.problems import raise_problems
from tfbinreg.core.recipe import Recipe, RecipeData
from tfbinreg.frontend.normalize import normalize
from tfbinreg.layers.config import LSQQuantizeConfig, layer_settings
from tfbinreg.methods.bin_regularization import BinOptions
from tfbinreg.methods.roster import check_methods
from tfbinreg.network.graph import trace
from tfbinreg.network.layer_kinds import KINDS
from tfbinreg.planning.decide import decide
from tfbinreg.training.assemble import place
from tfbinreg.training.bin_options import with_bin_options
from tfbinreg.training.model import QuantizedModel


class LSQQuantizeRegistry(_compat.QuantizeRegistry):
    """Which layers LSQ can quantize, and with which config.

    Args:
        recipe: bits per layer.
        placed: names of layers that the layout transform has handled; tfmot asks again for the
            neighbours of annotated layers, which must not be quantized twice.
    """

    def __init__(self, recipe: Recipe, placed: set[str]) -> None:
        self._recipe, self._placed = recipe, placed

    def supports(self, layer: Any) -> bool:
        kind = KINDS.get(type(layer).__name__)
        if kind is None or kind.kernel is None or layer.name in self._placed:
            return False
        return not self._recipe.settings((layer.name, type(layer).__name__)).skip

    def get_quantize_config(self, layer: Any) -> LSQQuantizeConfig:
        if not self.supports(layer):
            raise ValueError(f"Layer {layer.name!r} ({type(layer).__name__}) has no LSQ config.")
        settings = self._recipe.settings((layer.name, type(layer).__name__))
        return LSQQuantizeConfig(
            self._recipe.weight_bits if settings.weight_bits is None else settings.weight_bits,
            settings.activation_bits or self._recipe.activation_bits,
            settings.per_channel,
            learned_offset=settings.learned_offset,
            bin_weight=settings.bin_weight,
            penalty_weights=settings.penalty_weights,
            method=settings.method,
            options=self._recipe.options.get(settings.method or ""),
        )


class LSQLayoutTransform(_compat.QuantizeLayoutTransform):
    """Rewrites a model to simple layers and puts kernels and activations on learned grids.

    Args:
        recipe: bits per layer.
        placed: filled with the names of all layers of the transformed model.
    """

    def __init__(self, recipe: Recipe, placed: set[str]) -> None:
        self._recipe, self._placed = recipe, placed

    def apply(
        self, model: Any, layer_quantize_map: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """A `QuantizedModel`, and an empty map because nothing is left for tfmot to wrap.

        Raises:
            ValueError: listing every layer that cannot be quantized.
        """
        normal, origin = normalize(model)
        given = layer_settings(
            {name: entry.get("quantize_config") for name, entry in layer_quantize_map.items()}
        )
        annotated = {name: given[source] for name, source in origin.items() if source in given}
        plan = decide(trace(normal), self._recipe, annotated)
        raise_problems(plan.problems, f"quantize model {model.name!r}")
        quantized = place(plan, QuantizedModel, self._recipe)
        # tfmot clones the model, layer by layer, and keeps its class.
        quantized.describe(self._recipe)
        self._placed.update(layer.name for layer in quantized.layers)
        return quantized, {}


class LSQQuantizeScheme(_compat.QuantizeScheme):
    """LSQ as a tfmot scheme: `tfmot.quantization.keras.quantize_apply(model, LSQQuantizeScheme())`.

    tfmot returns a `QuantizedModel`. Train, finalize and convert it like one from
    `tfbinreg.quantize_apply`. Its activation steps start from the first training batch. Use one
    scheme object for one `quantize_apply`.

    Args:
        recipe: bits per layer, for annotated layers without their own config, in any form that
            `quantize_apply` accepts.
        bin_options: deprecated: use an option of the recipe (`Recipe.options`).
    """

    def __init__(self, recipe: RecipeData = None, *, bin_options: BinOptions | None = None) -> None:
        given = {} if bin_options is None else dataclasses.asdict(bin_options)
        self._recipe = with_bin_options(Recipe.from_data(recipe), given)
        self._placed = set[str]()
        check_methods(self._recipe)

    def get_layout_transformer(self) -> LSQLayoutTransform:
        return LSQLayoutTransform(self._recipe, self._placed)

    def get_quantize_registry(self) -> LSQQuantizeRegistry:
        return LSQQuantizeRegistry(self._recipe, self._placed)
