"""Tables as HTML text. What comes from a file goes through `text`, so nothing in it is markup."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def text(content: str) -> str:
    """Text with everything that HTML would interpret replaced."""
    return html.escape(content, quote=True)


def note(content: str) -> str:
    """A paragraph that explains."""
    return f"<p class='note'>{text(content)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain texts; whole numbers are aligned to the right."""
    return raw_table(header, [[text(cell) for cell in row] for row in rows])


def raw_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """As `table`, with cells that are HTML already; it scrolls where the window is narrow."""
    rows = [list(row) for row in rows]
    columns = [[row[k] for row in rows if k < len(row) and row[k]] for k in range(len(header))]
    numeric = [bool(column) and all(map(str.isdecimal, column)) for column in columns]
    head = [
        f"<th class='number'>{text(cell)}</th>" if number else f"<th>{text(cell)}</th>"
        for cell, number in zip(header, numeric, strict=True)
    ]
    lines = []
    for row in rows:
        cells = "".join(
            f"<td class='number'>{cell}</td>" if cell.isdecimal() else f"<td>{cell}</td>"
            for cell in row
        )
        lines.append(f"<tr>{cells}</tr>")
    top = f"<tr>{''.join(head)}</tr>" if header else ""
    return f"<div class='wide'><table>{top}{''.join(lines)}</table></div>"
