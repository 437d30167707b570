"""Small pictures as SVG text."""

from __future__ import annotations

import html
from collections.abc import Sequence

_COLORS = ("#c9d4e3", "#7f9cc4", "#2f5c9e", "#b4763a", "#5c8f58")
_WIDTH, _HEIGHT, _BAR = 240, 72, 7


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


def _drawing(width: int, height: int, shapes: Sequence[str]) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' "
        f"width='{width}' height='{height}' role='img'>{''.join(shapes)}</svg>"
    )
