"""What `benchmark` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from tflite_tools.device.measure import Measured
from tflite_tools.reports import report_text
from tflite_tools.reports.bench import Benchmark, GeneratedC
from tflite_tools.running import runtime

INSTRUCTIONS = "instructions of one inference, counted in an emulator: they are not time"
ROUNDING = "LiteRT rounds once where TFLM and C round twice: some outputs lie one level beside"


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


def devices_json(size: int, found: Sequence[Measured]) -> str:
    """What devices did with a file of `size` bytes, as JSON text."""
    rows = [{**vars(device), "passed": device.passed} for device in found]
    return report_text.to_json({"size": size, "devices": rows})


def print_devices(size: int, found: Sequence[Measured], output: Console) -> None:
    """Print what devices took for an inference, and how many outputs are others."""
    output.print(f"file: {size} bytes")
    runtimes = list(dict.fromkeys(name for device in found for name in device.different))
    rows = report_text.table(
        *("device", "core", "network", "runs", "counted", "median", "least", "most", "ms"),
        *(f"other than {name}" for name in runtimes),
    )
    for device in found:
        ticks = [device.median, device.least, device.most]
        apart = [device.different.get(name) for name in runtimes]
        rows.add_row(
            *map(report_text.safe, (device.device, device.core, device.network)),
            str(device.runs),
            report_text.safe(device.unit),
            *("" if count is None else f"{count:.0f}" for count in ticks),
            f"{1e3 * device.median / device.hz:.4f}" if device.hz and device.median else "",
            *("" if count is None else f"{count} of {device.numbers}" for count in apart),
        )
    output.print(rows)
    if any(device.unit == "instructions" and device.median for device in found):
        output.print(INSTRUCTIONS)
    if any(device.passed and device.different.get(runtime.LITERT) for device in found):
        output.print(ROUNDING)
    for device in found:
        name = report_text.safe(device.device)
        if device.not_counted:
            output.print(f"not measured: {name}: {device.not_counted}", soft_wrap=True)
        if not device.passed:
            output.print(
                f"FAILED {name}: {device.different[device.reference]} of {device.numbers} outputs "
                f"are not those of {device.reference}",
                style="red",
                soft_wrap=True,
            )
    if all(device.passed for device in found):
        output.print(f"every output is that of {found[0].reference}", style="green")
