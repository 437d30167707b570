"""Reports as text tables, plain when not on a terminal, and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import Any, TextIO

from rich import markup
from rich.console import Console
from rich.table import Table

from tflite_tools.checks.verdict import Report, advice
from tflite_tools.reports.describe import Description, TensorSummary, WeightSummary

_COLORS = {"passed": "green", "failed": "red", "warning": "yellow", "skipped": "yellow"}
_PLAIN_WIDTH = 200  # columns when the output is not a terminal
_MOST_CODES = 16  # histograms of more codes are left to --json


def to_json(value: Any) -> str:
    """A result as JSON text; numbers that JSON does not know become strings."""
    return json.dumps(_plain(value), indent=2)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return _plain(fields)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def verification_json(report: Report) -> str:
    """A verification as JSON text: verdict, checks and, where labels were given, accuracy."""
    checks = [vars(check) | {"advice": advice(check)} for check in report.checks]
    fields = {"passed": report.passed, "checks": checks}
    return to_json(fields | ({"accuracy": report.accuracy} if report.accuracy else {}))


def description_json(description: Description) -> str:
    """A description as JSON text."""
    fields = {
        field.name: getattr(description, field.name) for field in dataclasses.fields(description)
    }
    return to_json({**fields, "packed_weight_bytes": description.packed_weight_bytes})


def console(stream: TextIO | None = None) -> Console:
    """Where tables go: `stream`, stdout by default."""
    stream = stream or sys.stdout
    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def print_verification(report: Report, output: Console) -> None:
    """Print one line per check and the verdict."""
    rows = table("check", "verdict", "detail")
    for check in report.checks:
        verdict = check.verdict.value
        color = _COLORS[verdict]
        rows.add_row(check.name, f"[{color}]{verdict}[/{color}]", safe(check.detail))
    output.print(rows)
    if report.accuracy:
        _print_accuracy(report, output)
    failed = [check for check in report.checks if check.verdict.value == "failed"]
    for check in failed:
        layers = ", ".join(check.layers) or "the whole file"
        output.print(f"FAILED {check.name}: {safe(layers)}", style="red", soft_wrap=True)
        if told := advice(check):
            output.print(f"  {safe(told)}", soft_wrap=True)
    if not failed:
        output.print("verified", style="green")


def _print_accuracy(report: Report, output: Console) -> None:
    rows = table("accuracy of", "at output", "right")
    for figure in report.accuracy:
        share = figure.reason if figure.share is None else f"{100 * figure.share:.2f} %"
        rows.add_row(figure.runner, safe(figure.output), safe(share))
    output.print(rows)


def print_description(description: Description, output: Console) -> None:
    """Print inputs and outputs, operators, weights, sizes, versions and recipe."""
    for show in (_print_tensors, _print_ops, _print_weights, _print_sizes):
        show(description, output)
        output.print()
    if description.versions is not None:
        versions = ", ".join(f"{name} {text}" for name, text in description.versions.items())
        output.print(f"made by {safe(versions)}", soft_wrap=True)
        finalized = {None: "not known to be finalized", True: "finalized", False: "NOT finalized"}
        told = f"the model was {finalized[description.finalized]}"
        output.print(f"{told}, target {description.target}", soft_wrap=True)
        output.print(f"recipe {safe(json.dumps(description.recipe))}", soft_wrap=True)


def _print_tensors(description: Description, output: Console) -> None:
    rows = table("", "name", "type", "shape", "scale", "zero point")
    for role, tensors in (("input", description.inputs), ("output", description.outputs)):
        for tensor in tensors:
            shape = _shape(tensor.shape)
            rows.add_row(role, safe(tensor.name), tensor.dtype, shape, *_q(tensor))
    output.print(rows)


def _q(tensor: TensorSummary) -> tuple[str, str]:
    if tensor.scale is None or tensor.zero_point is None:
        return "", ""
    return f"{tensor.scale[0]:.6g}", str(tensor.zero_point[0])


def _print_ops(description: Description, output: Console) -> None:
    rows = table("operator", "inputs", "output", "type", "shape", "activation")
    for op in description.ops:
        activation = "" if op.activation == "NONE" else op.activation
        inputs = safe(", ".join(op.inputs))
        shape = _shape(op.shape)
        rows.add_row(safe(op.name), inputs, safe(op.output), op.dtype, shape, activation)
    output.print(rows)


def _print_weights(description: Description, output: Console) -> None:
    rows = table("weights of", "type", "shape", "bytes", "scales", "bits", "distinct", "codes")
    for weight in description.weights:
        rows.add_row(
            safe(weight.layer),
            weight.dtype,
            _shape(weight.shape),
            str(weight.stored_bytes),
            str(weight.channels or ""),
            _bits(weight),
            str(weight.distinct),
            _histogram(weight),
        )
    output.print(rows)
    if description.left_out:
        output.print(safe(description.left_out), soft_wrap=True)


def _bits(weight: WeightSummary) -> str:
    plain = weight.width.removesuffix(" bits")
    return plain if weight.trained or weight.bits is None else f"{weight.bits} needed"


def _histogram(weight: WeightSummary) -> str:
    histogram = weight.histogram
    if not histogram:
        return ""
    if len(histogram) > _MOST_CODES:
        return f"{min(histogram)} .. {max(histogram)}"
    return "  ".join(f"{code} ({count})" for code, count in histogram.items())


def _print_sizes(description: Description, output: Console) -> None:
    rows = table("bytes", "", "share")
    for name, size in sorted(description.size_by_category.items(), key=lambda item: -item[1]):
        rows.add_row(str(size), name, f"{100 * size / description.size:.1f} %")
    rows.add_row(str(description.size), "file", "100.0 %")
    output.print(rows)


def safe(name: str) -> str:
    """A name from a file, safe to print: no terminal control characters, no markup."""
    return markup.escape(printable(name))


def printable(text: str) -> str:
    """Text with everything a terminal would interpret, line breaks aside, replaced."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "scalar"


def table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
