"""Command line: convert, verify, compare, inspect, benchmark, report. Opens, prints, exits."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping

import numpy as np
from absl import app

from tflite_tools import (
    bench,
    bench_report,
    build,
    comparison_report,
    files,
    page,
    report,
    samples,
    variant,
)
from tflite_tools import compare as comparison
from tflite_tools import convert as conversion
from tflite_tools import model as models
from tflite_tools.agreement import Limits
from tflite_tools.arguments import PROGRAM, parse
from tflite_tools.build import Options
from tflite_tools.describe import describe
from tflite_tools.model import Model
from tflite_tools.quiet import native_log_hidden
from tflite_tools.squeeze import squeeze
from tflite_tools.verdict import Report
from tflite_tools.verify import NO_REFERENCE, verify

SUCCESS, FAILURE, INTERRUPTED = 0, 1, 130


def run() -> None:
    """The console script."""
    app.run(main, flags_parser=parse)


def main(arguments: argparse.Namespace) -> int:
    """Run one sub-command.

    Returns:
        Exit code: 0, or 1 if verification or the command failed.
    """
    try:
        return _COMMANDS[arguments.command](arguments)
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SUCCESS
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # the user's last line of defence against a traceback
        if arguments.verbose:
            traceback.print_exc()
        print(f"{PROGRAM}: error: {report.printable(_message(error))}", file=sys.stderr)
        return FAILURE


def _message(error: Exception) -> str:
    """An error as text: ours as written, those of libraries on one line with their type."""
    if type(error) is ValueError:
        return str(error)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _convert(arguments: argparse.Namespace) -> int:
    options = Options(
        format=arguments.format,
        target=arguments.target,
        slim=arguments.slim,
        split_convs=arguments.split_convs,
        accelerator=arguments.accelerator,
    )
    folder = options.format == "c"
    (files.check_folder if folder else files.check_target)(arguments.output)
    if arguments.flash_budget is not None:
        if options != Options():
            raise ValueError("--flash_budget writes the int8 file: convert that file afterwards.")
        return _squeeze(arguments)
    start = time.monotonic()
    with native_log_hidden(enabled=not arguments.verbose):
        canonical = conversion.canonical(arguments.model, input_type=arguments.input_type)
    built = build.build(canonical, options, name=_identifier(arguments.output))
    if folder:
        files.write_folder(arguments.output, built.files)
    else:
        files.write(arguments.output, built.files[""])
    figures = comparison_report.built_figures(arguments.output, options, canonical, built)
    figures["seconds"] = round(time.monotonic() - start, 2)
    if arguments.json:
        print(report.to_json(figures))
        return SUCCESS
    for line in built.warnings:
        print(f"{PROGRAM}: warning: {report.printable(line)}", file=sys.stderr)
    comparison_report.print_built(figures, built, report.console())
    if options == Options():
        print(f"check it: {PROGRAM} verify {arguments.output} --reference {arguments.model}")
    return SUCCESS


def _identifier(output: str) -> str:
    """A name for C from the name of a file."""
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in pathlib.Path(output).stem)
    return name if name[:1].isalpha() else f"model_{name}"


def _squeeze(arguments: argparse.Namespace) -> int:
    recipe_path = arguments.recipe or f"{arguments.output}.json"
    files.check_target(recipe_path)
    arrays = files.read_arrays(arguments.data)
    with native_log_hidden(enabled=not arguments.verbose):
        result = squeeze(arguments.model, arguments.flash_budget, arrays)
    files.write(arguments.output, result.data)
    files.write(recipe_path, result.recipe.encode())
    if arguments.json:
        figures = {
            "output": arguments.output,
            "recipe": recipe_path,
            "budget": arguments.flash_budget,
            "packed_bytes": result.packed_bytes,
            "squeezed": result.squeezed,
            "before": result.before,
            "after": result.after,
            "labelled": result.labelled,
        }
        print(report.to_json(figures))
        return SUCCESS
    print(result.table)
    what = "accuracy" if result.labelled else "best class as the float model"
    print(f"{what}: {100 * result.before:.2f} % float, {100 * result.after:.2f} % untrained")
    squeezed = ", ".join(result.squeezed) or "none"
    print(f"squeezed below 8 bits: {report.printable(squeezed)}")
    print(f"{arguments.output}: not trained; train with Recipe.from_json of {recipe_path}")
    return SUCCESS


def _verify(arguments: argparse.Namespace) -> int:
    _, result = _verified(arguments)
    if arguments.json:
        print(report.verification_json(result))
    else:
        report.print_verification(result, report.console())
    return SUCCESS if result.passed else FAILURE


def _verified(arguments: argparse.Namespace) -> tuple[bytes, Report]:
    """The file, and what verifying it as asked finds."""
    source = _canonical_path(arguments)
    if source is not None:
        return _variant(arguments, source)
    limits = _limits(arguments)
    data = files.read(arguments.file)
    model = models.load(data)
    model.require_manifest()
    if model.main.encoded:
        raise ValueError("Only TFLM runs the file: verify it with --canonical, its int8 file.")
    inputs = _inputs(arguments, model, samples.DEFAULT_SAMPLES)
    samples.stored(model, inputs)  # a wrong shape should not wait for TensorFlow
    reference = NO_REFERENCE
    if arguments.reference is not None:
        with native_log_hidden(enabled=not arguments.verbose):
            reference = conversion.reference(arguments.reference, inputs)
    return data, verify(data, reference=reference, inputs=inputs, limits=limits)


def _canonical_path(arguments: argparse.Namespace) -> str | None:
    """The int8 file to verify against: that of --canonical, or of --reference if it is one."""
    if arguments.canonical is not None and arguments.reference is not None:
        raise ValueError("Give --canonical or --reference, not both.")
    by_reference = arguments.reference is not None and conversion.is_tflite(arguments.reference)
    return arguments.reference if by_reference else arguments.canonical


def _variant(arguments: argparse.Namespace, source: str) -> tuple[bytes, Report]:
    """The file, and what comparing it with the canonical file finds."""
    data, canonical = files.read(arguments.file), files.read(source)
    models.load(data)
    model = models.load(canonical)
    inputs = samples.stored(model, _inputs(arguments, model, variant.VERIFY_SAMPLES))
    result = variant.verify_variant(
        data, canonical, inputs=inputs, seed=arguments.seed, limits=_limits(arguments)
    )
    return data, result


def _inputs(arguments: argparse.Namespace, model: Model, default: int) -> Mapping[str, np.ndarray]:
    if arguments.inputs is not None:
        return samples.arrange(model, files.read_arrays(arguments.inputs))
    count = getattr(arguments, "samples", None) or default
    return samples.seeded(model, samples=count, seed=arguments.seed)


def _compare(arguments: argparse.Namespace) -> int:
    if not arguments.max_lsb >= 0 or not 0 <= arguments.min_top1 <= 1:
        raise ValueError("--max_lsb must not be negative, --min_top1 must be from 0 to 1.")
    first, second = files.read(arguments.first), files.read(arguments.second)
    model = models.load(first)
    inputs = samples.stored(model, _inputs(arguments, model, comparison.SAMPLES))
    found = comparison.compare(first, second, inputs=inputs)
    within = found.within(max_lsb=arguments.max_lsb, min_top1=arguments.min_top1)
    if arguments.json:
        print(comparison_report.comparison_json(found, within=within))
    else:
        comparison_report.print_comparison(found, report.console(), within=within)
    return SUCCESS if within else FAILURE


def _limits(arguments: argparse.Namespace) -> Limits | None:
    """The limits that were asked for; those of the other flag default."""
    given = {"min_top1": arguments.min_top1, "max_mean_lsb": arguments.max_mean_lsb}
    chosen = {name: value for name, value in given.items() if value is not None}
    return Limits(**chosen) if chosen else None


def _inspect(arguments: argparse.Namespace) -> int:
    description = describe(files.read(arguments.file))
    if arguments.json:
        print(report.description_json(description))
    else:
        report.print_description(description, report.console())
    return SUCCESS


def _benchmark(arguments: argparse.Namespace) -> int:
    data = files.read(arguments.file)
    model = models.load(data)
    inputs = samples.stored(model, _inputs(arguments, model, 1))
    found = bench.benchmark(
        data,
        inputs,
        threads=arguments.threads,
        warm_up=arguments.warm_up,
        runs=arguments.runs,
    )
    if arguments.json:
        print(bench_report.benchmark_json(found))
    else:
        bench_report.print_benchmark(found, report.console())
    return SUCCESS


def _report(arguments: argparse.Namespace) -> int:
    files.check_target(arguments.output)
    data, result = _verified(arguments)
    text = page.page(
        data,
        describe(data),
        title=os.path.basename(arguments.file),
        verification=result,
        card=dict(arguments.card),
    )
    files.write(arguments.output, text.encode())
    if arguments.json:
        print(report.to_json({"output": arguments.output, "passed": result.passed}))
    else:
        verdict = "verified" if result.passed else "verification FAILED"
        print(f"{arguments.output}: {len(text)} characters; {arguments.file} {verdict}")
    return SUCCESS if result.passed else FAILURE


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "convert": _convert,
    "verify": _verify,
    "compare": _compare,
    "inspect": _inspect,
    "benchmark": _benchmark,
    "report": _report,
}
