"""The flags of the commands that check what a file computes: `verify`, `compare`, `report`."""

from __future__ import annotations

import argparse

from tflite_tools.checks import compare, derived_file
from tflite_tools.checks.trained_model import DEFAULT_LIMITS
from tflite_tools.commands.flags import add_inputs, add_notes
from tflite_tools.running import samples


def add_verify(parser: argparse.ArgumentParser) -> None:
    """File, what it is compared with, inputs, labels and limits."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a file from convert, or a folder of its C, which is compiled and run",
    )
    _add_references(parser)
    _add_labels(parser)


def _add_references(parser: argparse.ArgumentParser) -> None:
    """What a file is compared with, inputs and limits."""
    parser.add_argument(
        "--reference",
        metavar="MODEL",
        help="the trained model that FILE was made from, in any format; or as for --canonical",
    )
    parser.add_argument(
        "--canonical", metavar="INT8", help="the int8 .tflite file that FILE was made from"
    )
    many = f"{samples.DEFAULT_SAMPLES}, with --canonical {derived_file.VERIFY_SAMPLES}"
    add_inputs(parser, default=None, text=many)
    _add_limits(parser)


def _add_labels(parser: argparse.ArgumentParser) -> None:
    """The labels of the samples."""
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="classes of the --inputs samples: shows the accuracy in Keras (with --reference), "
        "LiteRT, TFLM and C. An .npy file; or an .npz file with `labels`, or an array for each "
        "output name",
    )


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Two files, inputs and limits."""
    parser.add_argument("first", metavar="A", help="a .tflite file; differences are in its steps")
    parser.add_argument("second", metavar="B", help="another file of the same network")
    add_inputs(parser, default=compare.SAMPLES, text=str(compare.SAMPLES))
    parser.add_argument(
        "--max_lsb",
        type=float,
        default=0.0,
        metavar="F",
        help="fail if an output differs by more steps of its grid than this (default: %(default)s)",
    )
    parser.add_argument(
        "--min_top1",
        type=float,
        default=0.0,
        metavar="F",
        help="fail if a smaller share of samples than this has the same best class "
        "(default: %(default)s)",
    )


def add_report(parser: argparse.ArgumentParser) -> None:
    """Files, page, card and the flags of verify."""
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="the HTML file to write"
    )
    add_notes(parser)
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="a .tflite file from convert; several files are compared side by side, not verified",
    )
    _add_references(parser)
    _add_labels(parser)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--min_top1",
        type=float,
        metavar="F",
        help="fail if a smaller share of samples than this has the same best class (default: "
        f"{DEFAULT_LIMITS.min_top1}; TFLM then only warns if every operator alone is right)",
    )
    parser.add_argument(
        "--max_mean_lsb",
        type=float,
        metavar="F",
        help="fail if outputs differ by more steps of their grid than this on average (default: "
        f"{DEFAULT_LIMITS.max_mean_lsb}; TFLM then only warns if every operator alone is right)",
    )
