"""The commands that check what a file computes: `verify` and `compare`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tflite_tools.c import accuracy, host_run, source_folder, verify_folder
from tflite_tools.c.accuracy import Runner
from tflite_tools.checks import compare as comparison
from tflite_tools.checks import derived_file
from tflite_tools.checks import trained_model as verification
from tflite_tools.checks.agreement import Limits
from tflite_tools.checks.trained_model import NO_REFERENCE, Reference
from tflite_tools.checks.verdict import Report
from tflite_tools.commands import given
from tflite_tools.commands.arguments import PROGRAM
from tflite_tools.commands.exit_codes import FAILURE, SUCCESS
from tflite_tools.from_keras import convert as conversion
from tflite_tools.reports import comparison_text
from tflite_tools.reports import report_text as reports
from tflite_tools.running import runtime, samples
from tflite_tools.schema.contents import Model
from tflite_tools.system import files
from tflite_tools.system.progress import Advance, progress
from tflite_tools.system.quiet import native_log_hidden


def verify(arguments: argparse.Namespace) -> int:
    """Verify a file, or a folder of C, and print the results.

    Returns:
        Exit code: 0, or 1 if a check failed.
    """
    given.check_paths(arguments)
    if arguments.labels is not None and arguments.inputs is None:
        raise ValueError("--labels are those of the samples of --inputs: give both.")
    with told(arguments) as advance:
        if _is_c(arguments.file):
            result = _folder(arguments, advance)
        else:
            result = verified(arguments, advance).report
    if arguments.json:
        print(reports.verification_json(result))
    else:
        reports.print_verification(result, reports.console())
    return SUCCESS if result.passed else FAILURE


@contextlib.contextmanager
def told(arguments: argparse.Namespace) -> Iterator[Advance]:
    """A progress bar that shows what is being done, alongside the native log."""
    with (
        native_log_hidden(enabled=not arguments.verbose),
        progress(enabled=not arguments.json) as advance,
    ):
        yield advance


def _is_c(path: str) -> bool:
    """Whether a path is a folder, but not that of a Keras model."""
    return os.path.isdir(path) and not os.path.isfile(os.path.join(path, "saved_model.pb"))


class Verified(NamedTuple):
    """A file, the int8 file it was made from or is, and the results of verifying it."""

    file: Model
    canonical: Model
    report: Report


def verified(arguments: argparse.Namespace, advance: Advance) -> Verified:
    """Verify a file against what the flags specify.

    Raises:
        ValueError: if the file, the reference or the samples cannot be used.
    """
    model = given.opened(arguments.file)
    if _canonical_path(arguments) is not None or _is_variant(model):
        return _variant(arguments, model, advance)
    limits = _limits(arguments)
    inputs = given.inputs_for(arguments, model, samples.DEFAULT_SAMPLES)
    stored = samples.stored(model, inputs)  # a wrong shape should not wait for TensorFlow
    labels = _labels(arguments, model, stored)
    if arguments.reference is not None:
        advance(None, f"running {arguments.reference}")
    reference = _reference(arguments, inputs)
    result = verification.verify(
        model,
        reference=reference,
        inputs=inputs,
        typical=arguments.inputs is not None,
        limits=limits,
        advance=advance,
    )
    if labels:
        advance(None, "measuring accuracy")
        runners = accuracy.runners_of(model, stored, predictions=reference.predictions)
        result = _with_accuracy(result, model, labels, runners)
    return Verified(model, model, result)


def _is_variant(model: Model) -> bool:
    """Whether a file was made from an int8 file: packed weights, or no manifest any more."""
    packed = any(t.dtype in ("INT4", "INT2") for t in model.main.tensors)
    return packed or bool(model.main.encoded) or model.manifest is None


def _reference(arguments: argparse.Namespace, inputs: Mapping[str, np.ndarray]) -> Reference:
    """The trained model of --reference, as far as it is needed."""
    if arguments.reference is None or conversion.is_tflite(arguments.reference):
        return NO_REFERENCE
    return conversion.reference(arguments.reference, inputs)


def _canonical_path(arguments: argparse.Namespace) -> str | None:
    """The int8 file to verify against: that of --canonical, or of --reference if it is one."""
    if arguments.canonical is not None and arguments.reference is not None:
        raise ValueError("Give --canonical or --reference, not both.")
    by_reference = arguments.reference is not None and conversion.is_tflite(arguments.reference)
    return arguments.reference if by_reference else arguments.canonical


def _canonical(
    arguments: argparse.Namespace,
    *,
    input_type: str = "int8",
    output_type: str = "int8",
    input_shape: Sequence[tuple[str | None, tuple[int, ...]]] = (),
) -> Model:
    """The int8 file that FILE was made from: as given, or made again from the trained model."""
    path = _canonical_path(arguments)
    if path is not None:
        return given.opened(path)
    if arguments.reference is None:
        raise ValueError(
            f"{arguments.file!r} is verified against what it was made from: give --reference with "
            "the trained model, or --canonical with its int8 file."
        )
    return conversion.convert(
        arguments.reference,
        input_type=input_type,
        output_type=output_type,
        input_shape=input_shape,
    )


def _folder(arguments: argparse.Namespace, advance: Advance) -> Report:
    """The results of comparing a folder of C with the canonical file."""
    folder = source_folder.read(arguments.file)
    limits = _limits(arguments)
    canonical = _canonical(arguments)
    inputs = given.inputs_for(arguments, canonical, derived_file.VERIFY_SAMPLES)
    stored = samples.stored(canonical, inputs)
    labels = _labels(arguments, canonical, stored)
    print(
        f"{PROGRAM}: compiling and running the C in {reports.printable(arguments.file)} on this "
        f"computer ({host_run.MEMORY >> 30} GiB and {runtime.TIME_LIMIT:g} seconds at most)",
        file=sys.stderr,
    )
    result = verify_folder.verify_folder(
        folder, canonical, inputs=stored, seed=arguments.seed, limits=limits, advance=advance
    )
    if labels:
        predictions = _reference(arguments, inputs).predictions
        runners = accuracy.runners_of(
            canonical, stored, predictions=predictions, files=folder.files
        )
        result = _with_accuracy(result, canonical, labels, runners)
    return result


def _variant(arguments: argparse.Namespace, made: Model, advance: Advance) -> Verified:
    """The same for a file in another format, by comparing it with its canonical file."""
    limits = _limits(arguments)
    types = _edge_types(made)
    canonical = _canonical(
        arguments, input_type=types[0], output_type=types[1], input_shape=_sizes(made)
    )
    inputs = given.inputs_for(arguments, canonical, derived_file.VERIFY_SAMPLES)
    stored = samples.stored(canonical, inputs)
    labels = _labels(arguments, canonical, stored)
    result = derived_file.verify_variant(
        made, canonical, inputs=stored, seed=arguments.seed, limits=limits, advance=advance
    )
    if labels:
        predictions = _reference(arguments, inputs).predictions
        runners = accuracy.runners_of(canonical, stored, predictions=predictions)
        own = {
            name: accuracy.in_runtime(made, stored, name) for name in (runtime.LITERT, runtime.TFLM)
        }
        result = _with_accuracy(result, canonical, labels, runners | own)
    return Verified(made, canonical, result)


def _edge_types(model: Model) -> tuple[str, str]:
    """Types of a file's inputs and outputs, as `convert` calls them."""
    places = model.main.inputs, model.main.outputs
    floats = [any(model.main.tensors[i].dtype == "FLOAT32" for i in indices) for indices in places]
    into, out = ("float32" if floating else "int8" for floating in floats)
    return into, out


def _sizes(model: Model) -> list[tuple[str | None, tuple[int, ...]]]:
    """Shapes of a file's inputs, for models that leave them open; none if they have no names."""
    tensors = [model.main.tensors[index] for index in model.main.inputs]
    if len(tensors) == 1:
        return [(None, tensors[0].shape[1:])]
    named = all(tensor.name for tensor in tensors)
    return [(tensor.name, tensor.shape[1:]) for tensor in tensors] if named else []


def _labels(
    arguments: argparse.Namespace, model: Model, stored: Sequence[np.ndarray]
) -> Mapping[str, np.ndarray]:
    """The labels of --labels by output; none without it, or in a command that does not take it."""
    path = getattr(arguments, "labels", None)
    if path is None:
        return {}
    return accuracy.labels_of(model, files.read_arrays(path), len(stored[0]))


def _with_accuracy(
    result: Report, model: Model, labels: Mapping[str, np.ndarray], runners: Mapping[str, Runner]
) -> Report:
    return dataclasses.replace(result, accuracy=accuracy.measure(model, labels, runners))


def compare(arguments: argparse.Namespace) -> int:
    """Compare two files and print how far they differ.

    Returns:
        Exit code: 0, or 1 beyond the limits.
    """
    if not arguments.max_lsb >= 0 or not 0 <= arguments.min_top1 <= 1:
        raise ValueError("--max_lsb must not be negative, --min_top1 must be from 0 to 1.")
    given.check_paths(arguments)
    first, second = given.opened(arguments.first), given.opened(arguments.second)
    inputs = samples.stored(first, given.inputs_for(arguments, first, comparison.SAMPLES))
    with told(arguments) as advance:
        advance(None, "running both files")
        found = comparison.compare(first, second, inputs=inputs)
    within = found.within(max_lsb=arguments.max_lsb, min_top1=arguments.min_top1)
    if arguments.json:
        print(comparison_text.comparison_json(found, within=within))
    else:
        comparison_text.print_comparison(found, reports.console(), within=within)
    return SUCCESS if within else FAILURE


def _limits(arguments: argparse.Namespace) -> Limits | None:
    """The requested limits; a limit that is not given has its default."""
    given = {"min_top1": arguments.min_top1, "max_mean_lsb": arguments.max_mean_lsb}
    chosen = {name: value for name, value in given.items() if value is not None}
    return Limits(**chosen) if chosen else None
