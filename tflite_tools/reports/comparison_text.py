"""What `convert` and `compare` print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from tflite_tools.checks.compare import Comparison
from tflite_tools.formats.build import Built, Options
from tflite_tools.reports import card_text, report_text
from tflite_tools.reports.describe import Description, describe
from tflite_tools.schema.contents import Model

_TOLD = (
    *("output", "format", "target", "bytes", "canonical_bytes", "weight_bytes"),
    *("packed_weight_bytes", "stored_weight_bytes", "layers", "saved", "warnings", "seconds"),
    "check",
)


def built_figures(output: str, options: Options, canonical: Model, built: Built) -> dict[str, Any]:
    """What `convert` prints, by name."""
    description = describe(canonical)
    return {
        "output": output,
        "format": options.format,
        "target": options.target,
        "bytes": built.size,
        "canonical_bytes": len(canonical.data),
        "weight_bytes": description.size_by_category["weights"],
        "packed_weight_bytes": description.packed_weight_bytes,
        "stored_weight_bytes": _stored(built, canonical, description),
        "layers": len(canonical.require_manifest().layers),
        "saved": {step.name: step.saved for step in built.passes},
        "warnings": list(built.warnings),
        **built.figures,
    }


def _stored(built: Built, canonical: Model, description: Description) -> int:
    """Bytes of the weights in what was written, with their tables."""
    if built.data_bytes is not None:  # C
        return int(built.figures["packed_weight_bytes"])
    sizes = description.size_by_category
    if built.model is not None and built.model is not canonical:
        sizes = describe(built.model).size_by_category
    return sizes["weights"] + sizes["tables"]


def print_built(figures: Mapping[str, Any], built: Built, output: Console) -> None:
    """Print what `convert` has written."""
    kind = "" if built.data_bytes is None else " of weights and constants"
    line = (
        f"{figures['output']}: {figures['bytes']} bytes{kind}, {figures['layers']} layers; "
        f"weights take {figures['stored_weight_bytes']} bytes "
        f"({figures['weight_bytes']} as int8, {figures['packed_weight_bytes']} at their bits) "
        f"({figures['seconds']:.1f} s)"
    )
    output.print(report_text.safe(line), soft_wrap=True)
    if figures["bytes"] != figures["canonical_bytes"]:
        output.print(f"the canonical int8 file has {figures['canonical_bytes']} bytes")
    for step in built.passes:
        output.print(f"{step.name}: {step.saved} bytes saved")
    for name, value in figures.items():
        if name not in _TOLD:
            text = ", ".join(value) if isinstance(value, list) else value
            output.print(f"{name.replace('_', ' ')}: {text}")


def comparison_json(found: Comparison, *, within: bool) -> str:
    """A comparison as JSON text."""
    return report_text.to_json({"within_limits": within, **vars(found)})


def print_comparison(found: Comparison, output: Console, *, within: bool) -> None:
    """Print weights, activations, outputs and the verdict."""
    _print_weights(found, output)
    output.print()
    _print_activations(found, output)
    output.print()
    for name, difference in found.outputs.items():
        output.print(
            f"output {report_text.safe(name)}, {found.samples} inputs in {found.runtime}: "
            f"{difference.text()}",
            soft_wrap=True,
        )
    first, second = found.sizes
    output.print(f"{first} and {second} bytes ({second - first:+d})")
    if found.by_name:
        output.print("the operators differ: compared by the names that both files have")
    for line in card_text.differences_text(found.card):
        output.print(report_text.safe(line), soft_wrap=True)
    if within:
        output.print("the same within the limits", style="green")
    else:
        output.print("they differ", style="red")


def _print_weights(found: Comparison, output: Console) -> None:
    table = report_text.table("weights of", "A", "B", "weights", "different")
    for row in found.weights:
        counts = str(row.weights), str(row.different)
        table.add_row(report_text.safe(row.layer), row.first, row.second, *counts)
    output.print(table)


def _print_activations(found: Comparison, output: Console) -> None:
    table = report_text.table("activation", "mean LSB", "max LSB", "different")
    for row in found.tensors:
        share = f"{100 * row.different:.2f} %"
        table.add_row(
            report_text.safe(row.tensor), f"{row.mean_lsb:.4f}", f"{row.max_lsb:.1f}", share
        )
    output.print(table)
