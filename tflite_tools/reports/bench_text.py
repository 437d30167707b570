"""What `benchmark` prints."""

from __future__ import annotations

from rich.console import Console

from tflite_tools.reports import report_text
from tflite_tools.reports.bench import Benchmark, GeneratedC

INSTRUCTIONS = "instructions of one inference, counted in an emulator: they are not time"


def benchmark_json(found: Benchmark) -> str:
    """A benchmark as JSON text."""
    return report_text.to_json(found)


def print_benchmark(found: Benchmark, output: Console) -> None:
    """Print what was measured, and what was not and why."""
    output.print(f"file: {found.size} bytes")
    if found.latencies:
        _print_latencies(found, output)
    if found.arena_bytes is not None:
        output.print(
            f"TFLM: {found.arena_bytes} bytes of arena, with pointers of 8 bytes; a "
            "microcontroller needs a little less",
            soft_wrap=True,
        )
    if found.generated is not None:
        _print_c(found.generated, output)
    for name, reason in found.not_measured.items():
        output.print(f"not measured: {name}: {report_text.safe(reason)}", soft_wrap=True)


def _print_latencies(found: Benchmark, output: Console) -> None:
    rows = report_text.table("LiteRT threads", "median ms", "quartiles", "least", "runs")
    for latency in found.latencies:
        rows.add_row(
            str(latency.threads),
            f"{latency.median_ms:.4f}",
            f"{latency.lower_quartile_ms:.4f} .. {latency.upper_quartile_ms:.4f}",
            f"{latency.least_ms:.4f}",
            str(latency.runs),
        )
    output.print(rows)


def _print_c(generated: GeneratedC, output: Console) -> None:
    output.print(
        f"C: {generated.arena_bytes} bytes of arena, {generated.packed_weight_bytes} of packed "
        f"weights, {generated.constant_bytes} of other constants",
        soft_wrap=True,
    )
    if not generated.builds:
        return
    rows = report_text.table("C compiled for", "text", "rodata", "data", "bss", "instructions")
    for build in generated.builds:
        sizes = (build.text, build.rodata, build.data, build.bss)
        count = "" if build.instructions is None else str(build.instructions)
        rows.add_row(build.name, *map(str, sizes), count)
    output.print(rows)
    if any(build.instructions is not None for build in generated.builds):
        output.print(INSTRUCTIONS)
