"""Sections of the page of `report`: layers, bytes in every format, codes, and rounding of the
runtimes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tflite_tools.checks import rounding
from tflite_tools.checks.rounding import Rounding
from tflite_tools.reports import markup, svg
from tflite_tools.reports.describe import WeightSummary
from tflite_tools.reports.sizes import LIMITS, Sizes
from tflite_tools.schema.contents import Model

_FORMATS = (
    "Bytes of the weights, with their tables. The bars are the formats, the whole width is "
    "float32, and the dashed lines are int8 and the codes at their bits. Of C, the whole is "
    "weights and constants; its text and the kernels' code are not the network. Slim is the int8 "
    "file without names and metadata."
)
_LIMITS = "Bytes of the weights. The bars are the limits, the whole width is float32."


_LAYERS = (
    "A weight is its code times a scale. Where training left some of the codes unused, fewer bits "
    "may do. A pre-scale of P means that the file holds P times the code, so that the codes fill "
    "the eight bits and the scale becomes P times smaller; nothing is rounded by it."
)
_CODES = (
    "How many weights have each code. High bars at both ends mean that many weights are clipped; "
    "codes at the ends that no weight has mean that the range is wider than the weights."
)


def layers(model: Model, weights: Sequence[WeightSummary]) -> str:
    """How each kernel is quantized."""
    tensors = {tensor.name: tensor for graph in model.graphs for tensor in graph.tensors}
    rows = []
    for weight in weights:
        parameters = tensors[weight.tensor].quantization
        granularity, spread = "", ""
        if parameters is not None:
            scale = np.asarray(parameters.scale) * weight.prescale
            many = scale.size > 1
            granularity = f"per channel, {scale.size}" if many else "per tensor"
            spread = f"{scale.min():.6g}" + (f" to {scale.max():.6g}" if many else "")
        shape = " x ".join(map(str, weight.shape))
        own = weight.width or weight.dtype.lower()
        used, prescale = _used(weight), str(weight.prescale)
        rows.append((weight.layer, shape, own, used, granularity, spread, prescale))
    header = ("layer", "shape", "bits", "codes used", "scales", "value of one code", "pre-scale")
    return markup.note(_LAYERS) + markup.table(header, rows)


def _used(weight: WeightSummary) -> str:
    """How many of the codes that there are have weights."""
    if not weight.histogram:
        return ""
    ends = f"{min(weight.histogram)} to {max(weight.histogram)}"
    plain = weight.bits is not None and weight.levels is None and weight.channel_bits is None
    of = f" of {2**weight.bits}" if plain and weight.trained and weight.bits else ""
    return f"{weight.distinct}{of}, {ends}"


def histograms(weights: Sequence[WeightSummary]) -> str:
    """A picture for each kernel."""
    figures = []
    for weight in weights:
        if not weight.histogram:
            continue
        low, high = min(weight.histogram), max(weight.histogram)
        counts = [weight.histogram.get(code, 0) for code in range(low, high + 1)]
        bits = f", {weight.width}" if weight.width else ""
        caption = f"{markup.text(weight.layer)}{bits}: codes {low} to {high}"
        figures.append(
            f"<figure>{svg.histogram(counts)}<figcaption>{caption}</figcaption></figure>"
        )
    return f"{markup.note(_CODES)}<div class='codes'>{''.join(figures)}</div>"


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
