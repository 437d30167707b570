"""The command line's grammar: sub-commands, flags, and suggestions for mistyped words."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from absl.flags import argparse_flags

from tflite_tools.commands.exit_codes import MEANINGS, SUCCESS, USAGE_ERROR
from tflite_tools.system.suggestions import suggestion

PROGRAM = "tflite_tools"
SHELLS = ("bash", "zsh", "fish")
_EXAMPLES = {
    "quantize": (
        "quantize float.keras --weight_bits 2 --data train.npz --epochs 10 -o q.keras",
        "quantize float.keras --recipe r.json --data train.npz --validation_data test.npz "
        "-o q.keras",
        "quantize float.keras --data samples.npy --epochs 0 -o calibrated.keras",
    ),
    "convert": (
        "convert q.keras --output model.tflite",
        "convert q.keras --format c -o net",
        "convert q.keras --format c --streaming -o kws",
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
    "benchmark": (
        "benchmark model.tflite --threads 1,2",
        "benchmark model.tflite --serial /dev/ttyACM0",
        "benchmark model.tflite --emulator cortex-m4,rv32imc",
    ),
    "report": (
        "report model.tflite --reference q.keras --output report.html",
        "report w2.tflite w4.tflite --inputs x.npy --labels y.npy --output page.html",
    ),
    "completion": (
        "completion bash > ~/.local/share/bash-completion/completions/tflite_tools",
        "completion zsh > ~/.zfunc/_tflite_tools",
        "completion fish > ~/.config/fish/completions/tflite_tools.fish",
    ),
}
_MORE = {
    "quantize": "MODEL is calibrated with the samples, trained with Adam, and finalized: batch "
    "normalization is\nestimated anew, and from then on the model computes what its file will.",
    "completion": "The script completes commands, flags, their values and file names. It is made "
    "by shtab:\npip install shtab, or 'tfbinreg[completion]'.",
    "report": "One file is verified. Several are put side by side: bytes and bits by layer, RAM as "
    "C, accuracy if\nlabels are given or the cards tell it, and what the cards say differently.",
    "verify": "A folder of C is compiled, and its program is run on this computer, with bounds on "
    "its time,\nmemory and output: verify only what you would run.",
}
_HELP = {
    "quantize": "train a float Keras model at few bits, and save the quantized model",
    "convert": "write a trained quantized model, or its int8 .tflite file, for a device",
    "verify": "check codes, integer arithmetic and agreement; exit code 1 if a check fails",
    "compare": "show how far two .tflite files are apart; exit code 1 beyond the limits",
    "inspect": "show what is in a .tflite file and where its bytes go",
    "benchmark": "measure LiteRT's time, TFLM's memory and the bytes of C here, or a device",
    "report": "write one HTML page about a file (sizes, codes, checks, card), or about several",
    "completion": "print a script that lets a shell complete this program's command lines",
}
# The module with the function add_COMMAND. It is imported for its own command only: the help of all
# needs none of what their flags are made from.
_FLAGS = {
    "quantize": "quantize_flags",
    "convert": "convert_flags",
    "verify": "verify_flags",
    "compare": "verify_flags",
    "inspect": "flags",
    "benchmark": "benchmark_flags",
    "report": "verify_flags",
}


class _Parser(argparse_flags.ArgumentParser):
    """Errors as one line, exit code 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Values of which there are few: what is not among them is told with the nearest."""
        if action.choices is not None and value not in action.choices:
            known = suggestion(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{known}")

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
    first = next((argument for argument in arguments if not argument.startswith("-")), None)
    parser, commands = _build([first] if first in _FLAGS else [])
    if first is not None and first not in commands:
        parser.error(f"no command {first!r}{suggestion(first, commands)}")
    if first is not None:  # before a flag that is mistyped is missed
        _check_flags(parser, commands[first], arguments)
    namespace, unknown = parser.parse_known_args(arguments)
    if namespace.command is None:
        parser.error(f"a command is needed: {', '.join(commands)} (see --help)")
    _check_together(commands[namespace.command], namespace)
    if unknown:
        what = "unknown flag" if unknown[0].startswith("-") else "unexpected argument"
        known = commands[namespace.command].flags()
        parser.error(f"{what} {unknown[0]!r}{suggestion(unknown[0], known)}")
    return namespace


def _check_flags(parser: _Parser, command: _Parser, arguments: Sequence[str]) -> None:
    known = {*parser.option_names(), *command.option_names()}
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and len(flag) > 2 and flag not in known:
            parser.error(f"unknown flag {flag!r}{suggestion(flag, command.flags())}")


def _check_together(parser: _Parser, namespace: argparse.Namespace) -> None:
    """Flags of a command that need each other, or exclude each other."""
    if namespace.command == "convert":
        _check_convert(parser, namespace)
    if namespace.command == "benchmark":
        _check_benchmark(parser, namespace)
    if namespace.command == "quantize" and namespace.recipe_file is not None:
        for flag in ("weight_bits", "activation_bits"):
            if getattr(namespace, flag) is not None:
                parser.error(f"--recipe says which bits: leave --{flag} out")


def _check_benchmark(parser: _Parser, namespace: argparse.Namespace) -> None:
    device, needed = namespace.serial is not None or namespace.emulator, "--serial or --emulator"
    for name in ("threads", "warm_up", "runs") if device else ("repeats", "timeout", "samples"):
        if getattr(namespace, name) != parser.get_default(name):
            how = "measures this computer, not a device: leave it out" if device else ""
            parser.error(f"--{name} {how or f'goes with {needed}'}")
    if namespace.serial is None and namespace.baud != parser.get_default("baud"):
        parser.error("--baud goes with --serial")


def _check_convert(parser: _Parser, namespace: argparse.Namespace) -> None:
    if (namespace.flash_budget is None) != (namespace.data is None):
        parser.error("--flash_budget and --data go together")
    if namespace.recipe is not None and namespace.flash_budget is None:
        parser.error(
            "--recipe is not read here: a quantized model has its recipe already. Give it to "
            f"tfbinreg.quantize_apply(model, RECIPE) or to `{PROGRAM} quantize`, train and convert "
            "the result; or let --flash_budget write one, and say where with --recipe_output"
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


def whole_parser() -> argparse.ArgumentParser:
    """The parser of all commands, for what is made from it."""
    return _build()[0]


def _build(complete: Iterable[str] = tuple(_FLAGS)) -> tuple[_Parser, dict[str, _Parser]]:
    """The parser, and those of the commands; only `complete` ones have flags of their own."""
    parser = _Parser(
        prog=PROGRAM,
        description="Quantize Keras models; convert, verify and inspect integer TFLite models.",
        epilog=f"{_examples('quantize', 'convert', 'verify', 'inspect')}\n\n{_exit_codes()}",
    )
    parser.add_argument("--version", action=_Version, help="show the version and leave")
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
    for name in complete:
        module = importlib.import_module(f"tflite_tools.commands.{_FLAGS[name]}")
        getattr(module, f"add_{name}")(commands[name])
    commands["completion"].add_argument(
        "shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish"
    )
    for name, command in commands.items():
        if name != "completion":
            command.add_argument("--json", action="store_true", help="print JSON instead of tables")
        command.add_argument(
            "--verbose", action="store_true", help="show TensorFlow's log and tracebacks"
        )
    return parser, commands


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, *_: Any) -> NoReturn:
        print(f"{PROGRAM} {_version()}")
        raise SystemExit(SUCCESS)


def _examples(*commands: str) -> str:
    """The first example of several commands, all of a single one."""
    most = 1 if len(commands) > 1 else None
    chosen = [example for command in commands for example in _EXAMPLES[command][:most]]
    return "\n".join(["examples:", *(f"  {PROGRAM} {example}" for example in chosen)])


def _exit_codes() -> str:
    return "\n".join(["exit codes:", *(f"  {code:<4} {text}" for code, text in MEANINGS.items())])


def _version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("tfbinreg")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed, run from its sources)"
