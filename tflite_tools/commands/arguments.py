"""The command line's grammar: sub-commands, flags, and suggestions for mistyped ones."""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from absl.flags import argparse_flags

from tflite_tools.commands import flags

PROGRAM = "tflite_tools"
USAGE_ERROR = 2
_EXAMPLES = {
    "convert": (
        "convert q.keras --output model.tflite",
        "convert q.keras --format c -o net",
        "convert model.tflite --format int4 --slim -o small.tflite",
        "convert float.keras --flash_budget 64KB --data samples.npz -o first.tflite",
    ),
    "verify": (
        "verify model.tflite --reference q.keras",
        "verify net --reference q.keras",
        "verify small.tflite --canonical model.tflite",
        "verify model.tflite --reference q.keras --inputs x.npy --labels y.npy",
    ),
    "compare": ("compare model.tflite small.tflite",),
    "inspect": ("inspect model.tflite", "inspect model.tflite --card"),
    "benchmark": ("benchmark model.tflite --threads 1,2",),
    "report": ("report model.tflite --reference q.keras --output report.html",),
}
_MORE = {
    "verify": "A folder of C is compiled, and its program is run on this computer, with bounds on "
    "its time,\nmemory and output: verify only what you would run.",
}
_HELP = {
    "convert": "write a trained quantized model, or its int8 .tflite file, for a device",
    "verify": "check codes, integer arithmetic and agreement; exit code 1 if a check fails",
    "compare": "show how far two .tflite files are apart; exit code 1 beyond the limits",
    "inspect": "show what is in a .tflite file and where its bytes go",
    "benchmark": "measure LiteRT's time, TFLM's memory and the bytes of C, on this computer",
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

    def option_names(self) -> list[str]:
        """Every flag, hidden ones too."""
        return [flag for action in self._actions for flag in action.option_strings]

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
    if first is not None:  # before a flag that is mistyped is missed
        _check_flags(parser, commands[first], arguments)
    namespace, unknown = parser.parse_known_args(arguments)
    if namespace.command is None:
        parser.error(f"a command is needed: {', '.join(commands)} (see --help)")
    _check_together(parser, namespace)
    if unknown:
        what = "unknown flag" if unknown[0].startswith("-") else "unexpected argument"
        known = commands[namespace.command].flags()
        parser.error(f"{what} {unknown[0]!r}{_suggestion(unknown[0], known)}")
    return namespace


def _check_flags(parser: _Parser, command: _Parser, arguments: Sequence[str]) -> None:
    known = {*parser.option_names(), *command.option_names()}
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and len(flag) > 2 and flag not in known:
            parser.error(f"unknown flag {flag!r}{_suggestion(flag, command.flags())}")


def _check_together(parser: _Parser, namespace: argparse.Namespace) -> None:
    """Flags that need each other, or exclude each other."""
    if namespace.command != "convert":
        return
    if (namespace.flash_budget is None) != (namespace.data is None):
        parser.error("--flash_budget and --data go together")
    if namespace.recipe is not None and namespace.flash_budget is None:
        parser.error(
            "--recipe is not read here: a quantized model has its recipe already. Give it to "
            "tfbinreg.quantize_apply(model, RECIPE), train and convert the result; or let "
            "--flash_budget write one, and say where with --recipe_output"
        )
    if namespace.recipe_output is not None and namespace.flash_budget is None:
        parser.error("--recipe_output goes with --flash_budget")
    if namespace.flash_budget is None:
        for flag in ("flash_granularity", "flash_widths"):
            if getattr(namespace, flag) is not None:
                parser.error(f"--{flag} goes with --flash_budget")
    types = namespace.input_type, namespace.output_type
    if namespace.flash_budget is not None and types != (None, None):
        parser.error("--flash_budget writes int8: leave --input_type and --output_type out")
    if namespace.input_shape and (namespace.flash_budget or namespace.finalize_data):
        parser.error("samples are given, which tell the sizes: leave --input_shape out")


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
        epilog=_examples("convert"),
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {_version()}")
    group = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    commands = {
        name: group.add_parser(
            name,
            help=text,
            description="\n\n".join(filter(None, (f"{text}.", _MORE.get(name)))),
            epilog=_examples(name),
        )
        for name, text in _HELP.items()
    }
    flags.add_convert(commands["convert"])
    flags.add_verify(commands["verify"])
    flags.add_labels(commands["verify"])
    flags.add_compare(commands["compare"])
    flags.add_report(commands["report"])
    flags.add_benchmark(commands["benchmark"])
    flags.add_inspect(commands["inspect"])
    for command in commands.values():
        command.add_argument("--json", action="store_true", help="print JSON instead of tables")
        command.add_argument(
            "--verbose", action="store_true", help="show TensorFlow's log and tracebacks"
        )
    return parser, commands


def _examples(command: str) -> str:
    lines = (f"  {PROGRAM} {example}" for example in _EXAMPLES[command])
    return "\n".join(["examples:", *lines])


def _version() -> str:
    try:
        return importlib.metadata.version("tfbinreg")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed, run from its sources)"
