"""Tables as HTML text. What comes from a file goes through `text`, so nothing in it is markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence


def text(content: str) -> str:
    """Text with everything that HTML would interpret replaced."""
    return html.escape(content, quote=True)


def note(content: str) -> str:
    """A paragraph that explains."""
    return f"<p class='note'>{text(content)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, pinned: bool = False) -> str:
    """A table of plain texts; numbers and percents are aligned to the right.

    Args:
        header: names of the columns; empty for none.
        rows: a text for each column.
        pinned: whether the first column stays where the table scrolls.
    """
    return raw_table(header, [[text(cell) for cell in row] for row in rows], pinned=pinned)


def raw_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, pinned: bool = False) -> str:
    """As `table`, with cells that are HTML already; it scrolls where the window is narrow."""
    rows = [list(row) for row in rows]
    width = max((len(row) for row in (header, *rows)), default=0)
    columns = [[row[k] for row in rows if k < len(row) and row[k]] for k in range(width)]
    kinds = [" class='number'" * (bool(c) and all(map(_is_number, c))) for c in columns]
    lines = [_line("td", row, kinds) for row in rows]
    top = _line("th", list(map(text, header)), kinds) if header else ""
    kind = "wide pinned" if pinned else "wide"
    return f"<div class='{kind}'><table>{top}{''.join(lines)}</table></div>"


def _line(tag: str, cells: Sequence[str], kinds: Sequence[str]) -> str:
    """A row of a table; its columns may be more."""
    made = (f"<{tag}{kind}>{cell}</{tag}>" for cell, kind in zip(cells, kinds, strict=False))
    return f"<tr>{''.join(made)}</tr>"


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?( %)?", cell) is not None
