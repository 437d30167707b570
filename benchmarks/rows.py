"""Tables that are built row by row: each row in a separate process, and saved when finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]


def kept(path: str | None, keys: Sequence[str]) -> dict[tuple[str, ...], Row]:
    """The rows of a run before, by the values of `keys`."""
    if path is None or not os.path.exists(path):
        return {}
    with open(path) as file:
        return {tuple(row[key] for key in keys): row for row in json.load(file)}


def keep(path: str | None, rows: Sequence[Row]) -> None:
    """Replace the file's rows, in one step."""
    if path is not None:
        text = "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"  # a row a line
        with open(f"{path}.part", "w") as file:
            file.write(text)
        os.replace(f"{path}.part", path)


def in_own_process(
    script: str, of: Sequence[str], flags: Sequence[str], variables: Mapping[str, str] | None = None
) -> Row | None:
    """Run `script --of ...`, which prints a row as JSON in its last line; TensorFlow keeps what it
    traced, so no two rows share a process. The row, or None after telling why there is none.

    `variables` are added to its environment.
    """
    command = [sys.executable, script, "--of", *of, *flags]
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
        print(f"{', '.join(of)}: {reason[0]}", file=sys.stderr, flush=True)
        return None
    row: Row = json.loads(done.stdout.splitlines()[-1])
    print(row, file=sys.stderr, flush=True)
    return row


def markdown(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; a missing value is a dash."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = (row.get(column) for column in columns)
        lines.append("| " + " | ".join("–" if c is None else str(c) for c in cells) + " |")
    return "\n".join(lines)
