"""The flags of `quantize`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from tflite_tools.commands.flags import at_least
from tflite_tools.from_keras import losses, train
from tflite_tools.from_keras.train import Training


def add_quantize(parser: argparse.ArgumentParser) -> None:
    """Model, output, recipe, data and how to train."""
    defaults = Training()
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a float model of tf_keras or Keras 3: a .keras or .h5 file, or a SavedModel folder",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="the .keras or .h5 file to write"
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="training samples, in the model's units: .npz with an array for each input name "
        "and `labels`: classes as whole numbers, or the target outputs; .npy without labels "
        "for --epochs 0",
    )
    parser.add_argument(
        "--validation_data",
        metavar="FILE",
        help="samples of the same form to evaluate before and after (default: those of --data)",
    )
    parser.add_argument(
        "--recipe",
        dest="recipe_file",
        metavar="FILE",
        help="JSON of a tfbinreg.Recipe: bits, rules and methods, layer by layer",
    )
    parser.add_argument(
        "--weight_bits",
        type=_bits(1),
        metavar="N",
        help="instead of a recipe: bits of the weights, 1 to 8 (default: 4); the first and last "
        "layer keep 8",
    )
    parser.add_argument(
        "--activation_bits",
        type=_bits(2),
        metavar="N",
        help="instead of a recipe: bits of the activations, 2 to 8 (default: 8)",
    )
    parser.add_argument(
        "--epochs",
        type=at_least(0),
        default=defaults.epochs,
        metavar="N",
        help="0 only calibrates and finalizes (default: %(default)s)",
    )
    parser.add_argument(
        "--batch_size",
        type=at_least(1),
        default=defaults.batch_size,
        metavar="N",
        help="samples per step (default: %(default)s)",
    )
    parser.add_argument(
        "--learning_rate",
        type=_positive,
        default=defaults.learning_rate,
        metavar="F",
        help="Adam's initial rate, with cosine decay to zero (default: %(default)s)",
    )
    parser.add_argument(
        "--loss",
        choices=losses.LOSSES,
        metavar="NAME",
        help=f"the loss: {', '.join(losses.LOSSES)} (default: the one MODEL was compiled with)",
    )
    parser.add_argument(
        "--from_logits",
        action="store_true",
        help="with --loss: the model ends without softmax or sigmoid",
    )
    parser.add_argument(
        "--penalty",
        action="append",
        default=[],
        type=_penalty,
        metavar="NAME=STRENGTH",
        help="strength of a penalty of the recipe in the second half of the epochs; 0 for none "
        f"(default: bin_regularization={train.BIN_STRENGTH})",
    )
    parser.add_argument(
        "--distill",
        action="store_true",
        help="also learn from the float model's outputs",
    )
    parser.add_argument(
        "--target",
        choices=("litert", "tflm"),
        help="runtime whose rounding the finalized model follows: tflm for a microcontroller "
        "(default: the recipe's, which is litert unless set)",
    )
    parser.add_argument(
        "--short_constants",
        action="store_true",
        help="choose scales and biases that take three bytes per channel in generated C; requires "
        "--target tflm",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=defaults.seed,
        metavar="N",
        help="seed of shuffling and everything random (default: %(default)s)",
    )


def _bits(least: int) -> Callable[[str], int]:
    def bits(text: str) -> int:
        if text not in tuple("12345678")[least - 1 :]:
            raise argparse.ArgumentTypeError(f"{text!r}: write bits from {least} to 8")
        return int(text)

    return bits


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _positive(text: str) -> float:
    value = _number(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return value


def _penalty(text: str) -> tuple[str, float]:
    name, _, strength = text.partition("=")
    value = _number(strength)
    if not name or not 0.0 <= value < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=STRENGTH with a number from 0 up, such as bin_regularization=0.5"
        )
    return name, value
