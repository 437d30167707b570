"""The command `completion`: a script for a shell, generated from the grammar by shtab."""

from __future__ import annotations

import argparse
import sys

from tflite_tools.commands import arguments as grammar
from tflite_tools.commands.exit_codes import SUCCESS

_FILES = ("FILE", "MODEL", "INT8", "A", "B")  # what names of files are called in the help


def completion(arguments: argparse.Namespace) -> int:
    """Print the script.

    Returns:
        Exit code 0.

    Raises:
        RuntimeError: if shtab is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise RuntimeError(
            "Completion scripts are made by shtab: pip install shtab, or 'tfbinreg[completion]'"
        ) from None
    parser = grammar.whole_parser()
    _complete_files(parser, shtab.FILE)
    sys.stdout.write(shtab.complete(parser, shell=arguments.shell))
    return SUCCESS


def _complete_files(parser: argparse.ArgumentParser, files: object) -> None:
    """Let shtab complete the names of files."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, files)
        elif action.metavar in _FILES:
            action.complete = files  # type: ignore[attr-defined]
