"""The tfmot side: QuantizeConfig, registry, layout transform and scheme."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tfbinreg import _compat
from tfbinreg.checks import check_layers
from tfbinreg.graph import Node, apply, clone_layer, rebuild, trace
from tfbinreg.kinds import KINDS, Role, activation_name
from tfbinreg.layers import QuantizeActivation, QuantizedKernel
from tfbinreg.normalize import normalize
from tfbinreg.plan import GridPlan, Plan, Problem, decide, raise_problems
from tfbinreg.quantizers import LSQActivationQuantizer, LSQWeightQuantizer
from tfbinreg.recipe import LayerSettings, Recipe


@_compat.register
class LSQQuantizeConfig(_compat.QuantizeConfig):
    """LSQ for one layer, to be given to tfmot's `quantize_annotate_layer`.

    Args:
        weight_bits: 2 to 8, None for the recipe's.
        activation_bits: bits of the layer's output, 2 to 8, None for the recipe's.
        per_channel: one step per output channel of the kernel, None for what the recipe says.
    """

    def __init__(
        self,
        weight_bits: int | None = None,
        activation_bits: int | None = None,
        per_channel: bool | None = None,
    ) -> None:
        self.settings = LayerSettings(
            weight_bits=weight_bits, activation_bits=activation_bits, per_channel=per_channel
        )
        # A recipe reports wrong bits where the config is written, and knows the defaults.
        given: dict[str, Any] = {"weight_bits": weight_bits, "activation_bits": activation_bits}
        recipe = Recipe(**{key: bits for key, bits in given.items() if bits is not None})
        self._weight_bits, self._activation_bits = recipe.weight_bits, recipe.activation_bits

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        kind = KINDS.get(type(layer).__name__)
        if kind is None or (kind.role is Role.REWRITE and layer.weights):
            raise ValueError(
                f"LSQ cannot quantize layer {layer.name!r} ({type(layer).__name__}) as it is: "
                "use LSQQuantizeScheme, which rewrites models, or leave it unannotated."
            )
        if kind.kernel is None:
            return []
        axis = kind.channel_axis if self.settings.per_channel else None
        kernel = getattr(layer, kind.kernel)
        return [(kernel, LSQWeightQuantizer(self._weight_bits, axis, kernel))]

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        return []

    def set_quantize_weights(self, layer: Any, quantize_weights: Sequence[Any]) -> None:
        for kernel in quantize_weights:
            # Not layer.kernel = ...: Keras would stop tracking the variable behind the attribute.
            object.__setattr__(layer, KINDS[type(layer).__name__].kernel or "", kernel)

    def set_quantize_activations(self, layer: Any, quantize_activations: Sequence[Any]) -> None:
        pass

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """Used by tfmot's own schemes; `LSQQuantizeScheme` places grids between layers instead."""
        relu = type(layer).__name__ == "ReLU" or (
            hasattr(layer, "activation") and activation_name(layer) in ("relu", "relu6")
        )
        return [LSQActivationQuantizer(self._activation_bits, signed=not relu)]

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self.settings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LSQQuantizeConfig) and self.settings == other.settings

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.settings)


def layer_settings(configs: Mapping[str, Any]) -> dict[str, LayerSettings | None]:
    """The settings in the `configs` of annotated layers; None for the recipe's.

    Raises:
        ValueError: naming every layer annotated with another class of config.
    """
    foreign = {
        name: type(config).__name__
        for name, config in configs.items()
        if not isinstance(config, (LSQQuantizeConfig, type(None)))
    }
    remedy = "annotate it with an LSQQuantizeConfig, or without a config"
    raise_problems(
        [Problem(name, f"annotated with {kind}", remedy) for name, kind in foreign.items()],
        "quantize the annotated layers",
    )
    return {name: config and config.settings for name, config in configs.items()}


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
        raise_problems(check_layers(model), f"quantize model {model.name!r}")
        normal, origin = normalize(model)
        given = layer_settings(
            {name: entry.get("quantize_config") for name, entry in layer_quantize_map.items()}
        )
        annotated = {name: given[source] for name, source in origin.items() if source in given}
        plan = decide(trace(normal), self._recipe, annotated)
        raise_problems(plan.problems, f"quantize model {model.name!r}")
        quantized = _place(plan)
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


def _place(plan: Plan) -> Any:
    """Build the quantized model that `plan` describes, with the weights of the planned one."""
    grid_layers: dict[int, QuantizeActivation] = {}
    copies: list[tuple[Any, Any]] = []

    def call(node: Node, tensors: Sequence[Any]) -> Any:
        kind = KINDS[node.kind]
        if kind.role is Role.INPUT or node.index in plan.absorbed:
            output = tensors[0]
        else:
            layer = inner = clone_layer(node.layer)
            if node.index in plan.kernels:
                kernel = plan.kernels[node.index]
                config = LSQQuantizeConfig(kernel.bits, None, kernel.axis is not None)
                layer = QuantizedKernel(inner, config)
            copies.append((node.layer, layer))
            output = apply(layer, tensors)
        if node.index in plan.grids:
            grid_layers[node.index] = _grid_layer(plan.grids[node.index], node.name)
            return grid_layers[node.index](output)
        owner = plan.same_grid.get(node.index)
        if owner is not None and kind.regrid:
            return grid_layers[owner](output, averaged=node.kind == "AveragePooling2D")
        return output

    quantized = rebuild(plan.graph, call)
    for source, layer in copies:
        inner = layer.layer if isinstance(layer, QuantizedKernel) else layer
        inner.set_weights(source.get_weights())
        if isinstance(layer, QuantizedKernel):
            layer.initialize_steps()
    return quantized


def _grid_layer(grid: GridPlan, name: str) -> QuantizeActivation:
    quantizer = LSQActivationQuantizer(
        grid.bits, grid.signed, grid.upper_limit, from_range=grid.from_range, fixed=grid.fixed
    )
    return QuantizeActivation(quantizer, name=f"{name}_grid")
