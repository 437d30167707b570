"""The flags of `convert`."""

from __future__ import annotations

import argparse

from tflite_tools.c import packages
from tflite_tools.commands.flags import add_notes, at_least
from tflite_tools.formats import build, ethos
from tflite_tools.formats.result import TARGETS
from tflite_tools.from_keras import convert, fit_flash


def add_convert(parser: argparse.ArgumentParser) -> None:
    """Model, output, format, target and what belongs to one of them."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a .keras or .h5 file, a SavedModel folder, or an int8 .tflite file from convert",
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
        help="calibration samples for --flash_budget, in the model's units: .npy, or .npz with "
        "an array for each input name; `labels` (whole numbers) are optional",
    )
    parser.add_argument(
        "--finalize_data",
        metavar="FILE",
        help="MODEL was not finalized: finalize it with these training samples (as for --data; "
        "with `labels` by accuracy) and save the finalized model next to OUTPUT, as OUTPUT.keras",
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
        help="the same for the outputs (default: that of the inputs)",
    )
    parser.add_argument(
        "--input_shape",
        action="append",
        default=[],
        type=_shape,
        metavar="[NAME=]SIZES",
        help="sizes of a sample (96,96,3) for a model that leaves some open; once per input",
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
        help="runtime that will run it; any: every runtime of the format (default: %(default)s)",
    )
    parser.add_argument(
        "--slim",
        action="store_true",
        help="drop names and metadata, store equal data once; with --target tflm also leave out "
        "channels that are constant or never read (C always does)",
    )
    parser.add_argument(
        "--split_convs",
        type=at_least(1),
        metavar="BYTES",
        help="lut: split convolutions so that at most this many weight bytes are decoded at once",
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
        help="c: write the folder as a library, component, module or pack for this build system, "
        "with an example for the device",
    )
    parser.add_argument(
        "--ram_budget",
        type=_size,
        metavar="SIZE",
        help="c: bytes that activations may take (34KB), without the caller's inputs and outputs; "
        "layers run in strips of rows where that saves memory, which takes more time",
    )
    parser.add_argument(
        "--streaming",
        action="store_true",
        help="c: process a sequence frame by frame (axis 1 of the input is time), keep what is "
        "still needed in a state, and compute only what is new; for causal networks",
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
