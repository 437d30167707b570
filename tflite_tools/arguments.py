"""The command line's grammar: sub-commands, flags, and suggestions for mistyped ones."""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl.flags import argparse_flags

from tflite_tools import convert, page, samples, squeeze
from tflite_tools.verify import DEFAULT_LIMITS

PROGRAM = "tflite_tools"
USAGE_ERROR = 2
_EXAMPLES = {
    "convert": f"{PROGRAM} convert q.keras --output model.tflite",
    "verify": f"{PROGRAM} verify model.tflite --reference q.keras",
    "inspect": f"{PROGRAM} inspect model.tflite",
    "report": f"{PROGRAM} report model.tflite --reference q.keras --output report.html",
}
_HELP = {
    "convert": "write a trained quantized model as an int8 .tflite file of its exact codes",
    "verify": "check codes, integer arithmetic and agreement; exit code 1 if a check fails",
    "inspect": "show what is in a .tflite file and where its bytes go",
    "report": "write one HTML page about a file: sizes, codes, scales, checks and its card",
}


class _Parser(argparse_flags.ArgumentParser):
    """Errors as one line, exit code 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )

    def error(self, message: str) -> NoReturn:
        print(f"{PROGRAM}: error: {message}", file=sys.stderr)
        raise SystemExit(USAGE_ERROR)

    def flags(self) -> list[str]:
        """The flags that the help shows."""
        return [
            flag
            for action in self._actions
            if action.help is not argparse.SUPPRESS
            for flag in action.option_strings
        ]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line.

    Args:
        argv: program name and arguments. Flags may be written with dashes or underscores.

    Returns:
        The flags, and the sub-command as `command`.

    Raises:
        SystemExit: with code 2 after printing an error, with 0 after --help or --version.
    """
    arguments = [_underscored(argument) for argument in argv[1:]]
    parser, commands = _build()
    first = next((argument for argument in arguments if not argument.startswith("-")), None)
    if first is not None and first not in commands:
        parser.error(f"no command {first!r}{_suggestion(first, commands)}")
    namespace, unknown = parser.parse_known_args(arguments)
    if namespace.command is None:
        parser.error(f"a command is needed: {', '.join(commands)} (see --help)")
    _check_together(parser, namespace)
    if unknown:
        flag = unknown[0].partition("=")[0]
        known = commands[namespace.command].flags()
        what = "unknown flag" if flag.startswith("-") else "unexpected argument"
        parser.error(f"{what} {flag!r}{_suggestion(flag, known)}")
    return namespace


def _check_together(parser: _Parser, namespace: argparse.Namespace) -> None:
    """Flags that need each other, or exclude each other."""
    if namespace.command != "convert":
        return
    if (namespace.flash_budget is None) != (namespace.data is None):
        parser.error("--flash_budget and --data go together")
    if namespace.recipe is not None and namespace.flash_budget is None:
        parser.error("--recipe goes with --flash_budget")
    if namespace.flash_budget is not None and namespace.input_type != convert.INPUT_TYPES[0]:
        parser.error("--flash_budget writes int8 inputs: leave --input_type out")


def _underscored(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def _suggestion(word: str, known: Sequence[str] | dict[str, Any]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {close[0]!r}?" if close else f" (there are {', '.join(known)})"


def _build() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog=PROGRAM,
        description="Convert, verify and inspect integer TFLite models.",
        epilog=f"example: {_EXAMPLES['convert']}",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {_version()}")
    group = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    commands = {
        name: group.add_parser(
            name, help=text, description=text, epilog=f"example: {_EXAMPLES[name]}"
        )
        for name, text in _HELP.items()
    }
    _add_convert(commands["convert"])
    _add_verify(commands["verify"])
    _add_report(commands["report"])
    commands["inspect"].add_argument("file", metavar="FILE", help="a .tflite file")
    for command in commands.values():
        command.add_argument("--json", action="store_true", help="print JSON instead of tables")
        command.add_argument(
            "--verbose", action="store_true", help="show TensorFlow's log and tracebacks"
        )
    return parser, commands


def _add_convert(parser: _Parser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a .keras or .h5 file, or a SavedModel folder"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the .tflite file to write")
    parser.add_argument(
        "--flash_budget",
        type=_size,
        metavar="SIZE",
        help="MODEL is a float model: choose 2, 3, 4 or 8 bits per layer so that the packed "
        "weights fit into SIZE (64KB); writes a file without training, and a recipe to train with",
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="calibration samples for --flash_budget: .npy, or .npz by input name, with `labels`",
    )
    parser.add_argument(
        "--recipe", metavar="FILE", help="where --flash_budget writes the recipe (OUTPUT.json)"
    )
    parser.add_argument(
        "--input_type",
        choices=convert.INPUT_TYPES,
        default=convert.INPUT_TYPES[0],
        help="type of inputs and outputs (default: %(default)s)",
    )


def _size(text: str) -> int:
    try:
        return squeeze.byte_count(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_report(parser: _Parser) -> None:
    parser.add_argument("--output", required=True, metavar="FILE", help="the HTML file to write")
    parser.add_argument(
        "--card",
        action="append",
        default=[],
        type=_field,
        metavar="FIELD=TEXT",
        help=f"what the file does not know, for its card: {', '.join(page.CARD_FIELDS)}",
    )
    _add_verify(parser)


def _field(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals or field not in page.CARD_FIELDS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not FIELD=TEXT with one of {', '.join(page.CARD_FIELDS)}"
        )
    return field, value


def _add_verify(parser: _Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="a .tflite file that convert has made")
    parser.add_argument("--reference", metavar="MODEL", help="the trained model it was made from")
    parser.add_argument(
        "--inputs",
        metavar="FILE",
        help="an .npy file of samples, or an .npz file with one array per input",
    )
    parser.add_argument(
        "--samples",
        type=_at_least(1),
        default=samples.DEFAULT_SAMPLES,
        metavar="N",
        help="random samples to draw without --inputs (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=_at_least(0),
        default=samples.DEFAULT_SEED,
        metavar="N",
        help="seed of the random samples (default: %(default)s)",
    )
    parser.add_argument(
        "--min_top1",
        type=float,
        metavar="F",
        help="fail if a smaller share of samples has the same best class (default: "
        f"{DEFAULT_LIMITS.min_top1}; TFLM then only warns if every operator alone is right)",
    )
    parser.add_argument(
        "--max_mean_lsb",
        type=float,
        metavar="F",
        help="fail if outputs differ by more steps of their grid on average (default: "
        f"{DEFAULT_LIMITS.max_mean_lsb}; TFLM then only warns if every operator alone is right)",
    )


def _at_least(smallest: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = smallest - 1
        if value < smallest:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {smallest} up")
        return value

    return whole_number


def _version() -> str:
    try:
        return importlib.metadata.version("tfbinreg")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed, run from its sources)"
