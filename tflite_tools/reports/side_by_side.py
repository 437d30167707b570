"""Several files side by side: what each takes, its bits layer by layer, how their cards differ."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tflite_tools.c import generate
from tflite_tools.checks.verdict import Accuracy
from tflite_tools.formats import build
from tflite_tools.reports.describe import Description, describe
from tflite_tools.schema import card as cards
from tflite_tools.schema.contents import Model

NO_ACCURACY = (
    "The accuracy of fewer than two files is known: measure it with --inputs and --labels, or tell "
    "it when converting, with --card accuracy='91.2 %'."
)
_NO_RAM = "Nor can two of them be written as C, so there is no RAM to compare either."
C_BYTES, FILE_BYTES = "bytes as C, weights and constants", "bytes of the file"
RAM, TOLD = "bytes of RAM as C", "accuracy as the cards tell it"
_LEAST = 2  # points of a picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerBits:
    """The weights of a layer in one file.

    Attributes:
        name: of the layer, or of the tensor without a manifest.
        width: the bits in words, the type for floating point.
        code_bytes: what the codes take at these bits; None for floating point.
        stored_bytes: what they take in the file, without tables.
        count: how many there are.
    """

    name: str
    width: str
    code_bytes: int | None
    stored_bytes: int
    count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSummary:
    """One of the files.

    Attributes:
        name: how the user calls it.
        size: of the file, in bytes.
        weight_bytes: what weights take in it, with tables.
        code_bytes: what the codes take at their bits.
        average_bits: of a weight; None without weights of whole numbers.
        layers: the weights, layer by layer.
        c_bytes: packed weights and constants of generated C; None if it cannot be written as C.
        c_arena_bytes: its RAM for activations, likewise.
        c_refused: why it cannot, "" if it can.
        target: the runtime whose integers its model follows, None if the file does not say.
        finalized: whether the model was finalized, likewise.
        accuracy: what was measured, by runtime and output.
        told_accuracy: what its card says, None if that is nothing.
        has_card: whether it has a card.
    """

    name: str
    size: int
    weight_bytes: int
    code_bytes: int
    average_bits: float | None
    layers: tuple[LayerBits, ...]
    c_bytes: int | None
    c_arena_bytes: int | None
    c_refused: str
    target: str | None
    finalized: bool | None
    accuracy: tuple[Accuracy, ...]
    told_accuracy: str | None
    has_card: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """Points of files: fewer bytes are to the left.

    Attributes:
        across: what the first number of a point is.
        up: what the second is.
        more_is_better: whether a higher point is better.
        points: place of a file in the list -> its two numbers.
        best: places of the files that no other one betters in both, by bytes.
    """

    across: str
    up: str
    more_is_better: bool
    points: Mapping[int, tuple[float, float]]
    best: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideBySide:
    """What is known of several files together.

    Attributes:
        files: in the user's order.
        layers: the layers of those files that have the same ones, in order: for each, what each of
            `compared` does with it.
        compared: places of the files whose layers have the same names; none if there are not two.
        card: what the cards say differently: dotted name -> the value of each of `carded`.
        carded: places of the files that have a card.
        picture: bytes against accuracy, or against RAM where no accuracy is known; None without.
        no_picture: what is missing for a picture, or for one of the accuracy; "" if nothing is.
    """

    files: tuple[FileSummary, ...]
    layers: tuple[tuple[LayerBits, ...], ...]
    compared: tuple[int, ...]
    card: Mapping[str, tuple[Any, ...]]
    carded: tuple[int, ...]
    picture: Picture | None
    no_picture: str


def side_by_side(
    models: Mapping[str, Model], accuracy: Mapping[str, Sequence[Accuracy]] | None = None
) -> SideBySide:
    """Put files side by side.

    Args:
        models: name -> file.
        accuracy: name -> what was measured of it.
    """
    measured = accuracy or {}
    files = tuple(_file(name, model, measured.get(name, ())) for name, model in models.items())
    compared = _same_layers(files)
    carded = {index: model.card for index, model in enumerate(models.values()) if model.card}
    picture, no_picture = _picture(files)
    return SideBySide(
        files=files,
        layers=tuple(zip(*(files[index].layers for index in compared), strict=True)),
        compared=compared,
        card=cards.differences(*carded.values()),
        carded=tuple(carded),
        picture=picture,
        no_picture=no_picture,
    )


def _file(name: str, model: Model, accuracy: Sequence[Accuracy]) -> FileSummary:
    description = describe(model)
    sizes = description.size_by_category
    told = (model.card or {}).get("notes", {}).get("accuracy", cards.NOT_RECORDED)
    c_bytes, arena, refused = _as_c(model)
    return FileSummary(
        name=name,
        size=description.size,
        weight_bytes=sizes["weights"] + sizes["tables"],
        code_bytes=description.packed_weight_bytes,
        average_bits=_average_bits(description),
        layers=_layers(description),
        c_bytes=c_bytes,
        c_arena_bytes=arena,
        c_refused=refused,
        target=description.target,
        finalized=description.finalized,
        accuracy=tuple(accuracy),
        told_accuracy=None if told == cards.NOT_RECORDED else str(told),
        has_card=model.card is not None,
    )


def _as_c(model: Model) -> tuple[int | None, int | None, str]:
    """Bytes of weights and constants, bytes of RAM, and why the file cannot be written as C."""
    try:
        build.check_canonical(model)
        sources = generate.generate(model)
    except ValueError as error:
        return None, None, " ".join(str(error).split())
    return sources.packed_weight_bytes + sources.constant_bytes, sources.arena_bytes, ""


def _average_bits(description: Description) -> float | None:
    whole = [weight for weight in description.weights if weight.code_bits is not None]
    count = sum(int(np.prod(weight.shape)) for weight in whole)
    return sum(weight.code_bits or 0 for weight in whole) / count if count else None


def _layers(description: Description) -> tuple[LayerBits, ...]:
    return tuple(
        LayerBits(
            name=weight.layer,
            width=weight.width or weight.dtype.lower(),
            code_bytes=None if weight.code_bits is None else -(-weight.code_bits // 8),
            stored_bytes=weight.stored_bytes,
            count=int(np.prod(weight.shape)),
        )
        for weight in description.weights
    )


def _same_layers(files: Sequence[FileSummary]) -> tuple[int, ...]:
    """Places of the files that share the names of their layers with most others."""
    names = [tuple(layer.name for layer in file.layers) for file in files]
    common, count = collections.Counter(names).most_common(1)[0]
    if count < _LEAST or not common:
        return ()
    return tuple(index for index, own in enumerate(names) if own == common)


def _picture(files: Sequence[FileSummary]) -> tuple[Picture | None, str]:
    def drawn(up: str, height: Callable[[FileSummary], float | None], better: bool) -> Picture:
        known = {index: height(file) for index, file in enumerate(files)}
        heights = {index: value for index, value in known.items() if value is not None}
        in_c = {index: files[index].c_bytes for index in heights}
        sizes = {index: size for index, size in in_c.items() if size is not None}
        by_c = len(sizes) == len(heights)
        if not by_c:
            sizes = {index: files[index].size for index in heights}
        points = {index: (float(sizes[index]), value) for index, value in heights.items()}
        return Picture(
            across=C_BYTES if by_c else FILE_BYTES,
            up=up,
            more_is_better=better,
            points=points,
            best=tuple(_best(points, better)),
        )

    tried = [drawn(*way, True) for way in _accuracies(files)]
    known = max(tried, key=lambda picture: len(picture.points))  # the first of equals
    if len(known.points) >= _LEAST:
        return known, ""
    ram = drawn(RAM, lambda file: file.c_arena_bytes, False)
    if len(ram.points) >= _LEAST:
        return ram, NO_ACCURACY
    return None, f"{NO_ACCURACY} {_NO_RAM}"


def _accuracies(
    files: Sequence[FileSummary],
) -> list[tuple[str, Callable[[FileSummary], float | None]]]:
    """Ways to tell the accuracy: what it is called, and a function to its percent.

    One runtime and output is one way; what was measured goes before what the cards tell.
    """
    kinds = dict.fromkeys((own.runner, own.output) for file in files for own in file.accuracy)
    several = len({output for _, output in kinds}) > 1

    def measured(runner: str, output: str) -> Callable[[FileSummary], float | None]:
        def percent(file: FileSummary) -> float | None:
            shares = [
                own.share for own in file.accuracy if (own.runner, own.output) == (runner, output)
            ]
            return None if not shares or shares[0] is None else 100.0 * shares[0]

        return percent

    ways = [
        (
            f"accuracy in {runner}" + (f", {output}" if several else "") + ", %",
            measured(runner, output),
        )
        for runner, output in kinds
    ]
    return [*ways, (f"{TOLD}, %", lambda file: told_percent(file.told_accuracy))]


def told_percent(text: str | None) -> float | None:
    """The percent that a note begins with, None if it does not: "91.2 % on the test images"."""
    found = re.match(r"\s*(\d+(?:\.\d+)?)\s*%", text or "")
    return float(found[1]) if found and float(found[1]) <= 100.0 else None


def _best(points: Mapping[int, tuple[float, float]], more_is_better: bool) -> list[int]:
    """The points that no other one betters, by bytes: each is better than all smaller ones, or the
    same as another of them."""
    sign = -1.0 if more_is_better else 1.0
    found: list[int] = []
    for index in sorted(points, key=lambda own: (points[own][0], sign * points[own][1])):
        last = points[found[-1]] if found else (0.0, sign * math.inf)
        if sign * points[index][1] < sign * last[1] or points[index] == last:
            found.append(index)
    return found
