"""Quantization cards as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tflite_tools.reports import report_text
from tflite_tools.schema import card as cards


def card_text(card: Mapping[str, Any]) -> str:
    """The nine choices that Garg et al. measured, then everything a card says, a line each."""
    told = dict(cards.fields(card))
    lines = []
    for choice, names in cards.CHOICES.items():
        lines.append(choice)
        lines += [
            f"  {name}: {value_text(value)}"
            for own in names
            for name, value in told.items()
            if name == own or name.startswith(f"{own}.")
        ]
    listed = {line.strip().split(":")[0] for line in lines}
    lines.append("the rest")
    lines += [
        f"  {name}: {value_text(value)}" for name, value in told.items() if name not in listed
    ]
    return report_text.printable("\n".join(lines))


def differences_text(differences: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """A line for each difference of two cards."""
    return [
        report_text.printable(f"card, {name}: {value_text(one)} / {value_text(other)}")
        for name, (one, other) in differences.items()
    ]


def value_text(value: Any) -> str:
    """A value of a card in words."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in (None, {}) else str(value)
