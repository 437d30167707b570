"""The tfmot side: registry, layout transform and scheme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfbinreg import _compat
from tfbinreg.config import LSQQuantizeConfig, layer_settings
from tfbinreg.decide import decide
from tfbinreg.graph import trace
from tfbinreg.kinds import KINDS
from tfbinreg.normalize import normalize
from tfbinreg.place import place
from tfbinreg.plan import raise_problems
from tfbinreg.recipe import Recipe

keras = _compat.keras


class LSQQuantizeRegistry(_compat.QuantizeRegistry):
    """Which layers LSQ can quantize, and with which config.

    Args:
        recipe: bits per layer.
        placed: names of layers the layout transform has dealt with; tfmot asks again for the
            neighbours of annotated layers, which must not be quantized twice.
    """

    def __init__(self, recipe: Recipe, placed: set[str]) -> None:
        self._recipe, self._placed = recipe, placed

    def supports(self, layer: Any) -> bool:
        kind = KINDS.get(type(layer).__name__)
        return kind is not None and kind.kernel is not None and layer.name not in self._placed

    def get_quantize_config(self, layer: Any) -> LSQQuantizeConfig:
        if not self.supports(layer):
            raise ValueError(f"Layer {layer.name!r} ({type(layer).__name__}) has no LSQ config.")
        settings = self._recipe.settings((layer.name, type(layer).__name__))
        return LSQQuantizeConfig(
            settings.weight_bits or self._recipe.weight_bits,
            settings.activation_bits or self._recipe.activation_bits,
            settings.per_channel,
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
        """Transform `model`; the returned map is empty as nothing is left for tfmot to wrap.

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
        quantized = place(plan, keras.Model)
        self._placed.update(layer.name for layer in quantized.layers)
        return quantized, {}


class LSQQuantizeScheme(_compat.QuantizeScheme):
    """LSQ as a tfmot scheme: `tfmot.quantization.keras.quantize_apply(model, LSQQuantizeScheme())`.

    One scheme object serves one `quantize_apply`.
    """

    def __init__(self, recipe: Recipe | None = None) -> None:
        self._recipe, self._placed = recipe or Recipe(), set[str]()

    def get_layout_transformer(self) -> LSQLayoutTransform:
        return LSQLayoutTransform(self._recipe, self._placed)

    def get_quantize_registry(self) -> LSQQuantizeRegistry:
        return LSQQuantizeRegistry(self._recipe, self._placed)
