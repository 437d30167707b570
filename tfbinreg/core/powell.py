"""Minimizing without derivatives: a parabola's vertex, and Powell's method. NumPy only.

Powell, "An efficient method for finding the minimum of a function of several variables without
calculating derivatives", The Computer Journal 7 (1964).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

_HALVINGS = 2  # of the bracket around the least value on a line


@dataclasses.dataclass(frozen=True)
class Vertex:
    """The minimum of a parabola through some points.

    Attributes:
        place: inside the range of the points.
        problem: why it is the best of the points instead of the vertex; "" if it is the vertex.
    """

    place: float
    problem: str = ""


def parabola_vertex(
    places: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray
) -> Vertex:
    """The vertex of the parabola a x^2 + b x + c of least squares, clipped to the places' range.

    Args:
        places: at least three different numbers.
        values: the values there. Those that are not finite are left out.

    Returns:
        -b / 2a if a > 0. The place of the least value if the parabola is not convex or fewer than
        three values are finite.

    Raises:
        ValueError: if no value is finite.
    """
    x, y = np.asarray(places, np.float64), np.asarray(values, np.float64)
    finite = np.isfinite(y)
    if not np.any(finite):
        raise ValueError("No vertex can be found: none of the values is finite.")
    best = float(x[np.argmin(np.where(finite, y, np.inf))])
    if np.count_nonzero(finite) < 3:
        return Vertex(best, "fewer than three values are finite")
    middle, width = x.mean(), np.ptp(x)
    scaled = (x[finite] - middle) / width
    a, b, _ = np.polyfit(scaled, y[finite], 2)
    # Of values on a line rounding leaves a curvature that means nothing.
    if a <= 1e-9 * (np.ptp(y[finite]) + np.finfo(np.float64).tiny):
        return Vertex(best, "the parabola is not convex")
    place = middle - width * b / (2.0 * a)
    return Vertex(float(np.clip(place, x.min(), x.max())))


@dataclasses.dataclass(frozen=True, eq=False)
class Minimum:
    """The result of `powell`.

    Attributes:
        point: the best of all points that were tried, including the start.
        value: the function's value there.
        evaluations: how often the function was called.
        iterations: completed passes through all directions.
        spent: whether it ended because the evaluations were used up.
    """

    point: np.ndarray
    value: float
    evaluations: int
    iterations: int
    spent: bool


class _SpentError(Exception):
    """The evaluations are used up."""


class _Counted:
    """A function that counts its calls and remembers the best point; NaN counts as infinite."""

    def __init__(self, function: Callable[[np.ndarray], float], most: int) -> None:
        self._function, self._most = function, most
        self.count, self.best, self.point = 0, np.inf, np.empty(0)

    def __call__(self, point: np.ndarray) -> float:
        if self.count >= self._most:
            raise _SpentError
        self.count += 1
        value = float(self._function(point))
        value = np.inf if np.isnan(value) else value
        if value < self.best or self.count == 1:
            self.best, self.point = value, point.copy()
        return value


def powell(
    function: Callable[[np.ndarray], float],
    start: np.ndarray,
    *,
    bound: float,
    width: float,
    iterations: int,
    most_evaluations: int,
) -> Minimum:
    """Powell's direction-set method inside a cube, made for functions with small jumps.

    Each iteration minimizes along every direction in turn, first the axes. Then, if Powell's
    condition holds, the line from the start to the end of the iteration replaces the direction that
    gained most. On a line the points at +-width are tried, then others twice as far while the value
    falls, then a parabola's vertex and the halves of the bracket around the minimum. A point that
    is not lower is never accepted, so no iteration ends above its start. The width halves with each
    iteration.

    Args:
        function: a deterministic function of a point.
        start: (n,), inside the cube.
        bound: the cube is [-bound, bound]^n.
        width: width of the first steps along a direction of length 1.
        iterations: maximum number; it ends sooner if an iteration gains nothing.
        most_evaluations: maximum number of function calls.
    """
    counted = _Counted(function, most_evaluations)
    point, done, spent = np.asarray(start, np.float64), 0, False
    directions = list(np.eye(len(point)))
    try:
        value = counted(point)
        while done < iterations:
            began, before, gains = point, value, []
            for direction in directions:
                old = value
                point, value = _line(counted, point, value, direction, width, bound)
                gains.append(old - value)
            done += 1
            if value >= before:
                break
            far = np.clip(2.0 * point - began, -bound, bound)
            beyond, most = counted(far), int(np.argmax(gains))
            if _is_worth(before, value, beyond, gains[most]):
                along = (point - began) / np.linalg.norm(point - began)
                point, value = _line(counted, point, value, along, width, bound)
                directions[most : most + 1] = []
                directions.append(along)
            width /= 2.0
    except _SpentError:
        spent = True
    return Minimum(counted.point, counted.best, counted.count, done, spent)


def _is_worth(before: float, value: float, beyond: float, gain: float) -> bool:
    """Powell's condition for a new direction."""
    if not beyond < before:
        return False
    bend = 2.0 * (before - 2.0 * value + beyond) * (before - value - gain) ** 2
    return bend < gain * (before - beyond) ** 2


def _line(
    function: Callable[[np.ndarray], float],
    point: np.ndarray,
    value: float,
    direction: np.ndarray,
    width: float,
    bound: float,
) -> tuple[np.ndarray, float]:
    """The least point found on a line through a point, and its value; perhaps the point itself."""
    low, high = _limits(point, direction, bound)
    tried = {0.0: value}

    def at(place: float) -> float:
        place = min(max(place, low), high)
        if place not in tried:
            tried[place] = function(np.clip(point + place * direction, -bound, bound))
        return tried[place]

    for side in (width, -width):
        reach, last = side, value
        while at(reach) < last and low < reach < high:
            last, reach = at(reach), 2.0 * reach
        if len(tried) > 2:  # lower on this side
            break
    for halving in range(_HALVINGS):
        best = min(tried, key=lambda place: (tried[place], abs(place)))
        left = max((p for p in tried if p < best), default=best)
        right = min((p for p in tried if p > best), default=best)
        if halving == 0:
            at(_vertex_between(left, best, right, tried))
        else:
            at((left + best) / 2.0)
            at((right + best) / 2.0)
    best = min(tried, key=lambda place: (tried[place], abs(place)))
    return np.clip(point + best * direction, -bound, bound), tried[best]


def _limits(point: np.ndarray, direction: np.ndarray, bound: float) -> tuple[float, float]:
    """The range in which a line lies inside the cube."""
    moving = direction != 0
    ends = np.stack([(-bound - point[moving]), (bound - point[moving])]) / direction[moving]
    return float(ends.min(axis=0).max()), float(ends.max(axis=0).min())


def _vertex_between(left: float, best: float, right: float, tried: dict[float, float]) -> float:
    """The vertex of the parabola through three places; the middle of the larger part if there are
    only two, or their values are infinite.
    """
    if left < best < right and np.isfinite(tried[left] + tried[right]):
        rise_left = (tried[left] - tried[best]) * (right - best)
        rise_right = (tried[right] - tried[best]) * (best - left)
        if rise_left + rise_right > 0.0:
            # Of the two slopes' means, seen from the best.
            shift = rise_left * (right - best) - rise_right * (best - left)
            return best + 0.5 * shift / (rise_left + rise_right)
    return (left + best) / 2.0 if best - left > right - best else (right + best) / 2.0
