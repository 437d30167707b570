"""Small pictures as SVG text."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

_COLORS = ("#c9d4e3", "#7f9cc4", "#2f5c9e", "#b4763a", "#5c8f58")
_WIDTH, _HEIGHT, _BAR = 240, 72, 7
_PLOT_WIDTH, _PLOT_HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 26, 30, 48  # margins of a plot, for its numbers and names
_TICKS, _NEAR = 5, 14.0  # numbers on an axis at most, about; points that share a name's place
_POINT = "light-dark(#2f5c9e, #8fb3e8)"


def bars(shares: Sequence[float], marks: Sequence[float] = ()) -> str:
    """Horizontal bars under each other, up to five, and lines across them; 1 is the whole width."""
    height = len(shares) * (_BAR + 1)
    rows = [
        f"<rect x='0' y='{index * (_BAR + 1)}' width='{max(0.5, share * _WIDTH):.1f}' "
        f"height='{_BAR}' fill='{_COLORS[index]}'/>"
        for index, share in enumerate(shares)
    ]
    rows += [
        f"<line x1='{mark * _WIDTH:.1f}' x2='{mark * _WIDTH:.1f}' y1='0' y2='{height}' "
        "stroke='currentColor' stroke-dasharray='2 2'/>"
        for mark in marks
    ]
    return _drawing(_WIDTH, height, rows)


def legend(names: Sequence[str]) -> str:
    """The colours of `bars`, in HTML."""
    parts = [
        f"<span style='color:{color}'>&#9632;</span> {html.escape(name)}"
        for name, color in zip(names, _COLORS, strict=False)
    ]
    return f"<p>{' &nbsp; '.join(parts)}</p>"


def histogram(counts: Sequence[int]) -> str:
    """Vertical bars; the highest fills the picture."""
    highest, width = max([*counts, 1]), _WIDTH / max(1, len(counts))
    gap = 1.0 if width > 3 else 0.0
    rows = [
        f"<rect x='{index * width:.2f}' y='{_HEIGHT * (1 - count / highest):.2f}' "
        f"width='{width - gap:.2f}' height='{_HEIGHT * count / highest:.2f}' "
        f"fill='{_COLORS[-1]}'><title>{count}</title></rect>"
        for index, count in enumerate(counts)
        if count
    ]
    return _drawing(_WIDTH, _HEIGHT, rows)


def scatter(
    points: Mapping[str, tuple[float, float]], line: Sequence[str], *, across: str, up: str
) -> str:
    """Named points, and a line through some of them.

    Args:
        points: name -> its two numbers.
        line: names in the line's order; the others are drawn hollow.
        across: what the first number is.
        up: what the second is.
    """
    columns = _Axis([x for x, _ in points.values()], _LEFT, _PLOT_WIDTH - _RIGHT)
    rows = _Axis([y for _, y in points.values()], _PLOT_HEIGHT - _BOTTOM, _TOP)
    places = {name: (columns.place(x), rows.place(y)) for name, (x, y) in points.items()}
    shapes = _grid(columns, rows, across, up)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (places[name] for name in line))
    shapes.append(f"<polyline points='{path}' style='fill:none;stroke:{_POINT}'/>")
    for name, (x, y) in places.items():
        told = f"{name}: {points[name][0]:g} {across}, {points[name][1]:g} {up}"
        fill = _POINT if name in line else "none"
        shapes.append(
            f"<circle cx='{x:.1f}' cy='{y:.1f}' r='5' style='fill:{fill};stroke:{_POINT};"
            f"stroke-width:2'><title>{html.escape(told)}</title></circle>"
        )
    shapes += [_word(x + 8, y - 7, names, "start") for names, x, y in _named(places)]
    return _drawing(_PLOT_WIDTH, _PLOT_HEIGHT, shapes)


class _Axis:
    """Numbers to places on a line, with round numbers to write at it."""

    def __init__(self, numbers: Sequence[float], start: float, end: float) -> None:
        low, high = min(numbers), max(numbers)
        margin = 0.08 * (high - low) or abs(high) / 10 or 1.0
        self.low, self.high, self.start, self.end = low - margin, high + margin, start, end

    def place(self, number: float) -> float:
        share = (number - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        least = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(least))
        step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= least)
        count = range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
        return [step * number for number in count]


def _grid(columns: _Axis, rows: _Axis, across: str, up: str) -> list[str]:
    """The round numbers of both axes with faint lines, and what they are numbers of."""
    base, end = _PLOT_HEIGHT - _BOTTOM, _PLOT_WIDTH - _RIGHT
    shapes = [_word(0, 14, up, "start"), _word(end, _PLOT_HEIGHT - 8, across, "end")]
    for tick in columns.ticks():
        x = columns.place(tick)
        shapes += [_faint(x, x, _TOP, base), _word(x, base + 17, f"{tick:.10g}", "middle")]
    for tick in rows.ticks():
        y = rows.place(tick)
        shapes += [_faint(_LEFT, end, y, y), _word(_LEFT - 7, y + 4, f"{tick:.10g}", "end")]
    return shapes


def _named(places: Mapping[str, tuple[float, float]]) -> list[tuple[str, float, float]]:
    """Names and where they are written; those of points that lie together stand together."""
    groups: list[tuple[list[str], float, float]] = []
    for name, (x, y) in places.items():
        for names, other_x, other_y in groups:
            if math.hypot(x - other_x, y - other_y) < _NEAR:
                names.append(name)
                break
        else:
            groups.append(([name], x, y))
    return [(", ".join(names), x, y) for names, x, y in groups]


def _faint(x1: float, x2: float, y1: float, y2: float) -> str:
    return (
        f"<line x1='{x1:.1f}' x2='{x2:.1f}' y1='{y1:.1f}' y2='{y2:.1f}' stroke='currentColor' "
        "stroke-opacity='.2'/>"
    )


def _word(x: float, y: float, content: str, anchor: str) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-size='13' "
        f"fill='currentColor'>{html.escape(content)}</text>"
    )


def _drawing(width: int, height: int, shapes: Sequence[str]) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' "
        f"width='{width}' height='{height}' role='img'>{''.join(shapes)}</svg>"
    )
