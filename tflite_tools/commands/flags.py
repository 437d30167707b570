"""The flags of `inspect`, and those that several commands have."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable

from tflite_tools.running import samples
from tflite_tools.schema import card


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """File, and whether to print only its card."""
    parser.add_argument("file", metavar="FILE", help="a .tflite file")
    parser.add_argument(
        "--card",
        action="store_true",
        help="print its quantization card: the choices needed to interpret its accuracy",
    )


def add_notes(parser: argparse.ArgumentParser) -> None:
    """Notes for the quantization card."""
    parser.add_argument(
        "--card",
        action="append",
        default=[],
        type=_note,
        metavar="FIELD=TEXT",
        help=f"a note for the card that the file does not contain: {', '.join(card.NOTES)}",
    )


def _note(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals or field not in card.NOTES:
        close = difflib.get_close_matches(field, card.NOTES, n=1)
        raise argparse.ArgumentTypeError(
            f"{text!r} is not FIELD=TEXT with one of {', '.join(card.NOTES)}"
            + (f": did you mean {close[0]!r}?" if close and close[0] != field else "")
        )
    return field, value


def add_inputs(parser: argparse.ArgumentParser, *, default: int | None, text: str) -> None:
    """How many random samples, or a file of samples."""
    parser.add_argument(
        "--samples",
        type=at_least(1),
        default=default,
        metavar="N",
        help=f"random samples to draw without --inputs (default: {text})",
    )
    _add_source(parser)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--inputs",
        metavar="FILE",
        help="samples in the units of the trained model, not stored integers: an .npy "
        "file, or an .npz file with one array for each input name",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=samples.DEFAULT_SEED,
        metavar="N",
        help="seed of the random samples (default: %(default)s)",
    )


def at_least(smallest: int) -> Callable[[str], int]:
    """The type of a flag that takes whole numbers from `smallest` up."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = smallest - 1
        if value < smallest:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {smallest} up")
        return value

    return whole_number
