"""TSQ's second step as NumPy functions: few-bit kernels by least squares, layer by layer.

The source is told in `tsq`. Everything is float64 and runs over groups and output channels at once.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfbinreg.core.weight_starts import start_step

_INSIDE = 0.02  # of a step, from the edges of a bin


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LayerTask:
    """What a layer shall compute.

    Attributes:
        inputs: X, (groups, rows, inputs): what the quantized layers before it give.
        targets: Y, (groups, rows, outputs): numbers on the grid behind it in the net of step 1.
        weights: of step 1, (groups, inputs, outputs).
        factor: f, (groups, outputs), of the normalization behind it.
        offset: o, (groups, outputs), likewise, with the bias.
        low: smallest number on the grid behind it, -inf without one.
        high: largest.
        qmax: codes are -qmax to qmax; 1 is ternary.
        shared: whether the outputs of a group have one scale.
    """

    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    factor: np.ndarray
    offset: np.ndarray
    low: float
    high: float
    qmax: int
    shared: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Coded:
    """A kernel as codes times scale.

    Attributes:
        codes: whole numbers, (groups, inputs, outputs).
        scale: alpha, (groups, 1, outputs), (groups, 1, 1) if it is shared; 0 of zeros.
    """

    codes: np.ndarray
    scale: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """Codes times scale."""
        return self.codes * self.scale


def ternary_start(weights: np.ndarray, shared: bool = False) -> Coded:
    """The codes t in {-1, 0, 1} and scale alpha with the least ||w - alpha t||^2, exactly.

    For r codes that are not 0 they belong to the r largest |w|, alpha is the mean of these, and
    what is left is ||w||^2 - S_r^2 / r with their sum S_r. So the best r has the largest
    S_r^2 / r; weights as large as the r-th are all kept.

    Args:
        weights: (groups, inputs, outputs).
        shared: whether a group has one scale, or each of its outputs.
    """
    groups, _, outputs = weights.shape
    rows = weights.reshape(groups, -1, 1) if shared else weights
    sizes = -np.sort(-np.abs(rows), axis=1)
    sums = np.cumsum(sizes, axis=1)
    best = np.argmax(sums**2 / np.arange(1, rows.shape[1] + 1)[:, None], axis=1)
    threshold = np.take_along_axis(sizes, best[:, None], axis=1)
    kept = (np.abs(weights) >= threshold) & (weights != 0.0)
    codes = np.sign(weights) * kept
    own = np.abs(weights) * kept
    if shared:
        total, count = own.sum(axis=(1, 2)), kept.sum(axis=(1, 2))
        scale = (total / np.maximum(count, 1)).reshape(groups, 1, 1)
    else:
        scale = (own.sum(axis=1) / np.maximum(kept.sum(axis=1), 1)).reshape(groups, 1, outputs)
    return Coded(codes, scale)


def coded_start(weights: np.ndarray, qmax: int, shared: bool = False) -> Coded:
    """`ternary_start`, or with more codes those of the step with the least squared error."""
    if qmax == 1:
        return ternary_start(weights, shared)
    groups, inputs, outputs = weights.shape
    if shared:
        rows = weights.reshape(groups, -1)
    else:
        rows = np.moveaxis(weights, 1, 2).reshape(groups * outputs, inputs)
    step = start_step(rows, -qmax, qmax, 0, how="mse").astype(np.float64)
    scale = step.reshape(groups, 1, -1)
    ratio = np.divide(weights, scale, out=np.zeros_like(weights), where=scale > 0.0)
    codes = _nearest(ratio, qmax)
    live = np.any(codes != 0.0, axis=(1, 2) if shared else 1, keepdims=True)
    return Coded(codes, np.where(live, scale, 0.0))


def within_bins(weights: np.ndarray, coded: Coded, qmax: int) -> np.ndarray:
    """The weights nearest to `weights` that round to these codes, a fiftieth of a step inside.

    Training goes on from them: weights on their levels would be half a step away from any other
    code, farther than short trainings move them.

    Args:
        weights: float, (groups, inputs, outputs).
        coded: whole numbers, and scales above 0.
        qmax: the outermost code, whose bin has no end.
    """
    codes = coded.codes
    low = np.where(codes <= -qmax, -np.inf, (codes - 0.5 + _INSIDE) * coded.scale)
    high = np.where(codes >= qmax, np.inf, (codes + 0.5 - _INSIDE) * coded.scale)
    return np.clip(weights, low, high)


def relaxed_targets(
    targets: np.ndarray, outputs: np.ndarray, eta: float, low: float, high: float
) -> np.ndarray:
    """The Z with the least (Y - clip(Z, low, high))^2 + eta (Z - V)^2, number by number.

    Of three candidates, one in each part of clip, the cheapest is taken:

        min(low, V),    clip((Y + eta V) / (1 + eta), low, high),    max(high, V)

    Args:
        targets: Y, from low to high.
        outputs: V.
        eta: positive.
        low: perhaps -inf, which leaves out the first candidate.
        high: perhaps inf, likewise the last.
    """

    def cost(z: np.ndarray) -> np.ndarray:
        return (targets - np.clip(z, low, high)) ** 2 + eta * (z - outputs) ** 2

    best = np.clip((targets + eta * outputs) / (1.0 + eta), low, high)
    least = cost(best)
    ends = [np.minimum(low, outputs)] if np.isfinite(low) else []
    ends += [np.maximum(high, outputs)] if np.isfinite(high) else []
    for end in ends:
        own = cost(end)
        best, least = np.where(own < least, end, best), np.minimum(own, least)
    return best


class LayerSolver:
    """Alternates between scales, codes and relaxed targets of a layer.

    For each output channel, with V = f alpha X t + o, it lowers

        ||Y - clip(Z, low, high)||^2 + eta ||Z - V||^2

    over alpha, t and Z in turn; with eta fixed no half-step raises it.

    Args:
        task: what the layer shall compute.
    """

    def __init__(self, task: LayerTask) -> None:
        self.task = task
        self._inputs = np.asarray(task.inputs, np.float64)
        self._gram = np.swapaxes(self._inputs, 1, 2) @ self._inputs
        self._factor = np.asarray(task.factor, np.float64)[:, None]
        self._offset = np.asarray(task.offset, np.float64)[:, None]

    def outputs(self, coded: Coded) -> np.ndarray:
        """V, (groups, rows, outputs)."""
        return self._factor * (self._inputs @ coded.weights) + self._offset

    def relaxed(self, coded: Coded, eta: float) -> np.ndarray:
        """The half-step for Z."""
        task = self.task
        return relaxed_targets(task.targets, self.outputs(coded), eta, task.low, task.high)

    def correlations(self, relaxed: np.ndarray) -> np.ndarray:
        """f X^T (Z - o), (groups, inputs, outputs)."""
        return self._factor * (np.swapaxes(self._inputs, 1, 2) @ (relaxed - self._offset))

    def scaled(self, coded: Coded, correlations: np.ndarray) -> Coded:
        """The half-step for alpha: f <X^T (Z - o), t> / (f^2 t^T X^T X t).

        One that would be negative turns the signs of its codes. Where the codes give no outputs it
        stays, and so it does where the best scale is 0.
        """
        axes = (1, 2) if self.task.shared else 1
        power = self._factor**2 * coded.codes * (self._gram @ coded.codes)
        above = np.sum(coded.codes * correlations, axis=axes, keepdims=True)
        below = np.sum(power, axis=axes, keepdims=True)
        usable = (below > 0.0) & (above != 0.0)
        best = np.divide(above, below, out=np.zeros_like(above), where=usable)
        scale = np.where(usable, np.abs(best), coded.scale)
        return Coded(coded.codes * np.where(best < 0.0, -1.0, 1.0), scale)

    def recoded(self, coded: Coded, correlations: np.ndarray) -> Coded:
        """The half-step for the codes: one sweep of coordinate descent, an input after the other.

        With A = X^T X and q = f X^T (Z - o), each code becomes the whole number from -qmax to qmax
        nearest to (q_j / (f^2 alpha) - sum over k != j of A_jk t_k) / A_jj. Inputs that are always
        0, and outputs that do not depend on the kernel, keep their codes.
        """
        power = self._factor**2 * coded.scale
        live = power > 0.0
        wanted = np.divide(correlations, power, out=np.zeros_like(correlations), where=live)
        codes, gram = coded.codes.copy(), self._gram
        sums = gram @ codes
        for j in range(codes.shape[1]):
            own = gram[:, j, j][:, None]
            now = codes[:, j]
            moves = (own > 0.0) & live[:, 0]
            change = np.divide(wanted[:, j] - sums[:, j], own, out=np.zeros_like(now), where=moves)
            new = np.where(moves, _nearest(now + change, self.task.qmax), now)
            delta = new - now
            if np.any(delta):
                codes[:, j] = new
                sums += gram[:, :, j, None] * delta[:, None]
        return Coded(codes, coded.scale)

    def objective(self, coded: Coded, relaxed: np.ndarray, eta: float) -> np.ndarray:
        """What is lowered, (groups, outputs)."""
        task = self.task
        misses = (task.targets - np.clip(relaxed, task.low, task.high)) ** 2
        return np.sum(misses + eta * (relaxed - self.outputs(coded)) ** 2, axis=1)

    def error(self, coded: Coded) -> np.ndarray:
        """||Y - clip(V, low, high)||^2, (groups, outputs): what is lowered for an infinite eta."""
        task = self.task
        clipped = np.clip(self.outputs(coded), task.low, task.high)
        return np.sum((task.targets - clipped) ** 2, axis=1)

    def solve(self, etas: np.ndarray, rounds: int) -> Coded:
        """The kernel with the least error of those that are met, each output for itself.

        Args:
            etas: ascending.
            rounds: of all half-steps at each eta.
        """
        coded = best = coded_start(self.task.weights, self.task.qmax, self.task.shared)
        least = self._total(best)
        for eta in etas:
            for _ in range(rounds):
                correlations = self.correlations(self.relaxed(coded, eta))
                coded = self.scaled(coded, correlations)
                coded = self.recoded(coded, correlations)
                coded = self.scaled(coded, correlations)
                now = self._total(coded)
                better = now < least
                codes = np.where(better, coded.codes, best.codes)
                best = Coded(codes, np.where(better, coded.scale, best.scale))
                least = np.minimum(now, least)
        return best

    def _total(self, coded: Coded) -> np.ndarray:
        """The error of all numbers that share a scale, shaped like the scales."""
        error = self.error(coded)[:, None]
        return error.sum(axis=2, keepdims=True) if self.task.shared else error


def _nearest(ratio: np.ndarray, qmax: int) -> np.ndarray:
    return np.floor(np.clip(ratio, -qmax, qmax) + 0.5)
