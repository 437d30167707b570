"""The flags of each command."""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Callable

from tflite_tools.c import boards, packages
from tflite_tools.checks import compare, derived_file
from tflite_tools.checks.trained_model import DEFAULT_LIMITS
from tflite_tools.device import conversation, measure, serial_port
from tflite_tools.formats import build, ethos
from tflite_tools.formats.result import TARGETS
from tflite_tools.from_keras import convert, fit_flash
from tflite_tools.reports import bench
from tflite_tools.running import samples
from tflite_tools.schema import card
from tflite_tools.system.suggestions import suggestion


def add_convert(parser: argparse.ArgumentParser) -> None:
    """Model, output, format, target and what belongs to one of them."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a .keras or .h5 file, a SavedModel folder, or an int8 .tflite file of convert",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="the file to write; a folder for c"
    )
    parser.add_argument(
        "--flash_budget",
        type=_size,
        metavar="SIZE",
        help="MODEL is a float model: choose bits so that weights and constants fit into SIZE "
        "(64KB); writes a file without training, and a recipe to train with",
    )
    parser.add_argument(
        "--flash_granularity",
        choices=["layer", "channel"],
        help="what --flash_budget chooses bits for (default: layer); 0 bits prune a channel",
    )
    parser.add_argument(
        "--flash_widths",
        type=_widths,
        metavar="BITS",
        help="the bits to choose from (default: 2,3,4,8 for layers, 0,1,2,3,4,8 for channels)",
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="calibration samples for --flash_budget, as the model takes them: .npy, or .npz with "
        "an array by each input's name; `labels` (whole numbers) are optional",
    )
    parser.add_argument(
        "--finalize_data",
        metavar="FILE",
        help="MODEL was not finalized: do it with these training samples (as for --data; with "
        "`labels` by accuracy) and save the finalized model beside OUTPUT, as OUTPUT.keras",
    )
    parser.add_argument(
        "--recipe_output",
        metavar="FILE",
        help="where --flash_budget writes the recipe (default: OUTPUT.json)",
    )
    parser.add_argument("--recipe", metavar="FILE", help=argparse.SUPPRESS)  # its former name
    parser.add_argument(
        "--input_type",
        choices=convert.INPUT_TYPES,
        help="int8 for stored integers; float32 for a file that quantizes its inputs itself "
        f"(default: {convert.INPUT_TYPES[0]})",
    )
    parser.add_argument(
        "--output_type",
        choices=convert.INPUT_TYPES,
        help="likewise for the outputs (default: that of the inputs)",
    )
    parser.add_argument(
        "--input_shape",
        action="append",
        default=[],
        type=_shape,
        metavar="[NAME=]SIZES",
        help="sizes of a sample (96,96,3) for a model that leaves some open; once for each input",
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
        "--slim",
        action="store_true",
        help="drop names and metadata, store equal things once; with --target tflm leave out "
        "channels that are constant or that nothing reads (C always does)",
    )
    parser.add_argument(
        "--split_convs",
        type=at_least(1),
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
    parser.add_argument(
        "--package",
        choices=packages.PACKAGES,
        help="c: the folder as a library, component, module or pack that this build system takes, "
        "with an example for the device",
    )
    parser.add_argument(
        "--ram_budget",
        type=_size,
        metavar="SIZE",
        help="c: bytes that activations may take (34KB), besides the caller's inputs and outputs; "
        "layers run in strips of rows where that saves memory, which takes more time",
    )
    add_notes(parser)


def _shape(text: str) -> tuple[str | None, tuple[int, ...]]:
    """The name of an input, None without one, and the sizes."""
    name, equals, sizes = text.rpartition("=")
    parts = sizes.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        message = f"{text!r} is no shape: write 96,96,3 or image=96,96,3"
        raise argparse.ArgumentTypeError(message)
    return (name if equals else None), tuple(map(int, parts))


def _size(text: str) -> int:
    try:
        return fit_flash.byte_count(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _widths(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip() in set("012345678") for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: write bits from 0 to 8, such as 1,2,4,8")
    return [int(part) for part in parts]


def add_report(parser: argparse.ArgumentParser) -> None:
    """Page, card and the flags of verify."""
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="the HTML file to write"
    )
    add_notes(parser)
    add_verify(parser, file="a .tflite file of convert")


def add_notes(parser: argparse.ArgumentParser) -> None:
    """Notes for the quantization card."""
    parser.add_argument(
        "--card",
        action="append",
        default=[],
        type=_note,
        metavar="FIELD=TEXT",
        help=f"what the file does not know, for its card: {', '.join(card.NOTES)}",
    )


def _note(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals or field not in card.NOTES:
        close = difflib.get_close_matches(field, card.NOTES, n=1)
        raise argparse.ArgumentTypeError(
            f"{text!r} is not FIELD=TEXT with one of {', '.join(card.NOTES)}"
            + (f": did you mean {close[0]!r}?" if close and close[0] != field else "")
        )
    return field, value


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """File, and whether to print its card alone."""
    parser.add_argument("file", metavar="FILE", help="a .tflite file")
    parser.add_argument(
        "--card",
        action="store_true",
        help="print its quantization card: the choices that decide what its accuracy means",
    )


def add_verify(
    parser: argparse.ArgumentParser,
    *,
    file: str = "a file of convert, or a folder of its C, which is compiled and run",
) -> None:
    """File, what it is compared with, inputs and limits."""
    parser.add_argument("file", metavar="FILE", help=file)
    parser.add_argument(
        "--reference",
        metavar="MODEL",
        help="the trained model that FILE was made from, in whatever format; or as --canonical",
    )
    parser.add_argument(
        "--canonical", metavar="INT8", help="the int8 .tflite file that FILE was made from"
    )
    many = f"{samples.DEFAULT_SAMPLES}, with --canonical {derived_file.VERIFY_SAMPLES}"
    _add_inputs(parser, default=None, text=many)
    _add_limits(parser)


def add_labels(parser: argparse.ArgumentParser) -> None:
    """The labels of the samples."""
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="classes of the samples of --inputs: shows the accuracy in Keras (with --reference), "
        "LiteRT, TFLM and C. An .npy file; or an .npz file with `labels`, or an array by each "
        "output's name",
    )


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Two files, inputs and limits."""
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


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    """File, threads and runs on this computer, devices, and samples."""
    parser.add_argument("file", metavar="FILE", help="a .tflite file of any format")
    parser.add_argument(
        "--threads",
        type=_numbers,
        default=bench.THREADS,
        metavar="N[,N...]",
        help="threads of LiteRT, several numbers one after the other (default: 1)",
    )
    parser.add_argument(
        "--warm_up",
        type=at_least(0),
        default=bench.WARM_UP,
        metavar="N",
        help="runs before the timed ones (default: %(default)s)",
    )
    parser.add_argument(
        "--runs",
        type=at_least(1),
        default=bench.RUNS,
        metavar="N",
        help="timed runs (default: %(default)s)",
    )
    _add_devices(parser)
    _add_inputs(parser, default=None, text=f"{measure.SAMPLES} on a device, 1 here")


def _add_devices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--serial",
        metavar="PORT",
        help="measure a device instead of this computer, which runs the example of `convert "
        "--package`: /dev/ttyACM0, COM3, or socket://HOST:PORT; needs pyserial",
    )
    parser.add_argument(
        "--baud",
        type=at_least(1),
        default=serial_port.BAUD,
        metavar="N",
        help="bits in a second at the port of --serial (default: %(default)s)",
    )
    parser.add_argument(
        "--emulator",
        type=_processors,
        default=(),
        metavar="CPU[,CPU...]",
        help="measure processors that QEMU emulates, by the same protocol: "
        f"{', '.join(boards.CPUS)}",
    )
    parser.add_argument(
        "--repeats",
        type=at_least(1),
        default=measure.REPEATS,
        metavar="N",
        help="runs of each sample on a device (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=conversation.TIMEOUT,
        metavar="SECONDS",
        help="how long to wait for a device's answer (default: %(default)g)",
    )


def _processors(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in boards.CPUS:
            known = suggestion(name, boards.CPUS)
            raise argparse.ArgumentTypeError(f"no emulated board has a {name!r}{known}")
    return names


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(at_least(1), text.split(",")))


def _add_inputs(parser: argparse.ArgumentParser, *, default: int | None, text: str) -> None:
    parser.add_argument(
        "--samples",
        type=at_least(1),
        default=default,
        metavar="N",
        help=f"random samples to draw without --inputs (default: {text})",
    )
    _add_source(parser)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--inputs",
        metavar="FILE",
        help="samples in the units that the trained model takes, not stored integers: an .npy "
        "file, or an .npz file with one array by each input's name",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=samples.DEFAULT_SEED,
        metavar="N",
        help="seed of the random samples (default: %(default)s)",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
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


def at_least(smallest: int) -> Callable[[str], int]:
    """The type of a flag that takes whole numbers from `smallest` up."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = smallest - 1
        if value < smallest:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {smallest} up")
        return value

    return whole_number
