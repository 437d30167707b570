"""The quantization card inside a file: the choices that decide what a number means.

Garg et al., "Confounding Tradeoffs for Neural Network Quantization" (arXiv 2102.06366), find that
such choices move accuracy more than the method does, and propose that every result states them. The
nine choices they measured are in `CHOICES`; their own layout is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tflite_tools.schema import flatbuffer

METADATA_NAME = "tfbinreg_card"
FORMAT = 1
NOT_RECORDED = "not recorded"
# What only the maker of a file knows.
NOTES = ("data", "labels", "checkpoint", "epochs", "training", "baseline", "accuracy")
MISSING = (
    "The file has no quantization card: --slim or --target ethos-u has dropped it, or another tool "
    "or an earlier version made the file."
)
# The nine choices that Garg et al. measured, and where a card has them.
CHOICES = {
    "first and last layer": ("weights.first_bits", "weights.last_bits", "weights.average_bits"),
    "scale per tensor or channel": ("weights.kernels_per_channel", "weights.kernels_per_tensor"),
    "symmetric or affine weights": ("weights.codes",),
    "symmetric or affine activations": ("activations.signed", "activations.with_offset"),
    "which activations are quantized": ("activations.quantized",),
    "average or largest activation memory": (
        "activations.average_bits",
        "activations.peak_bytes",
        "activations.peak_bytes_packed",
    ),
    "allowed widths": ("weights.bits", "activations.bits"),
    "labels": ("notes.labels",),
    "float checkpoint": ("notes.checkpoint",),
}


def check_notes(notes: Mapping[str, Any]) -> None:
    """Raise ValueError if a note has a name not in `NOTES`, or is not text."""
    for name, text in notes.items():
        if name not in NOTES or not isinstance(text, str):
            raise ValueError(
                f"A card's notes are texts called {', '.join(NOTES)}, not {name!r}: {text!r}."
            )


def to_json(card: Mapping[str, Any]) -> str:
    """Text that `parse` reads back."""
    return json.dumps({"format": FORMAT, **card})


def parse(text: str) -> dict[str, Any]:
    """Read a card.

    Raises:
        ValueError: if the text is not a card of this format.
    """
    try:
        card = json.loads(text)
        if not isinstance(card, dict) or card.pop("format", None) != FORMAT:
            raise ValueError("it has another format")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The quantization card in the file cannot be read: {error}.") from None
    return card


def find(model: Any) -> dict[str, Any] | None:
    """The card of a flatbuffer object, None if it has none.

    Raises:
        ValueError: if it has one that cannot be read.
    """
    data = flatbuffer.metadata(model, METADATA_NAME)
    return None if data is None else parse(data.decode("utf-8", "replace"))


def fields(card: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything in a card, in its order."""
    for name, value in card.items():
        if isinstance(value, Mapping) and value:
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def differences(*cards: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Differences between cards: dotted name -> the value of each, `NOT_RECORDED` where one has
    none. Names of one part of the cards are grouped together.
    """
    told = [dict(fields(card)) for card in cards]
    names = dict.fromkeys(name for one in told for name in one)
    parts = list(dict.fromkeys(map(_part, names)))
    order = sorted(names, key=lambda name: parts.index(_part(name)))
    values = {name: tuple(one.get(name, NOT_RECORDED) for one in told) for name in order}
    return {name: own for name, own in values.items() if any(value != own[0] for value in own)}


def _part(name: str) -> str:
    """The part of a card that a dotted name belongs to."""
    return name.rpartition(".")[0]
