"""The note on numbers that a file's grids cannot represent next to far larger ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tflite_tools.arithmetic.lost_numbers import lost
from tflite_tools.checks.agreement import FIXED_GRID
from tflite_tools.checks.verdict import Check, Verdict
from tflite_tools.running import samples
from tflite_tools.running.runtime import Run
from tflite_tools.schema.contents import Model, Tensor

_SHOWN = 8  # columns in one note
_WITHIN_A_LEVEL = 0.5  # in steps: what stays on one level may still vary


def check_coarse(model: Model, inputs: Mapping[str, np.ndarray], run: Run) -> tuple[Check, ...]:
    """A warning called "coarse" that names inputs, outputs and concatenated tensors with lost
    numbers (`lost_numbers.lost`); nothing if there are none.

    Grids that the runtimes prescribe (softmax, sigmoid, tanh) are left out.

    Args:
        model: the file, with a manifest.
        inputs: typical inputs, name of an input -> real numbers, samples along the first axis.
        run: of these inputs, with `agreement.watched_tensors` watched.
    """
    joined = list(_joined(model, run))
    told = {layer for layer, _ in joined}
    columns = [*_inputs(model, inputs), *_outputs(model, run)]
    problems = joined + [problem for problem in columns if problem[0] not in told]
    if not problems:
        return ()
    text = "; ".join(f"{layer}: {what}" for layer, what in problems)
    advice = "bring them to similar ranges, or make them separate inputs or outputs"
    layers = tuple(dict.fromkeys(layer for layer, _ in problems))
    return (Check("coarse", Verdict.WARNING, f"{text} ({advice})", layers),)


def _inputs(model: Model, inputs: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    names = samples.input_names(model)
    values = samples.by_name(inputs, names, "The file's inputs")
    for name, index in zip(names, model.main.inputs, strict=True):
        rows = np.asarray(values[name], np.float64)
        found = samples.input_grid(model, model.main.tensors[index])
        if found is not None and rows.ndim > 1:
            yield from _columns(name, rows, float(found.quantization.scale[0]), "input")


def _outputs(model: Model, run: Run) -> Iterator[tuple[str, str]]:
    prescribed = {out for op in model.main.ops if op.name in FIXED_GRID for out in op.outputs}
    for index, rows in zip(model.main.outputs, samples.real(model, run.outputs), strict=True):
        tensor = samples.edge_partner(model, model.main.tensors[index])
        if tensor.quantization is None or tensor.index in prescribed or rows.ndim < 2:
            continue
        step = float(tensor.quantization.scale[0])
        yield from _columns(tensor.name, rows.astype(np.float64), step, "output", _WITHIN_A_LEVEL)


def _columns(
    name: str, rows: np.ndarray, step: float, what: str, within: float = 0.0
) -> Iterator[tuple[str, str]]:
    """Columns (the last axis) that are far smaller than others; `within` is what stays unseen."""
    rows = rows.reshape(-1, rows.shape[-1])
    largest = float(np.abs(rows).max(initial=0.0))
    spans = np.maximum(np.ptp(rows, axis=0), within * step)
    narrow = np.flatnonzero(lost(spans, step, largest))
    if not len(narrow):
        return
    shown = ", ".join(map(str, narrow[:_SHOWN]))
    more = f" and {len(narrow) - _SHOWN} more" if len(narrow) > _SHOWN else ""
    yield (
        name,
        f"column {shown}{more} of this {what} spans less than {spans[narrow].max() / step + 1:.0f} "
        f"steps of {step:.3g}, on a grid with numbers up to {largest:.3g}: most of it is lost",
    )


def _joined(model: Model, run: Run) -> Iterator[tuple[str, str]]:
    """Tensors that are concatenated with far larger ones."""
    for op in model.main.ops:
        parts = model.main.taken(op)
        watched = all(part.index in run.seen and part.quantization is not None for part in parts)
        if op.name == "CONCATENATION" and watched:
            yield from _shared(model.main.made(op)[0].name, parts, run.seen)


def _shared(
    name: str, parts: Sequence[Tensor], seen: Mapping[int, np.ndarray]
) -> Iterator[tuple[str, str]]:
    levels = [np.flatnonzero(seen[part.index]) - 128 for part in parts]
    zeros = [int(part.quantization.zero_point[0]) for part in parts if part.quantization]
    largest = max(np.abs(own - zero).max() for own, zero in zip(levels, zeros, strict=True))
    spans = np.array([max(float(np.ptp(own)), _WITHIN_A_LEVEL) for own in levels])
    narrow = lost(spans, 1.0, float(largest))
    for number in np.flatnonzero(narrow).tolist():
        yield (
            name,
            f"its input {number} spans {np.ptp(levels[number]) + 1} levels of a grid that it "
            f"shares with numbers {largest} levels from zero: most of it is lost",
        )
