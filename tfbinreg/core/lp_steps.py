"""The step with the least mean |Q(x) - x|^p of a tensor, for several p at once. NumPy only.

Nahshan et al., "Loss Aware Post-training Quantization" (arXiv 1911.07190): a small p favors the
many small numbers, a large p the few that are clipped. The error is not convex in the step: with
few levels it has a minimum wherever many numbers meet a level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tfbinreg.core.grid import nearest_codes

_SPACING = 1.04  # ratio of neighbouring candidates
_SMALLEST_RATIO = 1.0 / 100.0  # of the step that covers the whole range
_SAMPLE = 2**12  # numbers that the candidates are tried on
_REFINED_SAMPLE = 2**14  # and the refined steps
_VALLEYS = 3  # candidates around which steps are refined, if they are
_NEARLY = 1.2  # times the least error at most
_ZOOMS = 3
_ZOOM_POINTS = 9
_TINY = np.finfo(np.float32).tiny


def lp_steps(
    values: np.ndarray, qmin: int, qmax: int, powers: Sequence[float], axis: int | None = None
) -> np.ndarray:
    """For each p of `powers` the step s with the least mean |Q(x) - x|^p,

        Q(x) = s * clip(round(x / s), qmin, qmax)    halves rounded up.

    Steps at ratios of 1.04 are tried, from a hundredth of the step that covers the whole range (or
    from where the grid ends at half the mean of |x|) to the largest number itself, above which the
    error only grows. The three best valleys are refined. The result is the least error, except for
    valleys narrower than 4 %. If there are very many numbers, the candidates are tried on 4,096 of
    them and the refined ones on 16,384: the largest and, from the others in order, evenly spaced
    ones with a higher weight.

    Args:
        values: any shape. With `qmin` of 0, negative numbers count as 0: the grid is a ReLU.
        qmin: smallest code, at most 0.
        qmax: largest code, positive.
        powers: every p, positive.
        axis: channel axis for a step per channel, None for one step.

    Returns:
        float64, (powers,) or (powers, channels). 0 where all numbers are zero.

    Raises:
        ValueError: if there are no numbers, or any is not finite.
    """
    rows = np.asarray(values, np.float64)
    if rows.size == 0 or not np.all(np.isfinite(rows)):
        raise ValueError("No step can be searched for: the numbers are none or not finite.")
    rows = rows.reshape(1, -1) if axis is None else np.moveaxis(rows, axis, 0)
    rows = rows.reshape(len(rows), -1)
    rows = np.maximum(rows, 0.0) if qmin == 0 else rows
    steps = _search(rows, qmin, qmax, np.asarray(powers, np.float64))
    return steps[:, 0] if axis is None else steps


def lp_error(
    values: np.ndarray,
    steps: np.ndarray,
    qmin: int,
    qmax: int,
    powers: np.ndarray,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Mean |Q(x) - x|^p of each row at its step, (powers, rows).

    Args:
        values: (rows, numbers).
        steps: (rows,), positive.
        qmin: smallest code.
        qmax: largest code.
        powers: every p.
        weights: weights of the numbers in the mean, (numbers,), with a sum of 1; None for equal
            weights.
    """
    if weights is None:
        weights = np.full(values.shape[1], 1.0 / values.shape[1])
    scale, weights = steps[:, None].astype(values.dtype), weights.astype(values.dtype)
    size = np.abs(values - nearest_codes(values / scale, qmin, qmax) * scale)
    logs = np.log(np.maximum(size, _TINY))  # of 0 a power that is next to 0
    return np.stack([np.exp(logs * values.dtype.type(p)) @ weights for p in powers])


def _search(rows: np.ndarray, qmin: int, qmax: int, powers: np.ndarray) -> np.ndarray:
    largest = np.abs(rows).max(axis=1)
    found = np.zeros((len(powers), len(rows)))
    live = largest > 0
    if not np.any(live):
        return found
    rows = rows[live] / largest[live, None]  # so that no power of them under- or overflows
    candidates = np.stack(list(_candidates(rows, qmin, qmax)))
    few, share = _thinned(rows, _SAMPLE)
    few = few.astype(np.float32)  # several times as fast
    errors = np.stack([lp_error(few, steps, qmin, qmax, powers, share) for steps in candidates])
    sample = _thinned(rows, _REFINED_SAMPLE)
    for index, p in enumerate(powers):
        best = _refined(sample, qmin, qmax, p, candidates, errors[:, index])
        found[index, live] = best * largest[live]
    return found


def _thinned(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """About `count` of the numbers, and their weights in a mean.

    A large p depends on the largest numbers of each row, so these make up an eighth of the sample.
    """
    size = rows.shape[1]
    own = max(16, count // len(rows))
    if size <= own:
        return rows, np.full(size, 1.0 / size)
    order = np.argsort(-np.abs(rows), axis=1, kind="stable")
    places = np.concatenate([np.arange(own // 8), np.arange(own // 8, size, -(-size // own))])
    weights = np.diff(places, append=size) / size
    return np.take_along_axis(rows, order[:, places], axis=1), weights


def _candidates(rows: np.ndarray, qmin: int, qmax: int) -> Iterator[np.ndarray]:
    """Steps for each row, whose largest |x| is 1, in ascending order."""
    widest = rows.max(axis=1) / qmax
    if qmin < 0:
        widest = np.maximum(widest, rows.min(axis=1) / qmin)
    smallest = np.abs(rows).mean(axis=1) / (2.0 * max(qmax, -qmin))
    smallest = np.minimum(smallest, widest * _SMALLEST_RATIO)
    count = int(np.ceil(np.log(1.0 / smallest.min()) / np.log(_SPACING))) + 1
    for part in np.linspace(0.0, 1.0, count):
        yield smallest ** (1.0 - part)


def _refined(
    sample: tuple[np.ndarray, np.ndarray],
    qmin: int,
    qmax: int,
    p: float,
    candidates: np.ndarray,
    errors: np.ndarray,
) -> np.ndarray:
    """The best step of each row near its best valleys; `errors` is (candidates, rows)."""
    rows, weights = sample
    padded = np.pad(errors, ((1, 1), (0, 0)), constant_values=np.inf)
    is_valley = (errors <= padded[:-2]) & (errors <= padded[2:])
    order = np.argsort(np.where(is_valley, errors, np.inf), axis=0, kind="stable")
    best, least = np.ones(len(rows)), np.full(len(rows), np.inf)
    here = np.arange(len(rows))
    for rank in range(min(_VALLEYS, len(candidates))):
        if np.all(errors[order[rank], here] > _NEARLY * errors[order[0], here]):
            break
        steps, width = candidates[order[rank], here], np.log(_SPACING)
        for _ in range(_ZOOMS):
            around = [steps * np.exp(width * x) for x in np.linspace(-1.0, 1.0, _ZOOM_POINTS)]
            found = np.stack(
                [lp_error(rows, s, qmin, qmax, np.array([p]), weights)[0] for s in around]
            )
            steps = np.stack(around)[found.argmin(axis=0), here]
            best = np.where(found.min(axis=0) < least, steps, best)
            least = np.minimum(found.min(axis=0), least)
            width *= 2.0 / (_ZOOM_POINTS - 1)
    return best
