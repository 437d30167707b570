"""Why something cannot be done, by layer, and what to do about it: all reasons at once."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping

_LISTED = 20  # names in one line of an error


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why a layer cannot be quantized, and what to do about it.

    Attributes:
        layer: name of the layer in the user's model.
        what: what is wrong.
        remedy: what helps.
        kind: class of the layer, or name of the operation; "" for anything else.
    """

    layer: str
    what: str
    remedy: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.layer}: {self.what}; {self.remedy}"


class RefusedError(ValueError):
    """Raised when something cannot be done; it holds all reasons at once.

    Attributes:
        problems: the reasons, one per layer and fault.
    """

    def __init__(self, text: str, problems: Iterable[Problem]) -> None:
        super().__init__(text)
        self.problems = tuple(problems)

    @property
    def counts(self) -> dict[str, int]:
        """How many layers of each kind have a problem, the most frequent first."""
        return counts(self.problems)


def counts(problems: Iterable[Problem]) -> dict[str, int]:
    """How many layers of each kind have a problem, the most frequent first."""
    layers = dict.fromkeys((problem.kind, problem.layer) for problem in problems if problem.kind)
    return dict(collections.Counter(kind for kind, _ in layers).most_common())


def counts_text(found: Mapping[str, int]) -> str:
    """Counts of layers as in "24 LayerNormalization, 12 MultiHeadAttention"."""
    return ", ".join(f"{count} {kind}" for kind, count in found.items())


def raise_problems(problems: Iterable[Problem], doing: str) -> None:
    """Raise one RefusedError that lists all `problems`; does nothing if there are none.

    Layers with the same problem share a line. If there are several layers, the last line has the
    number of each kind.
    """
    problems = tuple(problems)
    layers: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        layers.setdefault((problem.what, problem.remedy), []).append(problem.layer)
    lines = [
        f"  - {Problem(_listed(names), what, remedy)}" for (what, remedy), names in layers.items()
    ]
    if lines:
        found = counts(problems)
        if sum(found.values()) > 1:
            lines.append(f"  refused: {counts_text(found)}")
        raise RefusedError(f"Cannot {doing}:\n" + "\n".join(lines), problems)


def _listed(names: Iterable[str]) -> str:
    """Names, each once; of many, only the first."""
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - _LISTED} more" if len(unique) > _LISTED else ""
    return ", ".join(unique[:_LISTED]) + more
