"""The command `inspect`: the contents of a file, or its quantization card."""

from __future__ import annotations

import argparse

from tflite_tools.commands import given
from tflite_tools.commands.exit_codes import SUCCESS
from tflite_tools.reports import report_text
from tflite_tools.reports.card_text import card_text
from tflite_tools.reports.describe import describe


def inspect(arguments: argparse.Namespace) -> int:
    """Print a description of a file.

    Returns:
        Exit code 0.
    """
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
