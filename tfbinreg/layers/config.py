"""How one layer is quantized, as a tfmot `QuantizeConfig`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tfbinreg import _compat
from tfbinreg.core.grid import WeightBits
from tfbinreg.core.problems import Problem, raise_problems
from tfbinreg.core.recipe import LSQ, LayerSettings, Recipe, Rule, check_penalty_weights
from tfbinreg.methods import roster
from tfbinreg.methods.contract import GridSpec, KernelSpec
from tfbinreg.network.layer_kinds import KINDS, Role, activation_name


@_compat.register
class LSQQuantizeConfig(_compat.QuantizeConfig):
    """LSQ, or another method, for one layer; for tfmot's `quantize_annotate_layer`.

    Args:
        weight_bits: 0 to 8, or one number for each channel, as in `Rule`; None for the recipe's.
        activation_bits: bits of the layer's output, 2 to 8; None for the recipe's.
        per_channel: whether the kernel has one step per output channel; None for the recipe's
            setting.
        learned_offset: whether the layer's output may have a learned offset; None for the recipe's
            setting.
        bin_weight: factor of the kernel's part in the bin regularization; None for 1.
        penalty_weights: the same for any penalty, by name.
        method: name of the method that quantizes the layer; None for the recipe's.
        options: the method's options, by name.
    """

    def __init__(
        self,
        weight_bits: WeightBits | None = None,
        activation_bits: int | None = None,
        per_channel: bool | None = None,
        *,
        learned_offset: bool | None = None,
        bin_weight: float | None = None,
        penalty_weights: Mapping[str, float] | None = None,
        method: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        check_penalty_weights(bin_weight, penalty_weights)
        # A rule reports wrong bits where the config is written.
        given = Rule(weight_bits=weight_bits, activation_bits=activation_bits)
        self.settings = LayerSettings(
            weight_bits=given.weight_bits,
            activation_bits=activation_bits,
            per_channel=per_channel,
            learned_offset=learned_offset,
            bin_weight=bin_weight,
            penalty_weights=penalty_weights,
            method=method,
        )
        self._options = dict(options or {})

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        kind = KINDS.get(type(layer).__name__)
        if kind is None or (kind.role is Role.REWRITE and layer.weights):
            raise ValueError(
                f"LSQ cannot quantize layer {layer.name!r} ({type(layer).__name__}) as it is: "
                "use LSQQuantizeScheme, which rewrites models, or leave it unannotated."
            )
        if kind.kernel is None:
            return []
        kernel, bits = getattr(layer, kind.kernel), self.settings.weight_bits
        spec = KernelSpec.of(
            Recipe().weight_bits if bits is None else bits,
            per_channel=bool(self.settings.per_channel),
            channel_axis=kind.channel_axis,
            channels=int(kernel.shape[kind.channel_axis]),
            start=kernel,
        )
        return [(kernel, roster.weight_quantizer(self.settings.method or LSQ, spec, self._options))]

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
        bits = self.settings.activation_bits or Recipe().activation_bits
        spec = GridSpec(bits=bits, signed=not relu)
        return [roster.activation_quantizer(self.settings.method or LSQ, spec, self._options)]

    def get_config(self) -> dict[str, Any]:
        config = dataclasses.asdict(self.settings)
        del config["skip"]  # an annotated layer is one that is not skipped
        return {**config, "options": self._options}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LSQQuantizeConfig) and self.get_config() == other.get_config()

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(repr(self.get_config()))


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
