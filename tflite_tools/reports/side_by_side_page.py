"""One self-contained HTML page that puts several files side by side."""

from __future__ import annotations

import itertools
import string
from collections.abc import Sequence

from tflite_tools.reports import card_text, document, markup, svg
from tflite_tools.reports.side_by_side import FileSummary, LayerBits, Picture, SideBySide

_NOT_VERIFIED = (
    "Nothing is verified here: report one file by itself, with the model that it was made from."
)
_FILES = (
    "Codes at their bits are what the weights amount to. As C there are packed weights and "
    "constants in flash, and activations in RAM; the kernels' code and the caller's inputs and "
    "outputs are not counted."
)
_LAYERS = (
    "The bits of each layer, and the bytes of its codes at these bits. The bars are the files in "
    "their order, the whole width is a byte for each weight."
)
_CARDS = "What the quantization cards say differently; everything else is the same in all of them."
_MOST_BARS = 5  # colours that can be told apart


def page(found: SideBySide) -> str:
    """The page as HTML text."""
    letters = _letters(len(found.files))
    sections = [
        ("Files", _files(found.files, letters)),
        (_heading(found.picture), _picture(found, letters)),
        ("Bits by layer", _layers(found, letters)),
        ("Quantization cards", _cards(found, letters)),
    ]
    title = f"{len(found.files)} files side by side"
    return document.document(title, markup.note(_NOT_VERIFIED), sections)


def _letters(count: int) -> list[str]:
    """A, B, ... Z, AA, ...: short names for columns and pictures."""
    lengths = itertools.count(1)
    words = (
        "".join(letters)
        for length in lengths
        for letters in itertools.product(string.ascii_uppercase, repeat=length)
    )
    return list(itertools.islice(words, count))


def _files(files: Sequence[FileSummary], letters: Sequence[str]) -> str:
    kinds = dict.fromkeys((own.runner, own.output) for file in files for own in file.accuracy)
    several = len({output for _, output in kinds}) > 1
    columns = [
        f"accuracy in {runner}" + (f", {output}" if several else "") for runner, output in kinds
    ]
    told = any(file.told_accuracy for file in files)
    header = (
        *("", "file", "bytes", "weights in it", "codes at their bits", "bits on average"),
        *("flash as C", "RAM as C", *columns, *(["accuracy on its card"] if told else [])),
        "made for",
    )
    rows = [
        (
            *(letter, file.name, str(file.size), str(file.weight_bytes), str(file.code_bytes)),
            "" if file.average_bits is None else f"{file.average_bits:.2f}",
            *(_number(file.c_bytes), _number(file.c_arena_bytes)),
            *(_share(file, runner, output) for runner, output in kinds),
            *([file.told_accuracy or ""] if told else []),
            _made_for(file),
        )
        for letter, file in zip(letters, files, strict=True)
    ]
    notes = [
        markup.note(f"{letter} cannot be written as C. {file.c_refused}")
        for letter, file in zip(letters, files, strict=True)
        if file.c_refused
    ]
    notes += [
        markup.note(f"{letter} was not measured in {own.runner}: {own.reason}")
        for letter, file in zip(letters, files, strict=True)
        for own in file.accuracy
        if own.share is None
    ]
    table = markup.table(header, rows, pinned=True)
    return markup.note(_FILES) + table + "".join(dict.fromkeys(notes))


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _share(file: FileSummary, runner: str, output: str) -> str:
    shares = [own.share for own in file.accuracy if (own.runner, own.output) == (runner, output)]
    return "" if not shares or shares[0] is None else f"{100 * shares[0]:.2f} %"


def _made_for(file: FileSummary) -> str:
    if file.target is None:
        return "not told"
    return file.target + ("" if file.finalized else ", not finalized")


def _heading(picture: Picture | None) -> str:
    return "Bytes and accuracy" if picture is None or picture.more_is_better else "Bytes and RAM"


def _picture(found: SideBySide, letters: Sequence[str]) -> str:
    missing = markup.note(found.no_picture) if found.no_picture else ""
    picture = found.picture
    if picture is None:
        return missing
    points = {letters[index]: point for index, point in picture.points.items()}
    best = [letters[index] for index in picture.best]
    drawn = svg.scatter(points, best, across=picture.across, up=picture.up)
    worse = "less accurate" if picture.more_is_better else "larger in RAM"
    explained = (
        f"Filled: {', '.join(best)}. For each, every other file is {worse} or takes more bytes."
    )
    absent = [own for index, own in enumerate(letters) if index not in picture.points]
    if absent:
        explained += f" Not in the picture, for that is not known: {', '.join(absent)}."
    return f"{missing}<figure>{drawn}</figure>{markup.note(explained)}"


def _layers(found: SideBySide, letters: Sequence[str]) -> str:
    if not found.compared:
        return markup.note("No two files have layers of the same names.")
    own = [letters[index] for index in found.compared]
    columns = [f"{letter}: {what}" for what in ("bits", "bytes") for letter in own]
    has_bars = len(own) <= _MOST_BARS
    rows = []
    for layer in found.layers:
        widths = [markup.text(one.width.removesuffix(" bits")) for one in layer]
        sizes = [_number(one.code_bytes) for one in layer]
        bars = [svg.bars([_share_of_int8(one) for one in layer])] if has_bars else []
        rows.append((markup.text(layer[0].name), *widths, *sizes, *bars))
    sums = [
        sum(one.code_bytes or 0 for one in column) for column in zip(*found.layers, strict=True)
    ]
    rows.append(("<b>all</b>", *("" for _ in own), *map(str, sums), *([""] if has_bars else [])))
    header = ("layer", *columns, *([""] if has_bars else []))
    absent = [letter for letter in letters if letter not in own]
    note = ""
    if absent:
        note = markup.note(f"Their layers have other names, or none: {', '.join(absent)}.")
    legend = svg.legend(own) if has_bars else ""
    return markup.note(_LAYERS) + legend + markup.raw_table(header, rows) + note


def _share_of_int8(layer: LayerBits) -> float:
    """What the codes take of as many bytes; floating point fills the bar."""
    return 1.0 if layer.code_bytes is None else layer.code_bytes / max(1, layer.count)


def _cards(found: SideBySide, letters: Sequence[str]) -> str:
    own = [letters[index] for index in found.carded]
    absent = [letter for letter in letters if letter not in own]
    note = markup.note(f"Without a card: {', '.join(absent)}.") if absent else ""
    if len(own) < 2:
        return markup.note("Fewer than two files have a card.") + note
    if not found.card:
        return markup.note("The cards of all that have one say the same.") + note
    rows = [(name, *map(card_text.value_text, values)) for name, values in found.card.items()]
    return markup.note(_CARDS) + markup.table(("", *own), rows) + note
