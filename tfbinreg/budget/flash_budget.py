"""Bits per layer or channel that let the packed weights fit into flash, from sensitivities."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfbinreg.budget.channel_sensitivity import (
    CHANNEL_WIDTHS,
    ChannelSensitivity,
    channel_sensitivities,
)
from tfbinreg.budget.cheapest import cheapest, cheapest_of_many
from tfbinreg.budget.choices import FlashBudget, LayerChoice, with_bits
from tfbinreg.budget.packed_bytes import CHANNEL_BYTES
from tfbinreg.budget.sensitivity import WIDTHS, Sensitivity, sensitivities
from tfbinreg.core.grid import check_bits
from tfbinreg.core.recipe import Recipe, RecipeData
from tflite_tools.system.progress import progress

LAYER, CHANNEL = "layer", "channel"


def fit_flash_budget(
    model: Any,
    limit: int,
    calibration_data: Any,
    *,
    recipe: RecipeData = None,
    granularity: str = LAYER,
    widths: Sequence[int] | None = None,
    verbose: int = 1,
) -> FlashBudget:
    """Choose bits for each kernel, or each channel, so that the packed weights fit.

    The effects of each kernel or channel on the outputs are assumed to be independent, and their
    sum is minimized within the budget. Nothing is trained: quantize with the resulting recipe and
    train.

    Args:
        model: as for `quantize_apply`.
        limit: bytes for packed weights and the constants of their channels; a runtime's code and
            the activations are extra.
        calibration_data: as for `quantize_apply`; more data gives better sensitivities.
        recipe: everything except the weight bits, in any form that `quantize_apply` accepts; layers
            whose weight bits a rule sets keep them.
        granularity: "layer" chooses bits for each kernel, as measured
            (`sensitivity.sensitivities`). "channel" chooses them for each channel, as estimated
            (`channel_sensitivity.channel_sensitivities`), and keeps at least one channel in each
            kernel; 0 bits prune a channel, which then takes no bytes.
        widths: the bits to choose from: 1 to 8 for kernels, None for 2, 3, 4 and 8; 0 to 8 for
            channels, None for 0, 1, 2, 3, 4 and 8.
        verbose: 1 shows a progress bar on a terminal; 0 nothing.

    Returns:
        The choice, with the recipe to train with.

    Raises:
        ValueError: if even the fewest bits for every free layer do not fit, or as for
            `quantize_apply`.
    """
    recipe = Recipe.from_data(recipe)
    chosen = way(granularity, widths)
    with progress(enabled=bool(verbose)) as bar:
        layers = chosen.measure(model, calibration_data, recipe=recipe, advance=bar)
    return chosen.choose(layers, limit, recipe=recipe)


@dataclasses.dataclass(frozen=True)
class Way:
    """How bits are chosen: by layers or by channels.

    Attributes:
        measure: (model, calibration data, recipe=..., advance=...) -> sensitivities.
        choose: (sensitivities, limit in bytes, recipe=...) -> the choice.
        least_bytes: sensitivities -> the fewest bytes that `choose` can reach, estimated.
    """

    measure: Callable[..., Sequence[Any]]
    choose: Callable[..., FlashBudget]
    least_bytes: Callable[[Sequence[Any]], int]


def way(granularity: str = LAYER, widths: Sequence[int] | None = None) -> Way:
    """The `Way` of `fit_flash_budget` for its granularity and widths.

    Raises:
        ValueError: for another granularity, or widths that it does not support.
    """
    if granularity not in (LAYER, CHANNEL):
        raise ValueError(f"granularity must be {LAYER!r} or {CHANNEL!r}, got {granularity!r}.")
    if widths is not None:
        least = 1 if granularity == LAYER else 0
        widths = sorted({check_bits(width, "widths", least) for width in widths})
        if not any(widths):
            raise ValueError(f"widths must have one of at least 1 bit, got {widths}.")
    if granularity == LAYER:
        by_layer = functools.partial(sensitivities, widths=widths or WIDTHS)
        return Way(by_layer, choose, least_bytes)
    by_channel = functools.partial(channel_sensitivities, widths=widths or CHANNEL_WIDTHS)
    return Way(by_channel, choose_channels, least_channel_bytes)


def choose(layers: Sequence[Sensitivity], limit: int, *, recipe: RecipeData = None) -> FlashBudget:
    """The bits with which the outputs move least within `limit` bytes.

    Args:
        layers: as measured, in layer order.
        limit: bytes for packed weights and the constants of their channels, estimated.
        recipe: the recipe that was used for measuring.

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
            moved=layer.moved[bits],
            fixed=layer.fixed,
        )
        for layer, bits in zip(layers, cheapest(options, limit), strict=True)
    )
    return _budget(recipe, chosen, limit)


def least_bytes(layers: Sequence[Sensitivity]) -> int:
    """The fewest bytes that `choose` can reach, estimated."""
    return sum(_bytes(layer, min(layer.moved)) for layer in layers)


def least_channel_bytes(layers: Sequence[ChannelSensitivity]) -> int:
    """The fewest bytes that `choose_channels` can reach, estimated: the narrowest widths; where
    these prune, one channel of each kernel has the next width.
    """
    total = 0
    for layer in layers:
        if layer.fixed is not None:
            total += _channel_bytes(layer, layer.fixed)
            continue
        widths = sorted(layer.moved)
        first = widths[1] if widths[0] == 0 else widths[0]
        total += _channel_bytes(layer, (first, *(widths[0],) * (layer.channels - 1)))
    return total


def largest(layers: Sequence[Sensitivity | ChannelSensitivity]) -> str:
    """A sentence that names the layers with the most weights."""
    chosen = sorted(layers, key=lambda layer: layer.parameters, reverse=True)[:3]
    names = ", ".join(f"{layer.layer} ({layer.parameters} weights)" for layer in chosen)
    return f"The largest layers are {names}."


def choose_channels(
    layers: Sequence[ChannelSensitivity], limit: int, *, recipe: RecipeData = None
) -> FlashBudget:
    """The channel bits with which the outputs move least within `limit` bytes.

    Args:
        layers: as estimated, in layer order.
        limit: as for `choose`.
        recipe: the recipe that was used for estimating.

    Raises:
        ValueError: if even one channel of one bit for every free layer does not fit.
    """
    free = [layer for layer in layers if layer.fixed is None]
    taken = sum(_channel_bytes(layer, layer.fixed) for layer in layers if layer.fixed is not None)
    options = sorted({width for layer in free for width in layer.moved})
    costs = np.concatenate([_costs(layer, options) for layer in free] or [np.zeros((0, 1))])
    sizes = np.concatenate([
        np.tile([_channel_size(layer, width) for width in options], (layer.channels, 1))
        for layer in free
    ] or [np.zeros((0, 1))])  # fmt: skip
    places = cheapest_of_many(costs, sizes, limit - taken - len(free))  # each rounds up to a byte
    bits = iter(np.asarray(options)[places].tolist())
    chosen = []
    for layer in layers:
        own = layer.fixed
        if own is None:
            own = tuple(next(bits) for _ in range(layer.channels))
        chosen.append(_channel_choice(layer, own))
    budget = _budget(recipe, chosen, limit)
    if budget.bytes > limit:
        raise ValueError(
            f"{limit} bytes are not enough: with all channels pruned but one of each kernel the "
            f"weights and the constants of their channels need {budget.bytes}."
        )
    return budget


def _costs(layer: ChannelSensitivity, options: Sequence[int]) -> np.ndarray:
    """What each channel costs at each width, (channels, widths); one of them cannot be pruned."""
    costs = np.stack([layer.moved[width] for width in options], axis=1)
    if options[0] == 0:
        costs[np.argmax(costs[:, 0]), 0] = np.inf
    return costs


def _channel_choice(layer: ChannelSensitivity, bits: Any) -> LayerChoice:
    own = (bits,) * layer.channels if isinstance(bits, int) else bits
    moved = [layer.moved.get(width, np.zeros(layer.channels))[c] for c, width in enumerate(own)]
    return LayerChoice(
        layer=layer.layer,
        parameters=layer.parameters,
        bits=bits,
        bytes=_channel_bytes(layer, bits),
        sensitivity={width: float(np.sum(cost)) for width, cost in layer.moved.items()},
        moved=float(np.sum(moved)),
        fixed=layer.fixed is not None,
    )


def _channel_size(layer: ChannelSensitivity, width: int) -> float:
    """Bytes of a channel; none for a pruned channel."""
    weights, outputs = layer.parameters / layer.channels, layer.outputs / layer.channels
    return weights * width / 8.0 + (outputs * CHANNEL_BYTES if width else 0.0)


def _channel_bytes(layer: ChannelSensitivity, bits: Any) -> int:
    own = (bits,) * layer.channels if isinstance(bits, int) else bits
    return int(np.ceil(sum(_channel_size(layer, width) for width in own)))


def _budget(recipe: RecipeData, chosen: Sequence[LayerChoice], limit: int) -> FlashBudget:
    fitting = with_bits(Recipe.from_data(recipe), chosen)
    return FlashBudget(recipe=fitting, layers=tuple(chosen), limit=limit)


def _bytes(layer: Sensitivity, bits: int) -> int:
    code_bits = layer.code_bits.get(bits, layer.parameters * bits)
    return (code_bits + 7) // 8 + layer.channels * CHANNEL_BYTES
