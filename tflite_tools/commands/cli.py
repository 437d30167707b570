"""The command line: runs a sub-command, and turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback

from absl import app

from tflite_tools.commands.arguments import PROGRAM, parse
from tflite_tools.commands.exit_codes import FAILURE, INTERRUPTED, SUCCESS


def run() -> None:
    """The console script."""
    app.run(main, flags_parser=parse)


def main(arguments: argparse.Namespace) -> int:
    """Run one sub-command.

    Returns:
        Exit code: 0, or 1 if verification or the command failed.
    """
    try:
        module = importlib.import_module(f"tflite_tools.commands.{_COMMANDS[arguments.command]}")
        return int(getattr(module, arguments.command)(arguments))
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SUCCESS
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # the user's last line of defence against a traceback
        if arguments.verbose:
            traceback.print_exc()
        from tflite_tools.reports import report_text

        print(f"{PROGRAM}: error: {report_text.printable(_message(error))}", file=sys.stderr)
        return FAILURE


def _message(error: Exception) -> str:
    """An error as text: our errors as written, those of libraries on one line with their type."""
    ours = type(error).__module__ == "tfbinreg.core.problems"
    if ours or type(error) in (ValueError, RuntimeError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# The module with the function of the command's name. It is imported for its own command only.
_COMMANDS = {
    "quantize": "quantize",
    "convert": "convert",
    "verify": "verify",
    "compare": "verify",
    "inspect": "inspect",
    "benchmark": "benchmark",
    "report": "report",
    "completion": "completion",
}
