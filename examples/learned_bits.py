"""Bits of each layer found by DropBits, and the same bits trained without it, on Fashion-MNIST.

    python examples/learned_bits.py [--data_dir DIR] [--seeds 0 1 2] [--strength 0.2]

The paper's claim (Lee et al., ICCV 2021): learned bits do better than the same bits set from the
beginning. For each seed a small float net is quantized four times and trained equally long: with
gates that learn the bits of the hidden kernels, at most four; by a rule for each layer with these
bits and the same method without gates; and with all hidden kernels at 4 and at 2 bits. The table
shows bits per weight and test accuracy.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import data
import numpy as np
import tf_keras as keras

import tfbinreg
from tfbinreg import Recipe

BATCH, FLOAT_RATE, RATE = 128, 0.002, 0.001
LEARNED, GIVEN, FOUR, TWO = "learned bits", "the same bits, given", "4 bits", "2 bits"


def build() -> Any:
    """A net of about 24,000 parameters for 28x28 images in [0, 255]."""
    layers = keras.layers
    parts = [layers.Input((28, 28, 1))]
    for filters, stride in ((16, 2), (24, 1), (32, 2), (32, 1), (10, 2)):
        parts += [
            layers.Conv2D(filters, 3, stride, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]
    parts += [layers.GlobalAveragePooling2D(), layers.Dense(10, activation="softmax")]
    return keras.Sequential(parts, name="net")


def train(model: Any, split: data.Split, rate: float, epochs: int, callbacks: Any = ()) -> None:
    """Adam with a cosine decay to zero."""
    images = split.train_images.astype(np.float32)
    decay = keras.optimizers.schedules.CosineDecay(rate, epochs * -(-len(images) // BATCH))
    model.compile(keras.optimizers.Adam(decay), "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(images, split.train_labels, BATCH, epochs, verbose=0, callbacks=list(callbacks))


class Row(NamedTuple):
    """A trained net: its bits as a recipe and by layer, bits per weight, test accuracy."""

    recipe: Recipe
    bits: dict[str, int]
    per_weight: float
    accuracy: float


def quantized(net: Any, split: data.Split, epochs: int, seed: int, recipe: Recipe) -> Row:
    """Train a quantized copy of the net."""
    keras.utils.set_random_seed(seed)
    images = split.train_images[:2048].astype(np.float32)
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=images[:512])
    log = tfbinreg.QuantizerLog()
    train(model, split, RATE, epochs, [log])
    tfbinreg.finalize(model, (images, split.train_labels[:2048]))
    bits = {name: coded.bits for name, coded in tfbinreg.integer_codes(model).items()}
    per_weight = model.history.history["weight_bits"][-1]
    test = split.test_images.astype(np.float32), split.test_labels
    accuracy = model.evaluate(*test, verbose=0)[1]
    return Row(tfbinreg.found_recipe(model, method="cpq"), bits, per_weight, accuracy)


def run(split: data.Split, seed: int, options: argparse.Namespace) -> dict[str, Row]:
    """The four rows of a seed."""
    keras.utils.set_random_seed(seed)
    net = build()
    train(net, split, FLOAT_RATE, options.float_epochs)
    plain = Recipe(method="cpq")
    gates = plain.with_options("cpq", drop_bits=True, strength=options.strength)
    rows = {LEARNED: quantized(net, split, options.epochs, seed, gates)}
    others = {
        GIVEN: dataclasses.replace(rows[LEARNED].recipe, options={}),
        FOUR: plain,
        TWO: dataclasses.replace(plain, weight_bits=2),
    }
    for name, recipe in others.items():
        rows[name] = quantized(net, split, options.epochs, seed, recipe)
    return rows


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", help="folder with fashion_mnist.npz (default: download)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=20000, help="training rows to use")
    parser.add_argument("--float_epochs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--strength", type=float, default=0.2)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the bits of each seed, and the table."""
    options = parse(arguments)
    split = data.fashion_mnist(options.data_dir, options.rows)
    found: dict[str, list[Row]] = {}
    for seed in options.seeds:
        for name, row in run(split, seed, options).items():
            found.setdefault(name, []).append(row)
        learned = found[LEARNED][-1].bits.values()
        print(f"seed {seed}: {' '.join(map(str, learned))} bits", flush=True)
    print("| bits | per weight | test accuracy |\n|---|---|---|")
    for name, rows in found.items():
        accuracies = [100.0 * row.accuracy for row in rows]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(rows) > 1 else ""
        bits = statistics.mean(row.per_weight for row in rows)
        print(f"| {name} | {bits:.2f} | {statistics.mean(accuracies):.2f}{spread} |")


if __name__ == "__main__":
    main()
