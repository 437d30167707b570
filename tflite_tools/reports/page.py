"""One self-contained HTML page about a file: its quantization, sizes, codes and checks."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tflite_tools.checks.rounding import Rounding
from tflite_tools.checks.verdict import Report
from tflite_tools.reports import markup, page_sections, svg
from tflite_tools.reports.describe import Description, WeightSummary
from tflite_tools.reports.sizes import Sizes, limits
from tflite_tools.schema import card as cards
from tflite_tools.schema.contents import Model
from tflite_tools.schema.manifest import Manifest

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 68rem; margin: 2rem auto;
       padding: 0 1rem }
h1, h2 { font-weight: 600; line-height: 1.2 } h2 { margin-top: 2.2rem }
table { border-collapse: collapse } th, td { text-align: left; padding: .2rem .9rem .2rem 0;
       vertical-align: top; border-bottom: 1px solid #e4e4e4 }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.passed { color: #17702b } .failed { color: #b3261e; font-weight: 600 }
.warning, .skipped { color: #8a5a00 } .note { color: #666 }
.codes { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem }
figure { margin: 0 } figcaption { font-size: .85rem } svg { max-width: 100%; height: auto }
pre { overflow-x: auto; background: #f6f6f6; padding: .8rem }
"""


def page(
    model: Model,
    description: Description,
    *,
    title: str,
    verification: Report | None = None,
    card: Mapping[str, str] | None = None,
    sizes: Sizes | None = None,
    rounding: Rounding | None = None,
) -> str:
    """The page as HTML text.

    Args:
        model: the file.
        description: what `describe` says of it.
        title: its name.
        verification: what `verify` found, None leaves that section out.
        card: notes for its quantization card (`card.NOTES`), in place of those in the file.
        sizes: bytes by layer in every format, None shows the limits alone.
        rounding: differences between the runtimes, None says that there was no comparison.

    Raises:
        ValueError: if a note has another name.
    """
    sections = [
        ("Quantization card", _card(model, description, card or {})),
        ("Checks", _checks(verification)),
        ("Bytes by layer", page_sections.sizes(sizes or Sizes(limits(description), ()))),
        ("Codes", _histograms(description.weights)),
        ("Scales", _scales(model, description.weights)),
        ("Rounding", page_sections.differences(rounding)),
        ("Where the bytes go", _categories(description)),
        ("Recipe", f"<pre>{markup.text(json.dumps(description.recipe, indent=2))}</pre>"),
    ]
    body = "\n".join(f"<h2>{name}</h2>\n{content}" for name, content in sections)
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>{markup.text(title)}"
        f"</title><style>{_STYLE}</style></head><body>\n<h1>{markup.text(title)}</h1>\n{body}\n"
        "</body></html>\n"
    )


def _card(model: Model, description: Description, notes: Mapping[str, str]) -> str:
    cards.check_notes(notes)
    notes = {**(model.card or {}).get("notes", {}), **notes}
    rows = [("file", f"{description.size} bytes"), *_learned(description, model.manifest)]
    operators = sorted({op.name for op in description.ops})
    rows += [
        ("arithmetic", "int32 accumulators, fixed-point multipliers"),
        ("operators", ", ".join(operators)),
    ]
    if description.versions:
        versions = ", ".join(f"{name} {text}" for name, text in description.versions.items())
        rows.append(("made by", versions))
    rows += [(name, str(notes.get(name, cards.NOT_RECORDED))) for name in cards.NOTES]
    return markup.table((), rows)


def _learned(description: Description, manifest: Manifest | None) -> list[tuple[str, str]]:
    """What the manifest and the recipe say of how the file was trained."""
    recipe = description.recipe
    if manifest is None or recipe is None:
        return [("training", "unknown: the file has no manifest")]
    kernels = [weight for weight in description.weights if weight.trained]
    channels = any(weight.channels > 1 for weight in kernels)
    folded = bool(recipe.get("fold_batch_norm"))
    bias = recipe.get("bias_bits")
    return [
        ("method", _methods(recipe)),
        ("weights", _widths((weight.width for weight in kernels), "kernels")),
        (
            "first and last layer",
            f"{kernels[0].width.removesuffix(' bits')} and {kernels[-1].width}" if kernels else "",
        ),
        ("activations", _widths((f"{a.bits} bits" for a in manifest.activations), "tensors")),
        ("biases", "32 bits" if bias is None else f"{bias} bits times a power of two, in 32"),
        ("granularity", "per output channel" if channels else "per tensor"),
        ("scales", "learned, times batch normalization's factors if folded later"),
        ("batch normalization", "folded while training" if folded else "folded after training"),
    ]


def _methods(recipe: Mapping[str, Any]) -> str:
    """The methods that a recipe names, each with the options that it gives."""
    named = [recipe.get("method", "lsq")]
    named += [rule["method"] for rule in recipe.get("rules", ()) if rule.get("method")]
    named += recipe.get("penalties", ["bin_regularization"])

    def described(name: str) -> str:
        options = recipe.get("options", {}).get(name, {})
        given = ", ".join(f"{key}={value}" for key, value in options.items())
        return f"{name} ({given})" if given else name

    return ", ".join(described(name) for name in dict.fromkeys(named))


def _widths(widths: Iterable[str], kind: str) -> str:
    """How many there are of each width in words."""
    counts = collections.Counter(width for width in widths if width)
    parts = (
        f"{count} {'at' if width[0].isdigit() else 'with'} {width}"
        for width, count in sorted(counts.items())
    )
    return f"{kind}: {', '.join(parts)}"


def _checks(verification: Report | None) -> str:
    if verification is None:
        return markup.note("Not verified: no trained model was given.")
    rows = [
        f"<tr><td>{markup.text(check.name)}</td><td class='{check.verdict.value}'>"
        f"{check.verdict.value}</td><td>{markup.text(check.detail)}</td></tr>"
        for check in verification.checks
    ]
    return f"<table>{''.join(rows)}</table>"


def _histograms(weights: Sequence[WeightSummary]) -> str:
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
    return f"<div class='codes'>{''.join(figures)}</div>"


def _scales(model: Model, weights: Sequence[WeightSummary]) -> str:
    tensors = {tensor.name: tensor for graph in model.graphs for tensor in graph.tensors}
    rows = []
    for weight in weights:
        parameters = tensors[weight.tensor].quantization
        if parameters is None:
            continue
        scale = np.asarray(parameters.scale) * weight.prescale
        spread = f"{scale.min():.6g}" + (f" to {scale.max():.6g}" if scale.size > 1 else "")
        rows.append((weight.layer, str(scale.size), spread, str(weight.prescale)))
    return markup.table(("layer", "scales", "value of one code", "pre-scale"), rows)


def _categories(description: Description) -> str:
    sizes = sorted(description.size_by_category.items(), key=lambda item: -item[1])
    share = [(name, str(size), f"{100 * size / description.size:.1f} %") for name, size in sizes]
    return markup.table(("", "bytes", "share"), share)
