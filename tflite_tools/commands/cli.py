"""The command line: runs a sub-command, and turns what goes wrong into a line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Mapping

from absl import app

from tflite_tools.commands import benchmark, completion, convert, given, quantize, verify
from tflite_tools.commands.arguments import PROGRAM, parse
from tflite_tools.commands.exit_codes import FAILURE, INTERRUPTED, SUCCESS
from tflite_tools.reports import report_text
from tflite_tools.reports.card_text import card_text
from tflite_tools.reports.describe import describe


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
        print(f"{PROGRAM}: error: {report_text.printable(_message(error))}", file=sys.stderr)
        return FAILURE


def _message(error: Exception) -> str:
    """An error as text: ours as written, those of libraries on one line with their type."""
    if type(error) in (ValueError, RuntimeError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _inspect(arguments: argparse.Namespace) -> int:
    given.check_paths(arguments)
    file = given.opened(arguments.file)
    if arguments.card:
        card = file.require_card()
        print(report_text.to_json(card) if arguments.json else card_text(card))
        return SUCCESS
    description = describe(file)
    if arguments.json:
        print(report_text.description_json(description))
    else:
        report_text.print_description(description, report_text.console())
    return SUCCESS


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "quantize": quantize.quantize,
    "convert": convert.convert,
    "verify": verify.verify,
    "compare": verify.compare,
    "inspect": _inspect,
    "benchmark": benchmark.benchmark,
    "report": verify.report,
    "completion": completion.completion,
}
