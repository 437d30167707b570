"""Two sections of the page of `report`: bytes in every format, and rounding of the runtimes."""

from __future__ import annotations

from collections.abc import Sequence

from tflite_tools.checks import rounding
from tflite_tools.checks.rounding import Rounding
from tflite_tools.reports import markup, svg
from tflite_tools.reports.sizes import LIMITS, Sizes

_FORMATS = (
    "Bytes of the weights, with their tables. The bars are the formats, the whole width is "
    "float32, and the lines are the other limits. Of C, the whole is weights and constants; its "
    "text and the kernels' code are not the network."
)
_LIMITS = "Bytes of the weights. The bars are the limits, the whole width is float32."


def sizes(found: Sizes) -> str:
    """Bytes of every layer: the limits, and every format that was made."""
    if not found.layers:
        return markup.note("No weights.")
    made = [entry for entry in found.formats if not entry.refused]
    names = [entry.name for entry in made]
    rows = []
    for index, layer in enumerate(found.layers):
        stored = [entry.layers[index] for entry in made]
        numbers = map(str, (*layer.limits, *stored))
        rows.append((markup.text(layer.name), *numbers, _chart(layer.limits, stored)))
    limits = [sum(sizes) for sizes in zip(*(layer.limits for layer in found.layers), strict=True)]
    stored = [sum(entry.layers) for entry in made]
    rows.append(("<b>all</b>", *map(str, (*limits, *stored)), _chart(limits, stored)))
    if made:
        whole = (str(entry.total) for entry in made)
        rows.append(("<b>whole</b>", *("" for _ in LIMITS), *whole, ""))
    refused = [
        markup.note(f"{entry.name}: not made. {entry.refused}")
        for entry in found.formats
        if entry.refused
    ]
    notes = [
        markup.note(f"{entry.name}: {entry.left_out} channels that are not needed are left out.")
        for entry in made
        if entry.left_out
    ]
    header = ("layer", *LIMITS, *names, "")
    explained = markup.note(_FORMATS if made else _LIMITS)
    legend = svg.legend(names or LIMITS)
    return f"{explained}{legend}{markup.raw_table(header, rows)}{''.join((*notes, *refused))}"


def _chart(limits: Sequence[int], stored: Sequence[int]) -> str:
    whole = max(*limits, 1)
    if not stored:
        return svg.bars([size / whole for size in limits])
    marks = [size / whole for size in limits[1:]]
    return svg.bars([size / whole for size in stored], marks)


def differences(found: Rounding | None) -> str:
    """How far the activations of LiteRT and TFLM are apart, and why."""
    if found is None:
        return markup.note("Not compared.")
    if found.skipped:
        return markup.note(f"Not compared: {found.skipped}.".replace("..", "."))
    rows = [
        (row.tensor, f"{row.mean_lsb:.4f}", f"{row.max_lsb:g}", f"{100 * row.different:.2f} %")
        for row in found.rows
    ]
    told = f"LiteRT against TFLM on {found.samples} inputs, in levels of each activation's grid. "
    header = ("activation", "mean LSB", "max LSB", "different")
    return markup.note(told + rounding.WHY) + markup.table(header, rows)
