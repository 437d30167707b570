"""The whole way in a minute or two: a digit classifier with 2-bit weights, verified in its file.

    python examples/digits.py [--output_dir demo_output]

Trains a small float CNN on scikit-learn's digits (1,797 images of 8x8), then the same net with
2-bit weights and 8-bit activations: plain LSQ, and LSQ with bin regularization switched on halfway.
Saves, reloads, converts, verifies, and draws what the regularization does to the weights.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import deploy
import numpy as np
import plots
import tensorflow as tf
import tf_keras as keras
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tfbinreg
from tflite_tools import files
from tflite_tools.convert import reference
from tflite_tools.verify import verify

FLOAT_EPOCHS, EPOCHS, SWITCH_EPOCH = 30, 40, 20
# A hundred times the paper's: its pull on a weight adds up over 800 batches here, not 300,000.
STRENGTH = 50.0
BATCH = 32


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


def train(
    model: Any, images: np.ndarray, labels: np.ndarray, epochs: int, rate: float, callbacks: Any
) -> None:
    """SGD with cosine decay."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * -(-len(images) // BATCH))
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(images, labels, BATCH, epochs, verbose=0, callbacks=callbacks)


def stock_sizes(model: Any, images: np.ndarray) -> tuple[int, int]:
    """Bytes of the float and of the post-training int8 file of TensorFlow's own converter."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    plain = converter.convert()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images[:100])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return len(plain), len(converter.convert())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_dir", default="demo_output")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.makedirs(options.output_dir, exist_ok=True)
    console, start = Console(), time.monotonic()

    def tell(text: str) -> None:
        console.print(f"[{time.monotonic() - start:5.1f} s] {text}", markup=False, highlight=False)

    keras.utils.set_random_seed(options.seed)
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32)
    x, x_test, y, y_test = train_test_split(
        images, labels, test_size=0.3, random_state=0, stratify=labels
    )
    tell(f"training the float net on {len(x)} digits")
    model = build()
    train(model, x, y, FLOAT_EPOCHS, 0.05, [])
    accuracy = {"float": np.mean(model.predict(x_test, verbose=0).argmax(-1) == y_test)}
    print(tfbinreg.plan(model, weight_bits=2))

    trained = {}
    for name, strength in (("LSQ", 0.0), ("LSQ + BR", STRENGTH)):
        tell(f"training {name} at W2A8")
        keras.utils.set_random_seed(options.seed)
        trained[name] = tfbinreg.quantize_apply(model, weight_bits=2, calibration_data=x)
        callback = tfbinreg.BinRegularization("two_stage", SWITCH_EPOCH, strength)
        train(trained[name], x, y, EPOCHS, 0.02, [callback])
        tfbinreg.finalize(trained[name], (x, y))

    path = os.path.join(options.output_dir, "digits_w2a8.keras")
    tell(f"saving, reloading and converting {path}")
    trained["LSQ + BR"].save(path)
    reloaded = tfbinreg.load_model(path)
    content = tfbinreg.to_tflite(reloaded)
    files.write(os.path.join(options.output_dir, "digits_w2a8.tflite"), content)
    tests = {"images": x_test}
    report = verify(content, reference=reference(path, tests), inputs=tests)
    sizes = stock_sizes(model, x)
    results = {name: deploy.deploy(net, x_test, y_test) for name, net in trained.items()}

    table = Table(title="digits, 540 test images")
    for column in ("net", "accuracy", "accuracy of the file", "file bytes", "weights, packed"):
        table.add_column(column)
    tensors = tfbinreg.integer_codes(reloaded).values()
    weights = sum(tensor.codes.size for tensor in tensors)
    packed = sum(tensor.codes.size * tensor.bits for tensor in tensors)
    table.add_row("float", f"{accuracy['float']:.4f}", "", str(sizes[0]), str(4 * weights))
    table.add_row("int8, stock converter", "", "", str(sizes[1]), str(weights))
    for name, result in results.items():
        table.add_row(
            f"{name}, W2A8",
            f"{result.accuracy:.4f}",
            f"{result.file_accuracy:.4f}",
            str(result.file_bytes),
            str(packed // 8),
        )
    console.print(table)
    for check in report.checks:
        tell(f"{check.name} {check.verdict.value}: {check.detail}")
    plots.bin_histograms(trained["LSQ"], os.path.join(options.output_dir, "bins_before_br.png"))
    plots.bin_histograms(trained["LSQ + BR"], os.path.join(options.output_dir, "bins_after_br.png"))
    tell(f"pictures, model and file are in {options.output_dir}/")
    if not report.passed:
        raise SystemExit("The file does not match the model.")


if __name__ == "__main__":
    main()
