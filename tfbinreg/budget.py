"""Bits per layer such that the packed weights fit into flash, from measured sensitivities."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.calibrate import sample_batches
from tfbinreg.grid import weight_code_range
from tfbinreg.quantize import quantize_apply
from tfbinreg.recipe import Recipe, Rule
from tfbinreg.sites import Site, kernel_sites

WIDTHS = (2, 3, 4, 8)
# Bias, multiplier and shift of an output channel, as integer runtimes keep them.
_CHANNEL_BYTES = 4 + 4 + 1
_FRONTIER = 4096  # partial choices that are kept; more would decide about single bytes
_STEPS_TRIED = 24


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

    def __str__(self) -> str:
        header = ("layer", "parameters", "bits", "bytes", *(f"at {w}" for w in WIDTHS[:-1]))
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
        return "\n".join([*lines, f"{self.bytes} of {self.limit} bytes"])


def fit_flash_budget(
    model: Any, limit: int, calibration_data: Any, *, recipe: Recipe | None = None
) -> FlashBudget:
    """Choose 2, 3, 4 or 8 bits for each kernel so that the packed weights fit.

    Each kernel in turn is given each width, with the step of least squared error and everything
    else at 8 bits, and the model's outputs are compared with those at 8 bits throughout. The sum of
    these differences, which takes the layers to be independent, is made as small as the budget
    allows. Nothing is trained: quantize with the resulting recipe and train.

    Args:
        model: as for `quantize_apply`.
        limit: bytes for packed weights and the constants of their channels; a runtime's code and
            the activations come on top.
        calibration_data: as for `quantize_apply`; the more, the better the sensitivities.
        recipe: everything but the weight bits; layers whose weight bits a rule sets keep them.

    Returns:
        The choice, with the recipe to train with.

    Raises:
        ValueError: if even two bits for every free layer do not fit, or as `quantize_apply`.
    """
    recipe = recipe or Recipe()
    eight = dataclasses.replace(recipe, weight_bits=max(WIDTHS), first_last_bits=None)
    batches = sample_batches(calibration_data)
    quantized = quantize_apply(model, eight, calibration_data=batches)
    sites = kernel_sites(quantized)
    fixed = {
        site.name: bits
        for site in sites
        if (bits := recipe.settings((site.name, _kind(site))).weight_bits) is not None
    }
    _check_limit(sites, fixed, limit)
    for site in sites:
        _set_step(site, best_step(site.layer.kernels[0][0].numpy(), max(WIDTHS)))
    expected = _outputs(quantized, batches)
    sensitivities: list[dict[int, float]] = [
        {fixed[site.name]: 0.0}
        if site.name in fixed
        else {width: _moved(quantized, site, width, batches, expected) for width in WIDTHS}
        for site in sites
    ]
    options = [
        [(width, _bytes(site, width), cost) for width, cost in sensitivity.items()]
        for site, sensitivity in zip(sites, sensitivities, strict=True)
    ]
    chosen = tuple(
        LayerChoice(
            layer=site.name,
            parameters=_size(site),
            bits=bits,
            bytes=_bytes(site, bits),
            sensitivity=sensitivity,
            fixed=site.name in fixed,
        )
        for site, sensitivity, bits in zip(
            sites, sensitivities, _cheapest(options, limit), strict=True
        )
    )
    return FlashBudget(recipe=_with_bits(recipe, chosen), layers=chosen, limit=limit)


def _kind(site: Site) -> str:
    return type(site.layer.layer).__name__


def _size(site: Site) -> int:
    return int(np.prod(site.layer.kernels[0][0].shape))


def _bytes(site: Site, bits: int) -> int:
    channels = int(site.layer.output_shape[-1])
    return (_size(site) * bits + 7) // 8 + channels * _CHANNEL_BYTES


def _check_limit(sites: Sequence[Site], fixed: Mapping[str, int], limit: int) -> None:
    least = sum(_bytes(site, fixed.get(site.name, min(WIDTHS))) for site in sites)
    if least <= limit:
        return
    largest = sorted(sites, key=_size, reverse=True)[:3]
    names = ", ".join(f"{site.name} ({_size(site)} weights)" for site in largest)
    rules = " (as far as no rule says otherwise)" if fixed else ""
    raise ValueError(
        f"{limit} bytes are not enough: at {min(WIDTHS)} bits{rules} the weights and the constants "
        f"of their channels need {least}. The largest layers are {names}."
    )


def _outputs(model: Any, batches: Sequence[Any]) -> np.ndarray:
    """All outputs of the model, (samples, numbers)."""
    rows = []
    for batch in batches:
        outputs = model(tf.nest.map_structure(tf.convert_to_tensor, batch), training=False)
        flat = [np.asarray(part, np.float64) for part in tf.nest.flatten(outputs)]
        rows.append(np.concatenate([part.reshape(len(part), -1) for part in flat], axis=1))
    return np.concatenate(rows)


def _moved(
    model: Any, site: Site, bits: int, batches: Sequence[Any], expected: np.ndarray
) -> float:
    """How far the outputs move when a kernel has these bits."""
    if bits == max(WIDTHS):
        return 0.0
    kernel, step = site.layer.kernels[0][0], site.step
    before = kernel.numpy(), step.numpy()
    coarse = best_step(before[0], bits)
    # At 8 bits, codes of fewer bits are codes as well: with their step they stay what they are.
    kernel.assign(_rounded(before[0], coarse, bits))
    _set_step(site, coarse)
    outputs = _outputs(model, batches)
    kernel.assign(before[0])
    step.assign(before[1])
    spread = float(np.var(expected - expected.mean(axis=0))) or 1.0
    return float(np.mean(np.square(outputs - expected))) / spread


def best_step(kernel: np.ndarray, bits: int) -> float:
    """The step whose grid of `bits` bits has the least squared error; 1 for zeros."""
    _, qmax = weight_code_range(bits)
    largest = float(np.max(np.abs(kernel)))
    if not largest:
        return 1.0
    steps = np.linspace(1.0 / _STEPS_TRIED, 1.0, _STEPS_TRIED) * largest / qmax
    errors = [np.sum(np.square(_rounded(kernel, step, bits) - kernel)) for step in steps]
    return float(steps[int(np.argmin(errors))])


def _rounded(kernel: np.ndarray, step: float, bits: int) -> np.ndarray:
    qmin, qmax = weight_code_range(bits)
    return (step * np.clip(np.floor(kernel / step + 0.5), qmin, qmax)).astype(np.float32)


def _set_step(site: Site, step: float) -> None:
    site.step.assign(tf.fill(site.step.shape, step))


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
