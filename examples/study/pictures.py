"""The pictures of a study: accuracies, differences with their intervals, and the weights' bins."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from examples.study.folders import Folders
from examples.study.report import Results, accuracies, groups, read_group
from examples.study.statistics import paired_difference
from examples.study.table import Study


def draw(study: Study, folders: Folders, output: Path) -> list[Path]:
    """Up to four pictures for each net and setting of bits that has results; their paths."""
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for net, bits in groups(study):
        arms = {n: r for n, r in read_group(study, folders, net, bits).items() if r}
        if not arms:
            continue
        title = f"{net}, {bits}"
        written.append(_curves(arms, title, output / f"{study.name}-{net}-{bits}-curves.png"))
        if len(arms) > 1 and study.baseline in arms:
            path = output / f"{study.name}-{net}-{bits}-differences.png"
            written.append(_differences(study, arms, title, path))
        # Runs that diverged at once have no curves, float ones none of the bins.
        arms = {name: own for name in arms if (own := _with_bins(arms[name]))}
        if arms:
            written.append(_bins(arms, title, output / f"{study.name}-{net}-{bits}-bins.png"))
            path = output / f"{study.name}-{net}-{bits}-errors.png"
            written.append(_errors(study, arms, title, path))
    return written


def _with_bins(results: Results) -> Results:
    return {seed: result for seed, result in results.items() if result["curves"].get("error")}


def _curves(arms: dict[str, Results], title: str, path: Path) -> Path:
    """Mean accuracy on the choice rows after each epoch, with the moving statistics."""
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    _plot(axis, arms, "choice")
    axis.set(title=title, xlabel="epoch", ylabel="accuracy on the choice rows, %")
    _legend(figure, axis)
    return _save(figure, path)


def _plot(axis: plt.Axes, arms: dict[str, Results], curve: str) -> None:
    """Each arm's mean of a curve over its seeds."""
    for name, results in arms.items():
        curves = [result["curves"][curve] for result in results.values()]
        length = min(len(values) for values in curves)  # a run that diverged is shorter
        mean = np.mean([values[:length] for values in curves], axis=0)
        axis.plot(np.arange(1, length + 1), mean, label=f"{name} (n = {len(curves)})")
    axis.set(xlabel="epoch")
    axis.grid(alpha=0.3)


def _bins(arms: dict[str, Results], title: str, path: Path) -> Path:
    """How the weights move onto their levels, and how many still change their codes."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    wanted = {
        "near_level": "share of weights within 0.1 step of their level",
        "error": "mean squared distance, steps²",
        "flips": "share of codes that changed in the epoch",
    }
    for axis, (curve, label) in zip(axes, wanted.items(), strict=True):
        _plot(axis, arms, curve)
        axis.set(ylabel=label)
    for axis in axes[1:]:
        axis.set(yscale="log")
    figure.suptitle(title)
    _legend(figure, axes[0])
    return _save(figure, path)


def _errors(study: Study, arms: dict[str, Results], title: str, path: Path) -> Path:
    """Accuracy with the re-estimated statistics over how far the weights are from their levels."""
    part = "test" if study.report else "choice"
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    for index, (name, results) in enumerate(arms.items()):
        found = accuracies(results, "reestimated", part)
        errors = [results[seed]["curves"]["error"][-1] for seed in found]
        marker = "osD^v"[index // 10 % 5]  # after ten arms the colours begin anew
        axis.plot(errors, list(found.values()), marker, alpha=0.7, label=name)
    axis.set(
        title=title,
        xlabel="mean squared distance of the weights from their levels at the end, steps²",
        ylabel=f"accuracy on the {part} rows, %",
    )
    axis.grid(alpha=0.3)
    _legend(figure, axis)
    return _save(figure, path)


def _differences(study: Study, arms: dict[str, Results], title: str, path: Path) -> Path:
    """Differences from the baseline with the re-estimated statistics, and their 95 % intervals."""
    part = "test" if study.report else "choice"
    baseline = accuracies(arms[study.baseline], "reestimated", part)
    figure, axis = plt.subplots(figsize=(7, 1.2 + 0.35 * len(arms)), layout="constrained")
    names = [name for name in arms if name != study.baseline]
    for height, name in enumerate(reversed(names)):
        found = paired_difference(accuracies(arms[name], "reestimated", part), baseline)
        if found is not None:
            width = 0.0 if math.isnan(found.half_width) else found.half_width
            axis.errorbar(found.mean, height, xerr=width, fmt="o", color="tab:blue", capsize=3)
    axis.axvline(0, color="tab:gray", linewidth=0.8)
    axis.set_yticks(range(len(names)), list(reversed(names)))
    axis.set(title=title, xlabel=f"points over {study.baseline} on the {part} rows")
    return _save(figure, path)


def _legend(figure: plt.Figure, axis: plt.Axes) -> None:
    """Beside the axes, for there are many arms."""
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right", fontsize=8)


def _save(figure: plt.Figure, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
