"""LAPQ: steps of all tensors together that lower the loss on a few labelled samples; no training.

Nahshan et al., "Loss Aware Post-training Quantization" (arXiv 1911.07190). At 4 bits and fewer the
best step of one tensor depends on those of the others, so steps that are chosen one by one are not
the best together. The body of the paper could not be read; the implementation follows the authors'
released code:

1. For each p on a grid from 2 to 4, every tensor gets the step with the least mean |Q(x) - x|^p
   (`lp_steps`), and the loss is measured.
2. A parabola is fitted to loss(p); the steps of its vertex p* are measured too, and the best so far
   is the start. If the parabola is not convex, p* is the best p of the grid.
3. Powell's method (`powell`) moves all steps.

Differences from that code:

- Levels are those of the model's grids, two's complement codes with zero. The code has 2^b levels
  without zero, which no integer kernel has.
- The code leaves out the first and the last convolution and ReLU, which it does not quantize. Here
  they are quantized: `first_last` sets whether first and last kernels, inputs and outputs take
  part. Hidden activations always do.
- Powell's variables are the logarithms of the steps' factors, and its line search never accepts a
  higher loss, unlike SciPy's bounded one.
- Kernels with a step per channel get the Lp step of each channel; Powell moves all of them by one
  factor.
- The mean error of quantized weights is subtracted from the biases, not from the weights, which
  would leave their grid. With D = Q(w) - w, the rows of D being inputs, it is for each output
  channel

      delta_bias = -sum_i E[x_i] D_i

  which is the released code's -mean(D) * E[sum_i x_i] if all inputs have the same mean. The mean
  output of a layer is then that of its float kernel.
- Normalizations that are not folded use the statistics of each batch while Powell searches, and
  those of the quantized model afterwards, as in calibration. Statistics measured at certain steps
  would make all other steps look worse. These normalizations set the means of their inputs, whose
  kernels get no delta_bias.

No part ends with a higher loss than it began with, because the best measured state is kept.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from tfbinreg.core.powell import parabola_vertex, powell
from tfbinreg.methods.contract import About, Method
from tfbinreg.methods.lapq_search import Search, corrected_kernels
from tfbinreg.methods.solver_view import Solved, SolverView

_LEAST_P, _MOST_P = 2.0, 4.0
_WIDTH = 0.2  # of Powell's first steps, in the logarithm
_PER_LINE = 6  # evaluations, about
_SECONDS = 5.0  # between two lines of progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class LapqOptions:
    """How long and what LAPQ searches.

    Attributes:
        p_count: number of p from 2 to 4 that are tried, at least 3.
        powell_iterations: maximum number of passes through all steps; 0 skips Powell's method.
        max_evaluations: maximum number of loss evaluations in Powell's method.
        reach: the largest factor by which Powell changes a step, up or down.
        bias_correction: whether the mean error of quantized weights is subtracted from the biases.
        first_last: whether first and last kernels, inputs and outputs take part.

    Raises:
        ValueError: for a value outside its range.
    """

    p_count: int = 10
    powell_iterations: int = 2
    max_evaluations: int = 1000
    reach: float = 2.0
    bias_correction: bool = True
    first_last: bool = False

    def __post_init__(self) -> None:
        for name, least in {"p_count": 3, "powell_iterations": 0, "max_evaluations": 1}.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be an integer from {least} on, got {value!r}.")
        if not 1.0 < self.reach < math.inf:
            raise ValueError(f"reach must be above 1, got {self.reach!r}.")
        for name in ("bias_correction", "first_last"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}.")


class _Progress:
    """Reports the progress of a phase: a line at most every few seconds, a progress bar each time.

    Args:
        view: which prints.
        phase: what is done.
        expected: evaluations, about.
        done: by earlier phases.
        total: of all phases, about.
    """

    def __init__(
        self, view: SolverView, phase: str, expected: int, *, done: int, total: int
    ) -> None:
        self._view, self._phase, self._expected = view, phase, expected
        self._done, self._total = done, total
        self._count, self._start = 0, time.monotonic()
        self._told = self._start

    def count(self, least: float) -> None:
        """Another evaluation is done."""
        self._count += 1
        share = (self._done + min(self._count, self._expected)) / self._total
        self._view.advance(share, f"lapq, {self._phase}, least loss {least:.4g}")
        now = time.monotonic()
        if now - self._told < _SECONDS:
            return
        self._told = now
        left = (now - self._start) / self._count * max(0, self._expected - self._count)
        self._view.tell(
            f"lapq, {self._phase}: evaluation {self._count} of about {self._expected}, least loss "
            f"{least:.4g}, about {left:.0f} s left"
        )


def _expected(search: Search, options: LapqOptions) -> tuple[int, int]:
    """Evaluations of both phases, about."""
    lines = options.powell_iterations * len(search.tensors)
    powell = min(options.max_evaluations, lines * _PER_LINE + 1) if lines else 0
    return options.p_count + 1, powell


def _lp_phase(view: SolverView, search: Search, options: LapqOptions) -> str:
    """Measure the steps of each p and of p*; says what p* was."""
    powers = np.linspace(_LEAST_P, _MOST_P, options.p_count)
    own, powell = _expected(search, options)
    progress = _Progress(view, "steps by p", own, done=0, total=own + powell)
    losses = []
    for scales in search.lp_scales(list(powers)):
        losses.append(search.measure(scales))
        progress.count(search.loss)
    if not np.any(np.isfinite(losses)):
        return "steps by p: no p gives a finite loss"
    vertex = parabola_vertex(powers, losses)
    if vertex.place not in powers:
        (scales,) = search.lp_scales([vertex.place])
        search.measure(scales)
        progress.count(search.loss)
    reason = f", the best p tried, as {vertex.problem}" if vertex.problem else ""
    return f"steps by p, p* = {vertex.place:.2f}{reason}"


def _powell_phase(view: SolverView, search: Search, options: LapqOptions) -> str:
    """Move all steps from the best so far; says how many evaluations it took."""
    start, count = search.scales, len(search.tensors)
    least: tuple[float, list[np.ndarray]] = math.inf, start
    before, own = _expected(search, options)
    progress = _Progress(view, "Powell", own, done=before, total=before + own)

    def loss(logarithms: np.ndarray) -> float:
        nonlocal least
        scales = [s * math.exp(x) for s, x in zip(start, logarithms, strict=True)]
        search.place(scales)
        found = view.batch_loss()
        if found < least[0]:
            least = found, scales
        progress.count(least[0])
        return found

    try:
        found = powell(
            loss,
            np.zeros(count),
            bound=math.log(options.reach),
            width=min(_WIDTH, math.log(options.reach)),
            iterations=options.powell_iterations,
            most_evaluations=options.max_evaluations,
        )
    finally:  # also when it is interrupted
        search.measure(least[1])
    end = ", all there may be" if found.spent else ""
    return f"Powell, {found.iterations} iterations, {found.evaluations} evaluations{end}"


def _bias_phase(view: SolverView, search: Search, options: LapqOptions) -> str:
    search.correct()
    return "biases"


_Phase = Callable[[SolverView, Search, LapqOptions], str]


def _fit(view: SolverView, options: LapqOptions) -> Sequence[Solved]:
    """Lower the loss.

    However it ends, for instance by Ctrl-C, the model is left in the best measured state, which is
    initially its own.
    """
    search = Search(view, options.bias_correction, options.first_last)
    phases: list[tuple[str, _Phase]] = [("steps", _lp_phase)]
    if options.powell_iterations:
        phases.append(("powell", _powell_phase))
    if options.bias_correction and corrected_kernels(view):
        phases.append(("biases", _bias_phase))
    parts: list[Solved] = []
    try:
        for name, phase in phases:
            before = search.loss
            note = _recalled(view, search, name)
            if note is None:
                note = phase(view, search, options)
                arrays = {str(index): scale for index, scale in enumerate(search.scales)}
                if name != "biases":
                    lower = search.loss < before
                    view.keep(name, note=np.array(note), lower=np.array(lower), **arrays)
            if name == "steps":
                search.choose_biases()
            parts.append(Solved(note, before, search.loss))
            view.tell(f"lapq, {parts[-1]}")
    finally:
        search.end()
    return parts


def _recalled(view: SolverView, search: Search, name: str) -> str | None:
    """Restore an earlier run's result of a phase; returns its message, None if there is none."""
    kept = view.recall(name)
    if kept is None:
        return None
    if kept["lower"]:
        search.measure([kept[str(index)] for index in range(len(search.tensors))])
    return str(kept["note"])


LAPQ = Method(
    name="lapq",
    options=LapqOptions,
    fit=_fit,
    needs_labels=True,
    about=About(
        what="steps of all tensors together that lower the loss on labelled samples (LAPQ)",
        trains="steps and biases, without training",
        bits="2-8",
        granularity="as the model's method has it",
        paper="Nahshan et al. 2019",
    ),
)
