"""The command line's grammar: sub-commands, flags, and suggestions for mistyped ones."""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl.flags import argparse_flags

from tflite_tools import build, compare, convert, ethos, samples, variant
from tflite_tools.formats.result import TARGETS
from tflite_tools.verify import DEFAULT_LIMITS

PROGRAM = "tflite_tools"
USAGE_ERROR = 2
_EXAMPLES = {
    "convert": f"{PROGRAM} convert q.keras --output model.tflite",
    "verify": f"{PROGRAM} verify model.tflite --reference q.keras",
    "compare": f"{PROGRAM} compare model.tflite small.tflite",
    "inspect": f"{PROGRAM} inspect model.tflite",
}
_HELP = {
    "convert": "write a trained quantized model, or its int8 .tflite file, for a device",
    "verify": "check codes, integer arithmetic and agreement; exit code 1 if a check fails",
    "compare": "show how far two .tflite files are apart; exit code 1 beyond the limits",
    "inspect": "show what is in a .tflite file and where its bytes go",
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
    if unknown:
        flag = unknown[0].partition("=")[0]
        known = commands[namespace.command].flags()
        what = "unknown flag" if flag.startswith("-") else "unexpected argument"
        parser.error(f"{what} {flag!r}{_suggestion(flag, known)}")
    return namespace


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
    _add_compare(commands["compare"])
    commands["inspect"].add_argument("file", metavar="FILE", help="a .tflite file")
    for command in commands.values():
        command.add_argument("--json", action="store_true", help="print JSON instead of tables")
        command.add_argument(
            "--verbose", action="store_true", help="show TensorFlow's log and tracebacks"
        )
    return parser, commands


def _add_convert(parser: _Parser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a .keras or .h5 file, a SavedModel folder, or an int8 .tflite file of convert",
    )
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="the file to write; a folder for c"
    )
    parser.add_argument(
        "--input_type",
        choices=convert.INPUT_TYPES,
        help=f"type of inputs and outputs (default: {convert.INPUT_TYPES[0]})",
    )
    parser.add_argument(
        "--format",
        choices=build.FORMATS,
        default=build.FORMATS[0],
        help="how weights are stored: a byte each; two in a byte; indices into tables, for TFLM; "
        "C sources (default: %(default)s)",
    )
    parser.add_argument(
        "--target",
        choices=TARGETS,
        default=TARGETS[0],
        help="what is to run it; any: whatever runs the format (default: %(default)s)",
    )
    parser.add_argument(
        "--slim", action="store_true", help="drop names and metadata, store equal things once"
    )
    parser.add_argument(
        "--split_convs",
        type=_at_least(1),
        metavar="BYTES",
        help="lut: split convolutions so that at most so many bytes of weights are decoded at once",
    )
    parser.add_argument(
        "--accelerator",
        choices=ethos.ACCELERATORS,
        default=ethos.DEFAULT_ACCELERATOR,
        metavar="NAME",
        help="ethos-u: which one (default: %(default)s)",
    )


def _add_verify(parser: _Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="a .tflite file that convert has made")
    parser.add_argument(
        "--reference", metavar="MODEL", help="the trained model it was made from, or as --canonical"
    )
    parser.add_argument(
        "--canonical", metavar="FILE", help="the int8 .tflite file that FILE was made from"
    )
    many = f"{samples.DEFAULT_SAMPLES}, with --canonical {variant.VERIFY_SAMPLES}"
    _add_inputs(parser, default=None, text=many)
    _add_limits(parser)


def _add_compare(parser: _Parser) -> None:
    parser.add_argument("first", metavar="A", help="a .tflite file; differences are in its steps")
    parser.add_argument("second", metavar="B", help="another one of the same network")
    _add_inputs(parser, default=compare.SAMPLES, text=str(compare.SAMPLES))
    parser.add_argument(
        "--max_lsb",
        type=float,
        default=0.0,
        metavar="F",
        help="fail if an output differs by more steps of its grid (default: %(default)s)",
    )
    parser.add_argument(
        "--min_top1",
        type=float,
        default=0.0,
        metavar="F",
        help="fail if a smaller share of samples has the same best class (default: %(default)s)",
    )


def _add_inputs(parser: _Parser, *, default: int | None, text: str) -> None:
    parser.add_argument(
        "--inputs",
        metavar="FILE",
        help="an .npy file of samples, or an .npz file with one array per input",
    )
    parser.add_argument(
        "--samples",
        type=_at_least(1),
        default=default,
        metavar="N",
        help=f"random samples to draw without --inputs (default: {text})",
    )
    parser.add_argument(
        "--seed",
        type=_at_least(0),
        default=samples.DEFAULT_SEED,
        metavar="N",
        help="seed of the random samples (default: %(default)s)",
    )


def _add_limits(parser: _Parser) -> None:
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
