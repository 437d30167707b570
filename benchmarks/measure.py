"""Shared code of timing benchmarks: medians, paired ratios, tables, a machine description."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Summary:
    """Median and quartiles of a sample."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, sample: Sequence[float]) -> Summary:
        """Summarize a sample; raises ValueError if it is empty."""
        if len(sample) == 0:
            raise ValueError("Expected at least one measurement, got none.")
        lower, median, upper = np.percentile(sample, [25, 50, 75])
        return cls(float(median), float(lower), float(upper))


def paired_ratio(values: Sequence[float], baseline: Sequence[float]) -> Summary:
    """Summary of values[i] / baseline[i]: what disturbs a whole round cancels.

    Raises:
        ValueError: if the two have different lengths.
    """
    if len(values) != len(baseline):
        raise ValueError(f"Expected rounds in pairs, got {len(values)} and {len(baseline)}.")
    return Summary.of([value / base for value, base in zip(values, baseline, strict=True)])


def median_time(function: Callable[[], Any], count: int) -> float:
    """Median of the seconds that `count` consecutive calls take."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def interleave(
    functions: dict[str, Callable[[int], float]], rounds: int, steps: int
) -> dict[str, list[float]]:
    """Call every function with `steps` in every round, in reverse order in every other round.

    Returns:
        For each name what its function returned, one number per round.
    """
    results: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for index in range(rounds):
        for name in names if index % 2 == 0 else reversed(names):
            results[name].append(functions[name](steps))
    return results


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain columns; the first one is aligned left, the others right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def machine() -> dict[str, Any]:
    """Date, processor, cores this process may use, and Python version."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    names = [
        line.split(":", 1)[1].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    return names[0] if names else platform.processor()
