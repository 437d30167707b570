"""Bits per layer such that the packed weights fit into flash, from measured sensitivities."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfbinreg.budget.sensitivity import WIDTHS, Sensitivity, sensitivities
from tfbinreg.core.recipe import Recipe, RecipeData, Rule

# Bias, multiplier and shift of an output channel, as integer runtimes keep them.
_CHANNEL_BYTES = 4 + 4 + 1
_FRONTIER = 4096  # partial choices that are kept; more would decide about single bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """What was chosen for a kernel and why.

    Attributes:
        layer: name of the layer.
        parameters: size of its kernel.
        bits: the chosen width.
        bytes: of the packed kernel and the constants of its channels.
        sensitivity: by width, how far the outputs move when this kernel alone has it: mean squared
            difference over the variance of the outputs.
        fixed: whether a rule of the recipe had decided before.
    """

    layer: str
    parameters: int
    bits: int
    bytes: int
    sensitivity: Mapping[int, float]
    fixed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlashBudget:
    """Bits per layer that fit into a budget. `print` shows them as a table.

    Attributes:
        recipe: to quantize and train with.
        layers: the choices in layer order.
        limit: the budget in bytes.
    """

    recipe: Recipe
    layers: tuple[LayerChoice, ...]
    limit: int

    @property
    def bytes(self) -> int:
        """Packed weights and constants."""
        return sum(choice.bytes for choice in self.layers)

    @property
    def squeezed(self) -> tuple[str, ...]:
        """The layers that got fewer than 8 bits."""
        return tuple(c.layer for c in self.layers if c.bits < max(WIDTHS) and not c.fixed)

    @property
    def moved(self) -> float:
        """How far the outputs move, the layers taken to be independent."""
        return sum(choice.sensitivity[choice.bits] for choice in self.layers)

    def __str__(self) -> str:
        return f"{self.table()}\n{self.bytes} of {self.limit} bytes, estimated"

    def table(self) -> str:
        """The choices as text, a line for each layer.

        What fewer bits of a layer alone move is the mean squared difference of the outputs, as a
        share of their variance (`Sensitivity.moved`).
        """
        header = (
            *("layer", "parameters", "bits", "bytes"),
            *(f"moved at {width} bits" for width in WIDTHS[:-1]),
        )
        rows = [header]
        for choice in self.layers:
            moved = ["" if choice.fixed else f"{choice.sensitivity[w]:.2g}" for w in WIDTHS]
            bits = f"{choice.bits}{' (rule)' if choice.fixed else ''}"
            rows.append(
                (choice.layer, str(choice.parameters), bits, str(choice.bytes), *moved[:-1])
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join(lines)


def fit_flash_budget(
    model: Any, limit: int, calibration_data: Any, *, recipe: RecipeData = None
) -> FlashBudget:
    """Choose 2, 3, 4 or 8 bits for each kernel so that the packed weights fit.

    The sum of what each kernel alone does to the outputs (`sensitivity.sensitivities`), which takes
    the layers to be independent, is made as small as the budget allows. Nothing is trained:
    quantize with the resulting recipe and train.

    Args:
        model: as for `quantize_apply`.
        limit: bytes for packed weights and the constants of their channels; a runtime's code and
            the activations come on top.
        calibration_data: as for `quantize_apply`; the more, the better the sensitivities.
        recipe: everything but the weight bits, in any form that `quantize_apply` takes; layers
            whose weight bits a rule sets keep them.

    Returns:
        The choice, with the recipe to train with.

    Raises:
        ValueError: if even two bits for every free layer do not fit, or as `quantize_apply`.
    """
    recipe = Recipe.from_data(recipe)
    measured = sensitivities(model, calibration_data, recipe=recipe)
    return choose(measured, limit, recipe=recipe)


def choose(layers: Sequence[Sensitivity], limit: int, *, recipe: RecipeData = None) -> FlashBudget:
    """The bits with which the outputs move least within `limit` bytes.

    Args:
        layers: as measured, in layer order.
        limit: bytes for packed weights and the constants of their channels, estimated.
        recipe: the one that was measured with.

    Raises:
        ValueError: if even two bits for every free layer do not fit.
    """
    least = least_bytes(layers)
    if least > limit:
        rules = (
            " (as far as no rule says otherwise)" if any(layer.fixed for layer in layers) else ""
        )
        raise ValueError(
            f"{limit} bytes are not enough: at {min(WIDTHS)} bits{rules} the weights and the "
            f"constants of their channels need {least}. {largest(layers)}"
        )
    options = [
        [(bits, _bytes(layer, bits), cost) for bits, cost in layer.moved.items()]
        for layer in layers
    ]
    chosen = tuple(
        LayerChoice(
            layer=layer.layer,
            parameters=layer.parameters,
            bits=bits,
            bytes=_bytes(layer, bits),
            sensitivity=layer.moved,
            fixed=layer.fixed,
        )
        for layer, bits in zip(layers, _cheapest(options, limit), strict=True)
    )
    fitting = _with_bits(Recipe.from_data(recipe), chosen)
    return FlashBudget(recipe=fitting, layers=chosen, limit=limit)


def least_bytes(layers: Sequence[Sensitivity]) -> int:
    """The least that `choose` can reach, estimated."""
    return sum(_bytes(layer, min(layer.moved)) for layer in layers)


def largest(layers: Sequence[Sensitivity]) -> str:
    """A sentence that names the layers with the most weights."""
    chosen = sorted(layers, key=lambda layer: layer.parameters, reverse=True)[:3]
    names = ", ".join(f"{layer.layer} ({layer.parameters} weights)" for layer in chosen)
    return f"The largest layers are {names}."


def _bytes(layer: Sensitivity, bits: int) -> int:
    code_bits = layer.code_bits.get(bits, layer.parameters * bits)
    return (code_bits + 7) // 8 + layer.channels * _CHANNEL_BYTES


def _cheapest(options: Sequence[Sequence[tuple[int, int, float]]], limit: int) -> tuple[int, ...]:
    """One (bits, bytes, cost) of each layer with the least sum of costs within `limit` bytes.

    A frontier of partial choices of which none is better in both bytes and cost than another. It is
    thinned out where it grows beyond what matters; the smallest choice always stays.
    """
    frontier: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]
    for layer in options:
        grown = sorted(
            (size + own, cost + more, (*bits, width))
            for size, cost, bits in frontier
            for width, own, more in layer
        )
        frontier = []
        for entry in grown:
            if not frontier or entry[1] < frontier[-1][1]:
                frontier.append(entry)
        if len(frontier) > _FRONTIER:
            kept = np.linspace(0, len(frontier) - 1, _FRONTIER).astype(int)
            frontier = [frontier[index] for index in kept]
    fitting = [entry for entry in frontier if entry[0] <= limit]
    return min(fitting, key=lambda entry: entry[1])[2]


def _with_bits(recipe: Recipe, choices: Sequence[LayerChoice]) -> Recipe:
    """The recipe with a rule for each width."""
    rules = [
        Rule(layer="|".join(names), weight_bits=width)
        for width in WIDTHS
        if (names := [re.escape(c.layer) for c in choices if c.bits == width and not c.fixed])
    ]
    return dataclasses.replace(recipe, rules=(*recipe.rules, *rules))
