"""The command `report`: a page about a file."""

from __future__ import annotations

import argparse
import os

from tflite_tools.checks import rounding
from tflite_tools.checks.rounding import Rounding
from tflite_tools.commands import given
from tflite_tools.commands.exit_codes import FAILURE, SUCCESS
from tflite_tools.commands.verify import told, verified
from tflite_tools.reports import page, sizes
from tflite_tools.reports import report_text as reports
from tflite_tools.reports.describe import describe
from tflite_tools.running import samples
from tflite_tools.schema.contents import Model
from tflite_tools.system import files


def report(arguments: argparse.Namespace) -> int:
    """Verify a file and write a page about it.

    Returns:
        Exit code: 0, or 1 if a check failed.
    """
    given.check_paths(arguments)
    given.refuse_folder(arguments.file)
    given.check_output(arguments.output, kind="an HTML page", suffix=".html", wrong=(".tflite",))
    files.check_target(arguments.output)
    needed = arguments.file, arguments.reference, arguments.canonical, arguments.inputs
    files.check_apart(arguments.output, *needed)
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
