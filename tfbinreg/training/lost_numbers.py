"""Numbers that a grid cannot represent next to far larger ones, reported by layer name."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tfbinreg.core.grid import code_range
from tfbinreg.core.problems import Problem
from tfbinreg.core.warning import QuantizationWarning
from tfbinreg.network.graph import Node
from tfbinreg.planning.plan import GridPlan, Plan
from tfbinreg.training.batch_statistics import BatchStatistics
from tflite_tools.arithmetic.lost_numbers import lost

_SHOWN = 8  # columns in one message


@dataclasses.dataclass
class _Range:
    """Smallest and largest value of each column (the last axis) of a tensor, over batches."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, values: Any) -> _Range:
        rows = np.asarray(values, np.float64)
        rows = rows.reshape(-1, rows.shape[-1])
        return cls(rows.min(axis=0), rows.max(axis=0))

    def add(self, other: _Range) -> None:
        self.low = np.minimum(self.low, other.low)
        self.high = np.maximum(self.high, other.high)

    @property
    def span(self) -> float:
        return float(self.high.max() - self.low.min())

    @property
    def largest(self) -> float:
        return float(max(np.abs(self.low).max(), np.abs(self.high).max()))


def coarse_numbers(plan: Plan, model: Any, batches: Sequence[Any]) -> tuple[Problem, ...]:
    """Find what loses most of its levels because it shares a grid with far larger numbers.

    The comparison covers concatenated tensors and the columns (last axis) of each input and output,
    as the float model computes them, on grids that cover their range.

    Args:
        plan: plan of `model`.
        model: a normalized model; it is not changed.
        batches: model inputs, see `sample_batches`.

    Returns:
        A `Problem` for each of them. Numbers that span fewer than 4 levels, and less than a
        sixteenth of the largest number on their grid, count as lost.
    """
    ends = {*plan.graph.inputs, *plan.graph.outputs}
    joins = [node for node in plan.graph.nodes if node.kind == "Concatenate"]
    wanted = ends.union(*(join.inputs for join in joins))
    ranges = _ranges(model, batches, wanted)
    found: list[Problem] = []
    for join in joins:
        found += _shared(join, _grid(plan, join.index), [ranges[i] for i in join.inputs])
    told = {problem.layer for problem in found}
    for index in sorted(ends):
        if plan.graph.nodes[index].name in told:
            continue
        what = "input" if index in plan.graph.inputs else "output"
        found += _columns(plan.graph.nodes[index], _grid(plan, index), ranges[index], what)
    return tuple(found)


def warn_coarse(problems: Iterable[Problem]) -> None:
    """Warn about each of them."""
    for problem in problems:
        warnings.warn(str(problem), QuantizationWarning, stacklevel=3)


def _ranges(model: Any, batches: Sequence[Any], wanted: set[int]) -> dict[int, _Range]:
    """The ranges of the outputs of these nodes."""
    ranges: dict[int, _Range] = {}
    run = BatchStatistics(model)

    def observe(node: Node, output: Any) -> None:
        if node.index in wanted and len(output.shape) > 1:
            found = _Range.of(output)
            ranges.setdefault(node.index, found).add(found)

    with run.momentum(1.0):
        for batch in batches:
            run(batch, observe)
    return ranges


def _grid(plan: Plan, index: int) -> GridPlan | None:
    """The learned grid on which the output of a node lies."""
    grid = plan.grids.get(plan.same_grid.get(index, index))
    return None if grid is None or grid.prescribed else grid


def _step(grid: GridPlan, largest: float) -> float:
    return largest / code_range(grid.bits, grid.signed)[1]


def _shared(join: Node, grid: GridPlan | None, parts: Sequence[_Range]) -> Iterator[Problem]:
    """Tensors that are concatenated with far larger ones."""
    if grid is None:
        return
    largest = max(part.largest for part in parts)
    spans, step = np.array([part.span for part in parts]), _step(grid, largest)
    for number in np.flatnonzero(lost(spans, step, largest)):
        yield Problem(
            join.name,
            f"its input {number} spans {spans[number]:.3g} and shares a grid of steps of about "
            f"{step:.3g} with numbers up to {largest:.3g}, so most of it is lost",
            "make them separate outputs, or bring them to similar ranges: train on scaled targets, "
            "take off an offset that all have",
        )


def _columns(node: Node, grid: GridPlan | None, found: _Range, what: str) -> Iterator[Problem]:
    """Columns of an input or output that are far smaller than others."""
    if grid is None:
        return
    spans, step = found.high - found.low, _step(grid, found.largest)
    narrow = np.flatnonzero(lost(spans, step, found.largest))
    if not len(narrow):
        return
    shown = ", ".join(str(column) for column in narrow[:_SHOWN])
    more = f" and {len(narrow) - _SHOWN} more" if len(narrow) > _SHOWN else ""
    remedies = {
        "input": "scale the columns to similar ranges before the model",
        "output": "train on targets of similar ranges, or make separate outputs of them",
    }
    yield Problem(
        node.name,
        f"column {shown}{more} of this {what} spans at most {spans[narrow].max():.3g}; the grid, "
        f"for numbers up to {found.largest:.3g}, has steps of about {step:.3g}, so most of it is "
        "lost",
        remedies[what],
    )
