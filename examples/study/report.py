"""The tables of a study: means over the seeds, and differences from the baseline seed by seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from examples.study.folders import Folders, read_result
from examples.study.statistics import Mean, mean_of, paired_difference
from examples.study.table import Study

STATISTICS = ("moving", "reestimated_plain", "reestimated", "deployed")
Results = dict[int, dict[str, Any]]  # by seed


def read_group(study: Study, folders: Folders, net: str, bits: str) -> dict[str, Results]:
    """The finished runs of a net at some bits, by arm and seed."""
    found: dict[str, Results] = {name: {} for name in study.arms}
    for row in study.runs():
        if row.net == net and row.key.startswith(f"{net}-{bits}-"):
            result = read_result(folders, row)
            if result is not None:
                found[row.name][row.seed] = result
    return found


def groups(study: Study) -> Iterator[tuple[str, str]]:
    """Every net with every setting of bits."""
    for net in study.nets:
        for bits in study.bits:
            yield net, bits


def accuracies(results: Results, statistics: str, part: str) -> dict[int, float]:
    """Accuracies by seed, of runs that did not diverge and have been measured so."""
    finals = {seed: result["final"] for seed, result in results.items()}
    return {seed: final[statistics][part] for seed, final in finals.items() if statistics in final}


def report(study: Study, folders: Folders) -> str:
    """All tables as Markdown."""
    parts = [f"# {study.name}", study.about + ".", _method(study)]
    for net, bits in groups(study):
        arms = read_group(study, folders, net, bits)
        if any(arms.values()):
            kinds = STATISTICS[:-1] if bits == "float" else STATISTICS
            parts += [f"## {net}, {bits}", _table(study, arms, kinds)]
    return "\n\n".join(parts)


def _method(study: Study) -> str:
    part = "test rows" if study.report else "choice rows; no test row was looked at"
    return (
        f"Accuracy in percent on the {part}: mean ± standard deviation over the seeds. "
        f"`difference` is from `{study.baseline}` on the same seeds, with its 95 % interval "
        "(Student's t of the paired differences, n - 1 degrees of freedom, not corrected for the "
        "number of arms; – for fewer than two seeds); bold where it excludes zero. The columns say "
        "which normalization statistics are used. `near level` is the share of weights within 0.1 "
        "step of their level at the end, in percent; `error` is the mean squared distance from "
        "the levels, in steps."
    )


def _table(study: Study, arms: dict[str, Results], kinds: Sequence[str]) -> str:
    part = "test" if study.report else "choice"
    columns = [
        "arm",
        "n",
        *(f"{kind} | difference" for kind in kinds),
        "near level",
        "error",
        "bytes",
        "s / epoch",
    ]
    count = 6 + 2 * len(kinds)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * count]
    for name, results in arms.items():
        if not results:
            continue
        cells = [name, _count(results)]
        for kind in kinds:
            values = accuracies(results, kind, part)
            baseline = accuracies(arms[study.baseline], kind, part)
            cells.append(_plain(mean_of(list(values.values())) if values else None))
            same = name == study.baseline
            cells.append("" if same else _difference(paired_difference(values, baseline)))
        near, error = _last(results, "near_level"), _last(results, "error")
        cells += [
            "" if near is None else f"{100 * near:.1f}",
            "" if error is None else f"{error:.3f}",
        ]
        cells += [_bytes(results), _seconds(results)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _count(results: Results) -> str:
    diverged = sum(result["card"]["diverged"] for result in results.values())
    return f"{len(results)}" + (f", {diverged} diverged" if diverged else "")


def _plain(value: Mean | None) -> str:
    if value is None:
        return "–"
    spread = "" if math.isnan(value.deviation) else f" ± {value.deviation:.2f}"
    return f"{value.mean:.2f}{spread}"


def _difference(value: Mean | None) -> str:
    if value is None:
        return "–"
    if math.isnan(value.half_width):
        return f"{value.mean:+.2f} (–)"
    low, high = value.mean - value.half_width, value.mean + value.half_width
    text = f"{value.mean:+.2f} ({low:+.2f} to {high:+.2f})"
    return f"**{text}**" if value.excludes_zero else text


def _last(results: Results, curve: str) -> float | None:
    """The mean of a curve's last value."""
    curves = [result["curves"].get(curve) for result in results.values()]
    values = [values[-1] for values in curves if values]
    return mean_of(values).mean if values else None


def _bytes(results: Results) -> str:
    """Of weights and constants in the C, where it was counted."""
    counts = [result["card"].get("c_bytes") for result in results.values()]
    known = [count for count in counts if count is not None]
    return f"{mean_of(known).mean:,.0f}" if known else ""


def _seconds(results: Results) -> str:
    """Processor time of a run divided by its epochs."""
    cards = [result["card"] for result in results.values()]
    return f"{mean_of([c['cpu_seconds'] / c['settings']['arm']['epochs'] for c in cards]).mean:.1f}"
