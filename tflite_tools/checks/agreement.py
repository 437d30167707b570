"""The checks that run a file: activation levels, agreement of outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tflite_tools.checks.verdict import Check, decide
from tflite_tools.running import samples
from tflite_tools.running.runtime import Run
from tflite_tools.schema.contents import Model, Tensor
from tflite_tools.schema.manifest import ActivationEntry

# Operators whose output grid is a rule of the runtimes, not a learned one.
FIXED_GRID = frozenset({"SOFTMAX", "LOGISTIC", "TANH"})


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of agreement.

    Attributes:
        min_top1: smallest share of samples with the same best class.
        max_mean_lsb: largest mean difference, in steps of the output grid.
        max_lsb: largest single difference; None for no limit.
    """

    min_top1: float = 0.99
    max_mean_lsb: float = 1.0
    max_lsb: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_top1 <= 1.0:
            raise ValueError(f"min_top1 must be from 0 to 1, got {self.min_top1}.")
        if not self.max_mean_lsb >= 0.0:
            raise ValueError(f"max_mean_lsb must not be negative, got {self.max_mean_lsb}.")


EXACT = Limits(max_lsb=0.01)  # the same levels; real numbers differ in float32's last digits


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference between two sets of outputs. `top1` is None for outputs of a single value."""

    top1: float | None
    mean_lsb: float
    max_lsb: float

    def within(self, limits: Limits) -> bool:
        """Whether this counts as agreement."""
        top1 = self.top1 is None or self.top1 >= limits.min_top1
        single = limits.max_lsb is None or self.max_lsb <= limits.max_lsb
        return top1 and single and self.mean_lsb <= limits.max_mean_lsb

    def text(self) -> str:
        """One line."""
        top1 = "" if self.top1 is None else f"top-1 {100 * self.top1:.1f} %, "
        return f"{top1}mean {self.mean_lsb:.3f} LSB, max {self.max_lsb:.1f} LSB"

    def figures(self) -> dict[str, float]:
        """The numbers by name."""
        numbers = {"mean_lsb": self.mean_lsb, "max_lsb": self.max_lsb}
        return numbers if self.top1 is None else {"top1": self.top1, **numbers}


def watched_tensors(model: Model) -> dict[int, ActivationEntry]:
    """Index -> manifest entry of the activation tensors that can be watched."""
    entries = {entry.tensor: entry for entry in model.require_manifest().activations}
    return {
        tensor.index: entries[tensor.name]
        for tensor in model.main.tensors
        if tensor.name in entries and tensor.dtype == "INT8" and tensor.data is None
    }


def check_levels(model: Model, run: Run) -> Check:
    """Every b-bit activation stays on its grid: within its range, at most 2^b values.

    Args:
        model: the file, with a manifest.
        run: a run of LiteRT, with `watched_tensors` watched.
    """
    watched = watched_tensors(model)
    found = {entry.tensor for entry in watched.values()}
    activations = model.require_manifest().activations
    problems = [
        (entry.tensor, "the file has no such int8 activation")
        for entry in activations
        if entry.tensor not in found
    ]
    problems += [
        (tensor.name, f"the output of {op.name} is not in the manifest")
        for op in model.main.ops
        for tensor in model.main.made(op)
        if tensor.dtype == "INT8" and tensor.index not in watched and op.name not in FIXED_GRID
    ]
    for index, entry in watched.items():
        tensor = model.main.tensors[index]
        problems += [(entry.tensor, what) for what in _off_grid(tensor, entry, run.seen[index])]
    bits = sorted({entry.bits for entry in activations})
    widths = ", ".join(str(width) for width in bits)
    detail = f"{len(watched)} activation tensors of {widths} bits stay on their grids"
    return decide("levels", problems, detail, {"tensors": len(watched)})


def _off_grid(tensor: Tensor, entry: ActivationEntry, seen: np.ndarray) -> list[str]:
    low, high = samples.stored_range(entry)
    values = np.flatnonzero(seen) - 128
    problems = []
    if entry.qmax - entry.qmin + 1 > 2**entry.bits or not -128 <= low <= high <= 127:
        problems.append(f"codes {entry.qmin}..{entry.qmax} are no {entry.bits}-bit int8 grid")
    zero_points = [] if tensor.quantization is None else tensor.quantization.zero_point.tolist()
    if zero_points != [entry.zero_point]:
        problems.append(f"zero point {zero_points}, in the manifest [{entry.zero_point}]")
    if values.size and not low <= values[0] <= values[-1] <= high:
        problems.append(f"takes values {values[0]}..{values[-1]}, allowed {low}..{high}")
    if values.size > 2**entry.bits:
        problems.append(f"takes {values.size} values, allowed {2**entry.bits}")
    return problems


def check_agreement(
    model: Model,
    outputs: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    *,
    name: str,
    subject: str,
    limits: Limits,
) -> Check:
    """Two sets of real-valued outputs agree.

    Args:
        model: the file; its output grids are the unit of the differences.
        outputs: one array per output of the file, samples along the first axis.
        expected: the outputs to compare with.
        name: name of the check.
        subject: what is compared, for the detail.
        limits: what counts as agreement.

    Raises:
        ValueError: if the outputs have a different shape.
    """
    tensors = [model.main.tensors[index] for index in model.main.outputs]
    layers = samples.output_names(model)
    problems, texts, differences = [], [], []
    for layer, tensor, ours, theirs in zip(layers, tensors, outputs, expected, strict=True):
        grid = samples.output_grid(model, tensor)
        if grid is None:
            problems.append((layer, "the output is not on a grid"))
            continue
        difference = compare(ours, theirs, float(grid.scale[0]))
        differences.append(difference)
        texts.append(difference.text())
        if not difference.within(limits):
            problems.append((layer, f"{subject}: {difference.text()}"))
    worst = max(differences, key=lambda d: d.mean_lsb, default=None)
    figures = {} if worst is None else worst.figures() | {"samples": len(expected[0])}
    return decide(name, problems, f"{subject}: {'; '.join(texts)}", figures)


def compare(outputs: np.ndarray, expected: np.ndarray, scale: float) -> Difference:
    """Differences in steps of `scale`, and the share of samples with the same best class.

    The expected best class counts as matched if no other output exceeds it: on a grid of 2^8
    values, several classes often tie.

    Raises:
        ValueError: if the shapes differ.
    """
    if outputs.shape != expected.shape:
        raise ValueError(f"The outputs have shape {outputs.shape}, expected {expected.shape}.")
    steps = np.abs(outputs.astype(np.float64) - expected) / scale
    top1 = None
    if outputs.ndim > 1 and outputs.shape[-1] > 1:
        best = np.argmax(expected, axis=-1)[..., None]
        reached = np.take_along_axis(outputs, best, axis=-1)[..., 0]
        top1 = float(np.mean(reached >= outputs.max(axis=-1)))
    return Difference(top1, float(steps.mean()), float(steps.max()))
