"""Why something cannot be done, by layer, and what to do about it: all reasons at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

_LISTED = 20  # names in one line of an error


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why a layer cannot be quantized, and what to do about it."""

    layer: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.what}; {self.remedy}"


def raise_problems(problems: Iterable[Problem], doing: str) -> None:
    """Raise one ValueError that lists all `problems`; do nothing if there are none.

    Layers with the same problem share a line.
    """
    layers: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        layers.setdefault((problem.what, problem.remedy), []).append(problem.layer)
    lines = [
        f"  - {Problem(_listed(names), what, remedy)}" for (what, remedy), names in layers.items()
    ]
    if lines:
        raise ValueError(f"Cannot {doing}:\n" + "\n".join(lines))


def _listed(names: Iterable[str]) -> str:
    """Names, each once, the first of many."""
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - _LISTED} more" if len(unique) > _LISTED else ""
    return ", ".join(unique[:_LISTED]) + more
