"""Bits of each layer found by DropBits, and the same bits trained without it, on Fashion-MNIST.

    python examples/learned_bits.py [--data_dir DIR] [--seeds 0 1 2] [--strength 0.2]

The paper's claim (Lee et al., ICCV 2021): bits that are learned do better than the same bits given
from the beginning. For each seed a small float net is quantized four times and trained as long:
with gates that learn the bits of the hidden kernels, at most four; by a rule for each layer with
these bits and the same method without gates; and with all hidden kernels at 4 and at 2 bits. The
table shows bits per weight and test accuracy.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

import data
import numpy as np
import tf_keras as keras

import tfbinreg

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


def quantized(
    net: Any, split: data.Split, epochs: int, seed: int, **recipe: Any
) -> tuple[dict[str, int], float, float]:
    """Train a quantized copy of the net: bits by layer, bits per weight, test accuracy."""
    keras.utils.set_random_seed(seed)
    images = split.train_images[:2048].astype(np.float32)
    wanted = tfbinreg.Recipe(method="cpq", **recipe)
    model = tfbinreg.quantize_apply(net, wanted, calibration_data=images[:512])
    log = tfbinreg.QuantizerLog()
    train(model, split, RATE, epochs, [log])
    tfbinreg.finalize(model, (images, split.train_labels[:2048]))
    bits = {name: coded.bits for name, coded in tfbinreg.integer_codes(model).items()}
    average = model.history.history["weight_bits"][-1]
    test = split.test_images.astype(np.float32), split.test_labels
    return bits, average, model.evaluate(*test, verbose=0)[1]


def run(split: data.Split, seed: int, options: argparse.Namespace) -> dict[str, tuple]:
    """The four rows of a seed: bits by layer, bits per weight, accuracy."""
    keras.utils.set_random_seed(seed)
    net = build()
    train(net, split, FLOAT_RATE, options.float_epochs)
    gates = {"drop_bits": True, "strength": options.strength}
    rows = {LEARNED: quantized(net, split, options.epochs, seed, options={"cpq": gates})}
    given = [tfbinreg.Rule(layer=name, weight_bits=bits) for name, bits in rows[LEARNED][0].items()]
    others: dict[str, dict[str, Any]] = {
        GIVEN: {"rules": given},
        FOUR: {"weight_bits": 4},
        TWO: {"weight_bits": 2},
    }
    for name, recipe in others.items():
        rows[name] = quantized(net, split, options.epochs, seed, **recipe)
    return rows


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", help="folder with fashion_mnist.npz; default: downloads it")
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
    found: dict[str, list[tuple]] = {}
    for seed in options.seeds:
        for name, row in run(split, seed, options).items():
            found.setdefault(name, []).append(row)
        print(f"seed {seed}: {' '.join(map(str, found[LEARNED][-1][0].values()))} bits", flush=True)
    print("| bits | per weight | test accuracy |\n|---|---|---|")
    for name, rows in found.items():
        accuracies = [100.0 * row[2] for row in rows]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(rows) > 1 else ""
        bits = statistics.mean(row[1] for row in rows)
        print(f"| {name} | {bits:.2f} | {statistics.mean(accuracies):.2f}{spread} |")


if __name__ == "__main__":
    main()
