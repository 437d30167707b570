"""Plots of a training: bins of kernels, steps over the epochs, accuracy over bytes.

Each function draws a new figure and returns it: `figure.savefig("bins.png")`. In a notebook, after
`%matplotlib inline`, the figure is shown as the last value of a cell. Requires matplotlib
(`pip install 'tfbinreg[plot]'`), whose backend is not changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tfbinreg.core.grid import Grid, bits_text, channel_range
from tfbinreg.layers.sites import Site, kernel_sites, require_quantized
from tfbinreg.training.quantizer_log import STEP
from tfbinreg.training.weight_statistics import scaled_weights

# Name, bytes and accuracy (0 to 1) of a model.
Result: TypeAlias = tuple[str, float, float]

_FEW_BITS = 8  # `bins` draws the kernels below, unless there are none
_COLUMNS = 4
_MOST_LINES = 40  # levels that are drawn as lines
_BEYOND = 1.5  # steps beyond the outermost levels that are drawn
_BARS_A_STEP, _BARS_OF_MANY = 30, 100  # of grids with few levels and with many


def bins(model: Any, layers: Sequence[str] | None = None) -> Any:
    """Draw kernels in units of their steps as histograms, with their levels as dotted lines.

    Weights more than 1.5 steps beyond the outermost level are drawn at that distance. Where
    training gathers weights at their levels, the bars are at the lines.

    Args:
        model: from `quantize_apply` or `load_model`.
        layers: names of the kernels' layers; None for kernels of fewer than 8 bits, or for all if
            there are none.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if the model is not quantized, a layer has no kernel, or a kernel has no grid
            yet.
    """
    figure_class = _figure_class()
    require_quantized(model)
    chosen = _chosen(kernel_sites(model), layers)
    columns = min(_COLUMNS, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    figure = figure_class(figsize=(4 * columns, 3 * rows), layout="constrained")
    axes = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axis, site in zip(axes, chosen, strict=False):
        _draw_bins(axis, site)
    for axis in axes[len(chosen) :]:
        axis.remove()
    return figure


def steps(history: Any, layers: Sequence[str] | None = None) -> Any:
    """Draw the steps of kernels and activations over the epochs.

    Args:
        history: the History that `fit` returns with the callback `QuantizerLog(steps=True)`, or its
            dict.
        layers: names of layers; None for all.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if the history has no steps, or none for a given layer.
    """
    figure_class = _figure_class()
    logged: Mapping[str, Sequence[float]] = getattr(history, "history", history)
    found = {
        name.removeprefix(STEP): values for name, values in logged.items() if name.startswith(STEP)
    }
    if not found:
        raise ValueError(
            "There are no steps in the history: give fit the callback "
            "tfbinreg.QuantizerLog(steps=True)."
        )
    names = _known(layers, list(found))
    figure = figure_class(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    epochs = list(getattr(history, "epoch", ())) or range(len(found[names[0]]))
    for name in names:
        axis.plot(epochs, found[name], marker=".", label=name)
    axis.set(xlabel="epoch", ylabel="step", yscale="log")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def pareto(results: Iterable[Result], *, limit: float | None = None) -> Any:
    """Draw bytes and accuracy of several models, and a line through the Pareto front.

    Args:
        results: name, bytes and accuracy (0 to 1) of each model.
        limit: available bytes, drawn as a line.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if there are no results, or a number is not finite.
    """
    figure_class = _figure_class()
    given = list(results)
    if not given:
        raise ValueError("There are no results to draw.")
    if not all(math.isfinite(number) for _, *numbers in given for number in numbers):
        raise ValueError("Bytes and accuracies must be finite numbers.")
    figure = figure_class(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    front = pareto_front(given)
    axis.plot([own[1] for own in front], [100 * own[2] for own in front], color="tab:blue")
    axis.scatter([own[1] for own in given], [100 * own[2] for own in given], color="tab:blue")
    for name, size, accuracy in given:
        axis.annotate(
            name, (size, 100 * accuracy), xytext=(4, 4), textcoords="offset points", fontsize=8
        )
    if limit is not None:
        axis.axvline(limit, color="tab:red", linestyle=":", label=f"{limit:,.0f} bytes")
        axis.legend(fontsize="small")
    axis.margins(0.1)
    axis.set(xlabel="bytes", ylabel="accuracy, percent")
    return figure


def pareto_front(results: Iterable[Result]) -> list[Result]:
    """The models on the Pareto front, by bytes: each is more accurate than all smaller ones.

    Args:
        results: as for `pareto`.
    """
    front: list[Result] = []
    for result in sorted(results, key=lambda own: (own[1], -own[2])):
        if not front or result[2] > front[-1][2]:
            front.append(result)
    return front


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            "Pictures need matplotlib: pip install matplotlib, or 'tfbinreg[plot]'"
        ) from None
    return Figure


def _chosen(sites: Sequence[Site], layers: Sequence[str] | None) -> list[Site]:
    if layers is None:
        few = [site for site in sites if site.quantizer.bits < _FEW_BITS]
        return few or list(sites)
    names = _known(layers, [site.name for site in sites])
    return [site for site in sites if site.name in names]


def _known(layers: Sequence[str] | None, names: Sequence[str]) -> list[str]:
    """The requested names, all of which must exist."""
    if layers is None:
        return list(names)
    asked = [layers] if isinstance(layers, str) else list(layers)
    missing = [name for name in asked if name not in names]
    if missing or not asked:
        raise ValueError(f"There is no layer {missing} among {', '.join(names)}.")
    return asked


def _draw_bins(axis: Any, site: Site) -> None:
    grid = site.grid()
    low, high = grid.qmin - _BEYOND, grid.qmax + _BEYOND
    levels = _levels(grid)
    has_few = len(levels) <= _MOST_LINES
    bars = round(_BARS_A_STEP * (high - low)) if has_few else _BARS_OF_MANY
    axis.hist(np.clip(scaled_weights(site), low, high), bins=np.linspace(low, high, bars + 1))
    for level in levels if has_few else ():
        axis.axvline(level, color="tab:red", linewidth=0.8, linestyle=":")
    widths = bits_text(grid.bits if grid.widths is None else grid.widths)
    axis.set(title=f"{site.name}, bits: {widths}", xlabel="weight / step", ylabel="weights")


def _levels(grid: Grid) -> list[int]:
    """The codes of a grid; if channels differ, those of any channel."""
    if grid.levels is not None:
        return list(grid.levels)
    if grid.channel_levels is not None:
        return sorted({level for levels in grid.channel_levels for level in levels})
    if grid.channel_bits is None:
        return list(range(grid.qmin, grid.qmax + 1))
    return sorted({code for bits in set(grid.channel_bits) for code in _codes(bits)})


def _codes(bits: int) -> Sequence[int]:
    if bits == 1:
        return (-1, 1)
    low, high = channel_range(bits)
    return range(low, high + 1)
