"""The whole workflow in a minute or two: a digit classifier with 2-bit weights and a verified file.

    python examples/digits.py [--output_dir demo_output] [--seeds 3]

Trains a small float CNN on scikit-learn's digits (1,797 images of 8x8), then the same net with
2-bit weights and 8-bit activations: plain LSQ, and LSQ with bin regularization switched on halfway.
Each is trained with several seeds, because the difference with one seed is luck. Saves, reloads,
converts, verifies, and plots what the regularization does to the weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Sequence
from typing import Any

import deploy
import numpy as np
import tensorflow as tf
import tf_keras as keras
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tfbinreg
from tfbinreg.training.weight_statistics import bin_statistics
from tflite_tools.checks.trained_model import verify
from tflite_tools.from_keras.convert import reference
from tflite_tools.schema.contents import load
from tflite_tools.system import files

FLOAT_EPOCHS, EPOCHS, SWITCH_EPOCH = 15, 12, 6
# A hundred times the paper's: it acts for 240 batches here, not for 300,000.
STRENGTH = 50.0
METHODS = {"LSQ": 0.0, "LSQ + BR": STRENGTH}
BATCH = 32


def read_data() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """1,257 digits to train on and 540 to test on, with their classes; float32, 0 to 16."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32)
    x, x_test, y, y_test = train_test_split(
        images, labels, test_size=0.3, random_state=0, stratify=labels
    )
    return (x, y), (x_test, y_test)


def build() -> Any:
    """A small CNN with the layers of a mobile net."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(32, 1, use_bias=False, name="pointwise"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", use_bias=False, name="conv"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax", name="classifier"),
        ],
        name="digits",
    )


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finalized net, what its file does, and its share of weights near their level."""

    model: Any
    deployment: deploy.Deployment
    near_level: float


def train(
    model: Any, images: np.ndarray, labels: np.ndarray, epochs: int, rate: float, callbacks: Any
) -> None:
    """Adam with cosine decay to zero."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * -(-len(images) // BATCH))
    model.compile(
        keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(images, labels, BATCH, epochs, verbose=0, callbacks=callbacks)


def train_quantized(
    model: Any, seed: int, strength: float, train_data: Any, test_data: Any
) -> Trained:
    """W2A8 with bin regularization of this strength from SWITCH_EPOCH on."""
    keras.utils.set_random_seed(seed)
    quantized = tfbinreg.quantize_apply(model, weight_bits=2, calibration_data=train_data[0])
    callback = tfbinreg.BinRegularization("two_stage", SWITCH_EPOCH, strength)
    train(quantized, *train_data, EPOCHS, 0.003, [callback])
    tfbinreg.finalize(quantized, train_data)
    near = bin_statistics(quantized).near
    return Trained(quantized, deploy.deploy(quantized, *test_data), near)


def percent(values: Sequence[float]) -> str:
    """Mean and standard deviation of shares."""
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}"


def comparison(trained: dict[str, list[Trained]]) -> str:
    """What the regularization did, seed by seed, in a sentence."""
    plain, regularized = (trained[name] for name in METHODS)
    pairs = list(zip(regularized, plain, strict=True))
    points = [r.deployment.accuracy - p.deployment.accuracy for r, p in pairs]
    near = [r.near_level - p.near_level for r, p in pairs]
    return (
        f"With BR, {percent(near)} points more of the weights lie within 0.1 step of their level; "
        f"accuracy changes by {percent(points)} points (mean ± sd over {len(pairs)} seeds)"
    )


def stock_sizes(model: Any, images: np.ndarray) -> tuple[int, int]:
    """Bytes of the float and of the post-training int8 file of TensorFlow's own converter."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    plain = converter.convert()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images[:100])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return len(plain), len(converter.convert())


def results_table(
    float_accuracy: float, trained: dict[str, list[Trained]], sizes: tuple[int, int]
) -> Table:
    """Accuracies over the seeds, and bytes."""
    table = Table(title=f"digits at W2A8, 540 test images, {len(trained['LSQ'])} seeds, percent")
    for column in ("net", "accuracy", "of the file", "near level", "file, bytes", "packed"):
        table.add_column(column)
    tensors = tfbinreg.integer_codes(trained["LSQ"][0].model).values()
    weights = sum(tensor.codes.size for tensor in tensors)
    packed = sum(tensor.codes.size * tensor.bits for tensor in tensors) // 8
    table.add_row("float", percent([float_accuracy]), "", "", str(sizes[0]), str(4 * weights))
    table.add_row("stock int8", "", "", "", str(sizes[1]), str(weights))
    for name, nets in trained.items():
        table.add_row(
            name,
            percent([net.deployment.accuracy for net in nets]),
            percent([net.deployment.file_accuracy for net in nets]),
            percent([net.near_level for net in nets]),
            str(nets[0].deployment.file_bytes),
            str(packed),
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_dir", default="demo_output")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    os.makedirs(options.output_dir, exist_ok=True)
    console, start = Console(), time.monotonic()

    def tell(text: str) -> None:
        console.print(f"[{time.monotonic() - start:5.1f} s] {text}", markup=False, highlight=False)

    keras.utils.set_random_seed(0)
    (x, y), (x_test, y_test) = read_data()
    tell(f"training the float net on {len(x)} digits")
    model = build()
    train(model, x, y, FLOAT_EPOCHS, 0.01, [])
    float_accuracy = float(np.mean(model.predict(x_test, verbose=0).argmax(-1) == y_test))
    print(tfbinreg.plan(model, weight_bits=2))

    trained: dict[str, list[Trained]] = {name: [] for name in METHODS}
    for seed in range(options.seeds):
        for name, strength in METHODS.items():
            tell(f"training {name} at W2A8, seed {seed}")
            trained[name].append(train_quantized(model, seed, strength, (x, y), (x_test, y_test)))

    path = os.path.join(options.output_dir, "digits_w2a8.keras")
    tell(f"saving, reloading and converting {path} (LSQ + BR, seed 0)")
    trained["LSQ + BR"][0].model.save(path)
    content = tfbinreg.to_tflite(tfbinreg.load_model(path))
    files.write(os.path.join(options.output_dir, "digits_w2a8.tflite"), content)
    tests = {"images": x_test}
    report = verify(load(content), reference=reference(path, tests), inputs=tests)
    console.print(results_table(float_accuracy, trained, stock_sizes(model, x)))
    tell(comparison(trained))
    for check in report.checks:
        tell(f"{check.name} {check.verdict.value}: {check.detail}")
    for name, picture in (("LSQ", "bins_before_br.png"), ("LSQ + BR", "bins_after_br.png")):
        figure = tfbinreg.plot.bins(trained[name][0].model)
        figure.savefig(os.path.join(options.output_dir, picture), dpi=100)
    tell(f"pictures, model and file are in {options.output_dir}/")
    if not report.passed:
        raise SystemExit("The file does not match the model.")


if __name__ == "__main__":
    main()
