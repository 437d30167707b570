"""Where a kernel's step starts: mean, range, or least squared error. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tfbinreg.core.grid import WeightBits, nearest_codes, weight_code_range

_CANDIDATES = 80  # steps tried, at equal ratios
_SMALLEST_RATIO = 1.0 / 100.0  # of the step that covers the whole range
_SAMPLE = 2**14  # weights that the candidates are tried on
_REFINEMENTS = 12


def start_step(
    kernel: np.ndarray, qmin: int, qmax: int, axis: int | None = None, *, how: str
) -> np.ndarray:
    """The step a kernel starts from, for the codes [qmin, qmax].

    - "lsq": 2 mean|w| / sqrt(qmax) (Esser et al., LSQ, ICLR 2020, section 2.1). It suits few
      levels: at 8 bits it spans about 20 means, and most codes are never used.
    - "range": the smallest step at which no weight is clipped, max(max w / qmax, min w / qmin).
    - "mse": the step with the least mean squared quantization error: the best of 80 steps at equal
      ratios, refined by s = <w, q> / <q, q> with q the codes at s, which never raises the error.
      For normal weights at 2 bits it is about 1.05 standard deviations ("lsq": 1.6).

    Args:
        kernel: float weights, any shape.
        qmin: smallest code, negative.
        qmax: largest code.
        axis: channel axis for a step per channel, None for one step.
        how: a key of `STARTS`.

    Returns:
        float32, shape () or (channels,). A channel of zeros gets the mean of the other channels; 0
        if every weight is zero, NaN if any is not finite.
    """
    return _steps(kernel, axis, lambda rows: STARTS[how](rows, qmin, qmax))


def start_step_of_bits(
    kernel: np.ndarray, bits: WeightBits, axis: int | None = None, *, how: str
) -> np.ndarray:
    """`start_step` for weights of one bit too, and for channels with their own bits.

    At 1 bit the step is mean|w|, regardless of `how`: with it, s * sign(w) has the least squared
    error (Rastegari et al., XNOR-Net, ECCV 2016, section 3.1, per channel there).

    Args:
        kernel: as for `start_step`.
        bits: 1 to 8, or 0 to 8 for each channel along `axis`.
        axis: as for `start_step`.
        how: as for `start_step`.

    Returns:
        Like `start_step`. A pruned channel, and a channel of zeros without another channel of its
        bits, gets the mean of the others; 1 if all channels are pruned, where the step has no
        meaning.
    """
    if bits == 1:
        return _steps(kernel, axis, lambda rows: np.mean(np.abs(rows), axis=1))
    if isinstance(bits, int):
        return start_step(kernel, *weight_code_range(bits), axis, how=how)
    if not any(bits):
        return np.ones(len(bits), np.float32)
    rows = np.moveaxis(kernel, axis or 0, 0)
    steps = np.zeros(len(bits), np.float32)
    for own in set(bits) - {0}:
        channels = np.equal(bits, own)
        steps[channels] = start_step_of_bits(rows[channels], own, 0, how=how)
    known = steps != 0
    return np.where(known, steps, np.mean(steps[known])) if np.any(known) else steps


def _steps(
    kernel: np.ndarray, axis: int | None, rule: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """What `rule` makes of (steps, weights that share one), in the form of `start_step`."""
    values = np.asarray(kernel, np.float64)
    if not np.all(np.isfinite(values)):
        return np.full(() if axis is None else values.shape[axis], np.nan, np.float32)
    rows = values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0)
    rows = rows.reshape(len(rows), -1)
    steps = rule(rows)
    live = np.any(rows != 0, axis=1)
    if not np.all(live):
        steps = np.where(live, steps, np.mean(steps[live]) if np.any(live) else 0.0)
    steps = steps.astype(np.float32)
    return steps[0] if axis is None else steps


def _by_mean(rows: np.ndarray, qmin: int, qmax: int) -> np.ndarray:
    return 2.0 * np.mean(np.abs(rows), axis=1) / np.sqrt(qmax)


def _by_range(rows: np.ndarray, qmin: int, qmax: int) -> np.ndarray:
    return np.maximum(rows.max(axis=1) / qmax, rows.min(axis=1) / qmin)


def _by_error(rows: np.ndarray, qmin: int, qmax: int) -> np.ndarray:
    widest = np.maximum(_by_range(rows, qmin, qmax), np.finfo(np.float64).tiny)
    stride = -(-rows.shape[1] // max(1, _SAMPLE // len(rows)))
    sample = rows[:, ::stride]
    best, least = widest, _error(sample, widest, qmin, qmax)
    for ratio in np.geomspace(_SMALLEST_RATIO, 1.0, _CANDIDATES, endpoint=False):
        error = _error(sample, ratio * widest, qmin, qmax)
        best = np.where(error < least, ratio * widest, best)
        least = np.minimum(error, least)
    for _ in range(_REFINEMENTS):
        codes = _codes(rows, best, qmin, qmax)
        power = np.sum(codes * codes, axis=1)
        best = np.divide(np.sum(rows * codes, axis=1), power, out=best.copy(), where=power > 0)
    return best


def _codes(rows: np.ndarray, steps: np.ndarray, qmin: int, qmax: int) -> np.ndarray:
    return nearest_codes(rows / steps[:, None], qmin, qmax)


def _error(rows: np.ndarray, steps: np.ndarray, qmin: int, qmax: int) -> np.ndarray:
    """Sum of squared errors of each row."""
    return np.sum((rows - _codes(rows, steps, qmin, qmax) * steps[:, None]) ** 2, axis=1)


STARTS: Mapping[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "mse": _by_error,
    "lsq": _by_mean,
    "range": _by_range,
}
