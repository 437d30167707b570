"""The pictures of a study: accuracy over the epochs, and differences with their intervals."""

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
    """Two pictures for each net and setting of bits that has results; their paths."""
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
    return written


def _curves(arms: dict[str, Results], title: str, path: Path) -> Path:
    """Mean accuracy on the choice rows after each epoch, with the moving statistics."""
    figure, axis = plt.subplots(figsize=(7, 4))
    for name, results in arms.items():
        curves = [result["curves"]["choice"] for result in results.values()]
        length = min(len(curve) for curve in curves)  # a run that diverged is shorter
        mean = np.mean([curve[:length] for curve in curves], axis=0)
        axis.plot(np.arange(1, length + 1), mean, label=f"{name} (n = {len(curves)})")
    axis.set(title=title, xlabel="epoch", ylabel="accuracy on the choice rows, %")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return _save(figure, path)


def _differences(study: Study, arms: dict[str, Results], title: str, path: Path) -> Path:
    """Differences from the baseline with the re-estimated statistics, and their 95 % intervals."""
    part = "test" if study.report else "choice"
    baseline = accuracies(arms[study.baseline], "reestimated", part)
    figure, axis = plt.subplots(figsize=(7, 1.2 + 0.35 * len(arms)))
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


def _save(figure: plt.Figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
