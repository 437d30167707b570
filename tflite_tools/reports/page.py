"""One self-contained HTML page about a file: its quantization, sizes, codes and checks."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tflite_tools.checks.rounding import Rounding
from tflite_tools.checks.verdict import Report
from tflite_tools.reports import document, markup, page_sections, page_summary
from tflite_tools.reports.describe import Description, WeightSummary
from tflite_tools.reports.sizes import Sizes, limits
from tflite_tools.schema import card as cards
from tflite_tools.schema.contents import Model
from tflite_tools.schema.manifest import Manifest


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
        ("Layers", page_sections.layers(model, description.weights)),
        ("Bytes by layer", page_sections.sizes(sizes or Sizes(limits(description), ()))),
        ("Codes", page_sections.histograms(description.weights)),
        ("Checks", page_summary.checks(verification)),
        ("Rounding", page_sections.differences(rounding)),
        ("Quantization card", _card(model, description, card or {})),
        ("Where the bytes go", _categories(description)),
        ("Recipe", f"<pre>{markup.text(json.dumps(description.recipe, indent=2))}</pre>"),
    ]
    summary = page_summary.summary(description, verification)
    return document.document(title, summary, sections)


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
        ("granularity", _granularity(kernels)),
        ("scales", "learned, times batch normalization's factors if folded later"),
        ("batch normalization", "folded while training" if folded else "folded after training"),
    ]


def _granularity(kernels: Sequence[WeightSummary]) -> str:
    """How many kernels have one scale, and how many one for each output channel."""
    each = sum(weight.channels > 1 for weight in kernels)
    counts = {"per tensor": len(kernels) - each, "per output channel": each}
    return "kernels: " + ", ".join(f"{count} {how}" for how, count in counts.items() if count)


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


def _categories(description: Description) -> str:
    sizes = sorted(description.size_by_category.items(), key=lambda item: -item[1])
    share = [(name, str(size), f"{100 * size / description.size:.1f} %") for name, size in sizes]
    return markup.table(("", "bytes", "share"), share)
