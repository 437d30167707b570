"""The command `quantize`: a float model is calibrated, trained and finalized."""

from __future__ import annotations

import argparse
import pathlib
import shlex
import sys
import time
from typing import Any

from tflite_tools.commands import given
from tflite_tools.commands.arguments import PROGRAM
from tflite_tools.commands.exit_codes import SUCCESS
from tflite_tools.from_keras.losses import Score
from tflite_tools.from_keras.train import Quantized, Training
from tflite_tools.from_keras.train import quantize as trained
from tflite_tools.reports import report_text
from tflite_tools.system import files
from tflite_tools.system.progress import progress
from tflite_tools.system.quiet import native_log_hidden

_SUFFIXES = (".keras", ".h5")


def quantize(arguments: argparse.Namespace) -> int:
    """Quantize as requested, write and print.

    Returns:
        Exit code 0; failures raise ValueError or RuntimeError.
    """
    given.check_paths(arguments)
    suffix = pathlib.Path(arguments.output).suffix.lower()
    if suffix not in _SUFFIXES:
        better = str(pathlib.Path(arguments.output).with_suffix(".keras"))
        raise ValueError(
            f"--output {arguments.output!r}: what is written is a Keras model. Give a name that "
            f"ends in {' or '.join(_SUFFIXES)}, {better!r} for example."
        )
    files.check_target(arguments.output)
    needed = arguments.model, arguments.data, arguments.validation_data, arguments.recipe_file
    files.check_apart(arguments.output, *needed)
    arrays = files.read_arrays(arguments.data)
    validation = None
    if arguments.validation_data is not None:
        validation = files.read_arrays(arguments.validation_data)
    start = time.monotonic()
    with (
        native_log_hidden(enabled=not arguments.verbose),
        progress(enabled=not arguments.json) as advance,
    ):
        made = trained(
            arguments.model,
            _recipe(arguments),
            arrays,
            _training(arguments),
            validation=validation,
            suffix=suffix,
            advance=advance,
        )
    files.write(arguments.output, made.saved)
    _tell(arguments, made, time.monotonic() - start)
    return SUCCESS


def _recipe(arguments: argparse.Namespace) -> Any:
    """The path of the recipe, or its fields."""
    if arguments.recipe_file is not None:
        return pathlib.Path(arguments.recipe_file)
    bits = {name: getattr(arguments, name) for name in ("weight_bits", "activation_bits")}
    return {name: value for name, value in bits.items() if value is not None}


def _training(arguments: argparse.Namespace) -> Training:
    return Training(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        loss=arguments.loss,
        from_logits=arguments.from_logits,
        penalties=dict(arguments.penalty),
        distill=arguments.distill,
        seed=arguments.seed,
        target=arguments.target,
        short_constants=arguments.short_constants,
    )


def _tell(arguments: argparse.Namespace, made: Quantized, seconds: float) -> None:
    file = pathlib.Path(arguments.output).with_suffix(".tflite")
    following = (
        f"{PROGRAM} convert {shlex.quote(arguments.output)} --output {shlex.quote(str(file))}"
    )
    source = arguments.validation_data or arguments.data
    if arguments.json:
        figures = {
            "output": arguments.output,
            "epochs": arguments.epochs,
            "loss": made.loss,
            "measured_on": source,
            "samples": made.samples,
            "before": made.before and made.before._asdict(),
            "after": made.after and made.after._asdict(),
            "history": made.history,
            "finalize": made.report,
            "warnings": made.warnings,
            "seconds": round(seconds, 2),
            "next": following,
        }
        print(report_text.to_json(figures))
        return
    print(report_text.printable(made.plan))
    print(report_text.printable(made.report))
    for line in made.warnings:
        print(f"{PROGRAM}: warning: {report_text.printable(line)}", file=sys.stderr)
    if made.before is not None and made.after is not None:
        seen = "" if arguments.validation_data else ", which it was trained with"
        print(f"on the {made.samples} samples of {report_text.printable(source)}{seen}:")
        print(f"  float model: {_figures(made.before)}")
        print(f"  quantized:   {_figures(made.after)}")
    print(f"{report_text.printable(arguments.output)}: finalized, {seconds:.1f} seconds")
    print(f"convert it: {report_text.printable(following)}")


def _figures(score: Score) -> str:
    accuracy = "" if score.accuracy is None else f"accuracy {100 * score.accuracy:.2f} %, "
    return f"{accuracy}loss {score.loss:.4g}"
