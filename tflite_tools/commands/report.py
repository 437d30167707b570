"""The command `report`: a page about a file, or about several side by side."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tflite_tools.c import accuracy
from tflite_tools.checks import rounding
from tflite_tools.checks.rounding import Rounding
from tflite_tools.checks.verdict import Accuracy
from tflite_tools.commands import given
from tflite_tools.commands.exit_codes import FAILURE, SUCCESS
from tflite_tools.commands.verify import told, verified
from tflite_tools.reports import page, side_by_side, side_by_side_page, sizes
from tflite_tools.reports import report_text as reports
from tflite_tools.reports.describe import describe
from tflite_tools.running import runtime, samples
from tflite_tools.schema.contents import Model
from tflite_tools.system import files
from tflite_tools.system.progress import Advance

# Flags of a single file, with what they are when they are not given.
_OF_ONE: dict[str, object] = {
    "reference": None,
    "canonical": None,
    "min_top1": None,
    "max_mean_lsb": None,
    "samples": None,
    "seed": samples.DEFAULT_SEED,
    "card": [],
}


def report(arguments: argparse.Namespace) -> int:
    """Write a page: verify the file, or show several side by side.

    Returns:
        Exit code: 0, or 1 if a check failed.
    """
    given.check_paths(arguments)
    for path in arguments.files:
        given.refuse_folder(path)
    given.check_output(arguments.output, kind="an HTML page", suffix=".html", wrong=(".tflite",))
    files.check_target(arguments.output)
    needed = arguments.reference, arguments.canonical, arguments.inputs, arguments.labels
    files.check_apart(arguments.output, *arguments.files, *needed)
    if arguments.labels is not None and arguments.inputs is None:
        raise ValueError("--labels are those of the samples of --inputs: give both.")
    return _of_several(arguments) if len(arguments.files) > 1 else _of_one(arguments)


def _of_one(arguments: argparse.Namespace) -> int:
    (arguments.file,) = arguments.files
    with told(arguments) as advance:
        file, canonical, result = verified(arguments, advance)
        advance(None, "writing the page")
        text = page.page(
            file,
            describe(file),
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


def _rounding(arguments: argparse.Namespace, model: Model) -> Rounding:
    """The runtimes' differences on the inputs of the verification, or as many of its kind."""
    inputs = samples.stored(model, given.inputs_for(arguments, model, samples.DEFAULT_SAMPLES))
    return rounding.measure(model, inputs)


def _of_several(arguments: argparse.Namespace) -> int:
    extra = [f"--{name}" for name, value in _OF_ONE.items() if getattr(arguments, name) != value]
    if extra:
        raise ValueError(
            f"Several files are put side by side, not verified: leave {', '.join(extra)} out, or "
            "report one file."
        )
    if arguments.inputs is not None and arguments.labels is None:
        raise ValueError(
            "--inputs are for the accuracy of several files: give --labels too, or leave it out."
        )
    models = dict(zip(_names(arguments.files), map(given.opened, arguments.files), strict=True))
    with told(arguments) as advance:
        measured = _accuracy(arguments, models, advance)
        advance(None, "writing the page")
        found = side_by_side.side_by_side(models, measured)
        text = side_by_side_page.page(found)
    files.write(arguments.output, text.encode())
    if arguments.json:
        print(reports.to_json({"output": arguments.output, **vars(found)}))
    else:
        print(f"{arguments.output}: {len(text)} characters; {len(models)} files side by side")
    return SUCCESS


def _names(paths: Sequence[str]) -> list[str]:
    """The files' own names; the paths if two have the same.

    Raises:
        ValueError: if a file is given twice.
    """
    if len(set(map(os.path.realpath, paths))) < len(paths):
        raise ValueError("A file is given twice: leave one out.")
    names = [os.path.basename(path) for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _accuracy(
    arguments: argparse.Namespace, models: Mapping[str, Model], advance: Advance
) -> dict[str, tuple[Accuracy, ...]]:
    """The accuracy of each file in LiteRT and TFLM; nothing without labels."""
    if arguments.labels is None:
        return {}
    inputs, labels = files.read_arrays(arguments.inputs), files.read_arrays(arguments.labels)
    jobs = [job for name, model in models.items() for job in _jobs(name, model, inputs, labels)]
    found: dict[str, tuple[Accuracy, ...]] = dict.fromkeys(models, ())
    for done, (name, model, own, runner, run) in enumerate(jobs):
        advance(done / len(jobs), f"measuring {name} in {runner}")
        found[name] += accuracy.measure(model, own, {runner: run})
    return found


def _jobs(
    name: str,
    model: Model,
    inputs: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
) -> Iterator[tuple[str, Model, Mapping[str, np.ndarray], str, accuracy.Runner]]:
    """Name, file, labels by output, runtime, and what runs it. Samples that do not fit are rejected
    before anything runs.
    """
    try:
        stored = samples.stored(model, samples.arrange(model, inputs))
        own = accuracy.labels_of(model, labels, len(stored[0]))
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from error
    for runner in (runtime.LITERT, runtime.TFLM):
        yield name, model, own, runner, accuracy.in_runtime(model, stored, runner)
