"""The table of methods, from the roster."""

from __future__ import annotations

import dataclasses

from tfbinreg.methods import roster
from tfbinreg.methods.contract import About, Method

COLUMNS = (
    *("name", "what it is", "acts", "trains", "bits", "granularity", "options"),
    "paper",
)
_PARTS = {
    "weights": "in the forward pass",
    "penalty": "in the loss",
    "update": "after each step",
    "between_epochs": "between epochs",
    "fit": "in `solve`",
}


def method_table() -> str:
    """The roster in Markdown, a line for each method that says what it is."""
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    rows += [_row(method, method.about) for method in roster.methods() if method.about]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(method: Method, about: About) -> tuple[str, ...]:
    acts = [where for part, where in _PARTS.items() if getattr(method, part, None) is not None]
    options = ", ".join(f"`{field.name}`" for field in dataclasses.fields(method.options))
    return (
        f"`{method.name}`",
        about.what,
        " and ".join(acts),
        about.trains,
        about.bits,
        about.granularity,
        options or "none",
        about.paper,
    )
