"""LSQ compared with LSQ + bin regularization on Fashion-MNIST with a small MobileNetV2-like net.

    python examples/fashion_mnist.py --seeds 0 1 2 [--data_dir DIR] [--output_dir runs/fashion]

Trains a float net per seed, then W2A2 and W2A8 nets: plain LSQ, and LSQ + BR with the step detached
and attached. The three share the epochs before the switch, which are the same bit for bit. Finished
parts are saved in --output_dir, so a stopped run continues where it was. The table shows test
accuracy after BN re-estimation (mean and standard deviation over seeds), and how the converted file
performs on the test images.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
from typing import Any

import data
import deploy
import numpy as np
import tf_keras as keras

import tfbinreg
from tfbinreg.training.weight_statistics import bin_statistics

BATCH = 128
VARIANTS = ("lsq", "br_detached", "br_attached")
SETTINGS = {"W2A2": (2, 2), "W2A8": (2, 8)}


def build() -> Any:
    """A MobileNetV2-like net of about 21,000 parameters for 28x28 images in [0, 255]."""
    layers = keras.layers
    inputs = layers.Input((28, 28, 1))
    x = _conv(inputs, 16, 3, 2)
    for filters, stride, expansion in ((16, 1, 1), (24, 2, 3), (24, 1, 3), (32, 2, 3), (32, 1, 3)):
        x = _block(x, filters, stride, expansion)
    x = _conv(x, 128, 1, 1)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x), name="fashion_net")


def _conv(x: Any, filters: int, size: int, stride: int) -> Any:
    layers = keras.layers
    x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
    return layers.ReLU(6.0)(layers.BatchNormalization()(x))


def _block(x: Any, filters: int, stride: int, expansion: int) -> Any:
    layers = keras.layers
    y = _conv(x, expansion * x.shape[-1], 1, 1)
    y = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(y)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    y = layers.Conv2D(filters, 1, use_bias=False)(y)
    y = layers.BatchNormalization()(y)
    return layers.Add()([x, y]) if stride == 1 and x.shape[-1] == filters else y


def decay(rate: float, epochs: int, rows: int) -> Any:
    """Cosine decay to zero over all `epochs`."""
    return keras.optimizers.schedules.CosineDecay(rate, epochs * -(-rows // BATCH))


def float_optimizer(epochs: int, rows: int) -> Any:
    """SGD, momentum 0.9."""
    return keras.optimizers.SGD(decay(0.05, epochs, rows), momentum=0.9)


@dataclasses.dataclass
class Study:
    """One run of the whole study; every part is saved under `folder` and reused."""

    split: data.Split
    folder: str
    epochs: int
    float_epochs: int
    switch_epoch: int
    strength: float

    def fit(self, model: Any, seed: int, first: int, last: int, callbacks: list[Any]) -> None:
        keras.utils.set_random_seed(1000 * seed + first)
        model.fit(
            self.split.train_images.astype(np.float32),
            self.split.train_labels,
            batch_size=BATCH,
            initial_epoch=first,
            epochs=last,
            callbacks=callbacks,
            verbose=2,
        )

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def float_model(self, seed: int) -> Any:
        path = self.path(f"float_{seed}.keras")
        if not os.path.exists(path):
            keras.utils.set_random_seed(seed)
            model = build()
            rule = float_optimizer(self.float_epochs, len(self.split.train_images))
            model.compile(rule, "sparse_categorical_crossentropy", metrics=["accuracy"])
            self.fit(model, seed, 0, self.float_epochs, [])
            model.save(path)
        return keras.models.load_model(path)

    def trunk(self, seed: int, setting: str) -> str:
        """Plain LSQ up to the switch, with its optimizer state."""
        path = self.path(f"{setting}_{seed}_trunk.keras")
        if not os.path.exists(path):
            weight_bits, activation_bits = SETTINGS[setting]
            model = tfbinreg.quantize_apply(
                self.float_model(seed),
                weight_bits=weight_bits,
                activation_bits=activation_bits,
                calibration_data=self.split.train_images[:512].astype(np.float32),
            )
            rate = decay(0.001, self.epochs, len(self.split.train_images))
            rule = keras.optimizers.Adam(rate)
            model.compile(rule, "sparse_categorical_crossentropy", metrics=["accuracy"])
            self.fit(model, seed, 0, self.switch_epoch, [])
            model.save(path)
        return path

    def trained(self, seed: int, setting: str, variant: str) -> Any:
        """A finalized net of one variant, from the shared trunk."""
        path = self.path(f"{setting}_{seed}_{variant}.keras")
        if not os.path.exists(path):
            model = tfbinreg.load_model(self.trunk(seed, setting))
            if variant == "br_attached":  # as in the paper
                options = {"detach_step": False, "bounded_pull": False}
                model.describe(model.recipe.with_options("bin_regularization", **options))
            strength = 0.0 if variant == "lsq" else self.strength
            callback = tfbinreg.BinRegularization("two_stage", self.switch_epoch, strength)
            self.fit(model, seed, self.switch_epoch, self.epochs, [callback])
            images = self.split.train_images[:6400].astype(np.float32)
            print(tfbinreg.finalize(model, (images, self.split.train_labels[:6400]), batches=100))
            model.save(path)
        return tfbinreg.load_model(path)

    def result(self, seed: int, setting: str, variant: str) -> dict[str, Any]:
        """What the net and its file do on the test images."""
        path = self.path(f"{setting}_{seed}_{variant}.json")
        if not os.path.exists(path):
            model = self.trained(seed, setting, variant)
            images = self.split.test_images.astype(np.float32)
            result = {
                **dataclasses.asdict(bin_statistics(model)),
                **dataclasses.asdict(deploy.deploy(model, images, self.split.test_labels)),
            }
            with open(path, "w") as file:
                json.dump(result, file, indent=2)
        with open(path) as file:
            return json.load(file)


def summarize(rows: list[dict[str, Any]], key: str) -> str:
    """Mean and standard deviation of one figure over seeds, in percent."""
    values = [100 * row[key] for row in rows]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {spread:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", help="folder with fashion_mnist.npz (default: download)")
    parser.add_argument("--output_dir", default="runs/fashion_mnist")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6, help="QAT epochs")
    parser.add_argument("--float_epochs", type=int, default=6)
    parser.add_argument("--switch_epoch", type=int, default=4)
    parser.add_argument("--strength", type=float, default=0.5)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    options = parser.parse_args()
    os.makedirs(options.output_dir, exist_ok=True)
    study = Study(
        data.fashion_mnist(options.data_dir),
        options.output_dir,
        options.epochs,
        options.float_epochs,
        options.switch_epoch,
        options.strength,
    )
    images = study.split.test_images.astype(np.float32)
    floats = []
    for seed in options.seeds:
        _, accuracy = study.float_model(seed).evaluate(images, study.split.test_labels, verbose=0)
        floats.append({"accuracy": accuracy})
    lines = [
        "| setting | training | accuracy | file accuracy | top-1 agreement | error / step² "
        "| near level | wrong codes |",
        "|---|---|---|---|---|---|---|---|",
        f"| float | | {summarize(floats, 'accuracy')} | | | | | |",
    ]
    for setting in options.settings:
        for variant in VARIANTS:
            rows = [study.result(seed, setting, variant) for seed in options.seeds]
            error = statistics.mean(row["error"] for row in rows)
            lines.append(
                f"| {setting} | {variant} | {summarize(rows, 'accuracy')} "
                f"| {summarize(rows, 'file_accuracy')} | {summarize(rows, 'agreement')} "
                f"| {error:.4f} | {summarize(rows, 'near')} "
                f"| {sum(row['wrong_codes'] for row in rows)} |"
            )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
