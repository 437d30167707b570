"""The commands that run a file: `verify`, `compare`, `benchmark`, `report`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

import numpy as np

from tflite_tools import (
    bench,
    bench_report,
    c_verify,
    comparison_report,
    files,
    page,
    rounding,
    samples,
    sizes,
    variant,
)
from tflite_tools import compare as comparison
from tflite_tools import convert as conversion
from tflite_tools import model as models
from tflite_tools import report as reports
from tflite_tools import verify as verification
from tflite_tools.agreement import Limits
from tflite_tools.arguments import PROGRAM
from tflite_tools.describe import describe
from tflite_tools.formats import c_folder
from tflite_tools.model import Model
from tflite_tools.quiet import native_log_hidden
from tflite_tools.rounding import Rounding
from tflite_tools.verdict import Report
from tflite_tools.verify import NO_REFERENCE

SUCCESS, FAILURE = 0, 1


def verify(arguments: argparse.Namespace) -> int:
    """Verify a file, or a folder of C, and print what was found.

    Returns:
        Exit code: 0, or 1 if a check failed.
    """
    if os.path.isdir(arguments.file):
        result = _folder(arguments)
    else:
        _, result = _verified(arguments)
    if arguments.json:
        print(reports.verification_json(result))
    else:
        reports.print_verification(result, reports.console())
    return SUCCESS if result.passed else FAILURE


def _verified(arguments: argparse.Namespace) -> tuple[bytes, Report]:
    """The file, and what verifying it as asked finds."""
    source = _canonical_path(arguments)
    if source is not None:
        return _variant(arguments, source)
    limits = _limits(arguments)
    data, model = _opened(arguments.file)
    model.require_manifest()
    if model.main.encoded:
        raise ValueError("Only TFLM runs the file: verify it with --canonical, its int8 file.")
    inputs = _inputs(arguments, model, samples.DEFAULT_SAMPLES)
    samples.stored(model, inputs)  # a wrong shape should not wait for TensorFlow
    reference = NO_REFERENCE
    if arguments.reference is not None:
        with native_log_hidden(enabled=not arguments.verbose):
            reference = conversion.reference(arguments.reference, inputs)
    return data, verification.verify(data, reference=reference, inputs=inputs, limits=limits)


def _canonical_path(arguments: argparse.Namespace) -> str | None:
    """The int8 file to verify against: that of --canonical, or of --reference if it is one."""
    if arguments.canonical is not None and arguments.reference is not None:
        raise ValueError("Give --canonical or --reference, not both.")
    by_reference = arguments.reference is not None and conversion.is_tflite(arguments.reference)
    return arguments.reference if by_reference else arguments.canonical


def _folder(arguments: argparse.Namespace) -> Report:
    """What comparing a folder of C with the canonical file finds."""
    source = _canonical_path(arguments)
    if source is None:
        raise ValueError(
            "A folder of C is verified against the int8 file it was made from: give --canonical."
        )
    folder = c_folder.read(arguments.file)
    canonical, model = _opened(source)
    inputs = samples.stored(model, _inputs(arguments, model, variant.VERIFY_SAMPLES))
    return c_verify.verify_folder(
        folder, canonical, inputs=inputs, seed=arguments.seed, limits=_limits(arguments)
    )


def _variant(arguments: argparse.Namespace, source: str) -> tuple[bytes, Report]:
    """The file, and what comparing it with the canonical file finds."""
    data, _ = _opened(arguments.file)
    canonical, model = _opened(source)
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


def compare(arguments: argparse.Namespace) -> int:
    """Compare two files and print how far they are apart.

    Returns:
        Exit code: 0, or 1 beyond the limits.
    """
    if not arguments.max_lsb >= 0 or not 0 <= arguments.min_top1 <= 1:
        raise ValueError("--max_lsb must not be negative, --min_top1 must be from 0 to 1.")
    (first, model), (second, _) = _opened(arguments.first), _opened(arguments.second)
    inputs = samples.stored(model, _inputs(arguments, model, comparison.SAMPLES))
    found = comparison.compare(first, second, inputs=inputs)
    within = found.within(max_lsb=arguments.max_lsb, min_top1=arguments.min_top1)
    if arguments.json:
        print(comparison_report.comparison_json(found, within=within))
    else:
        comparison_report.print_comparison(found, reports.console(), within=within)
    return SUCCESS if within else FAILURE


def _limits(arguments: argparse.Namespace) -> Limits | None:
    """The limits that were asked for; those of the other flag default."""
    given = {"min_top1": arguments.min_top1, "max_mean_lsb": arguments.max_mean_lsb}
    chosen = {name: value for name, value in given.items() if value is not None}
    return Limits(**chosen) if chosen else None


def report(arguments: argparse.Namespace) -> int:
    """Verify a file and write a page about it.

    Returns:
        Exit code: 0, or 1 if a check failed.
    """
    _refuse_folder(arguments.file)
    files.check_target(arguments.output)
    needed = arguments.file, arguments.reference, arguments.canonical, arguments.inputs
    files.check_apart(arguments.output, *needed)
    data, result = _verified(arguments)
    source = _canonical_path(arguments)
    canonical = data if source is None else files.read(source)
    text = page.page(
        data,
        describe(data),
        title=os.path.basename(arguments.file),
        verification=result,
        card=dict(arguments.card),
        sizes=sizes.measure(canonical),
        rounding=_rounding(arguments, canonical),
    )
    files.write(arguments.output, text.encode())
    if arguments.json:
        print(reports.to_json({"output": arguments.output, "passed": result.passed}))
    else:
        verdict = "verified" if result.passed else "verification FAILED"
        print(f"{arguments.output}: {len(text)} characters; {arguments.file} {verdict}")
    return SUCCESS if result.passed else FAILURE


def _rounding(arguments: argparse.Namespace, data: bytes) -> Rounding:
    """The runtimes' differences on the inputs of the verification, or as many of its kind."""
    model = models.load(data)
    inputs = samples.stored(model, _inputs(arguments, model, samples.DEFAULT_SAMPLES))
    return rounding.measure(data, inputs)


def _opened(path: str) -> tuple[bytes, Model]:
    """A .tflite file, and what is in it; errors name it."""
    data = read_file(path)
    try:
        return data, models.load(data)
    except ValueError as error:
        raise ValueError(f"{path!r}: {error}") from error


def read_file(path: str) -> bytes:
    """The bytes of a .tflite file.

    Raises:
        ValueError: if it cannot be read; for a folder, with what to do instead.
    """
    _refuse_folder(path)
    return files.read(path)


def _refuse_folder(path: str) -> None:
    if os.path.isdir(path):
        raise ValueError(
            f"{path!r} is a folder. Of C, take the .tflite file it was made from: `{PROGRAM} "
            f"verify {path} --canonical INT8` shows that both are the same."
        )


def benchmark(arguments: argparse.Namespace) -> int:
    """Measure a file and print the figures.

    Returns:
        Exit code 0.
    """
    data = read_file(arguments.file)
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
        bench_report.print_benchmark(found, reports.console())
    return SUCCESS
