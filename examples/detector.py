"""A small detector with low-bit weights, from drawn images to a verified file and C.

    python examples/detector.py [--output_dir detector_output] [--seeds 3] [--bits 4]

Trains a YOLO-style network on discs, squares and triangles (`shapes.py`): a grid of 8 x 8 cells,
and for each cell the distances to the edges of a box and a score for each class, as two outputs.
Then trains it further with `--bits`-bit weights and 8-bit activations, converts it, verifies the
file, and reports the mean average precision of all three on unseen images. The boxes are found
outside the network (`detections.py`; in C: `detector_c`).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import detections
import numpy as np
import shapes
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tflite_tools.c import generate
from tflite_tools.checks.trained_model import verify
from tflite_tools.from_keras.convert import reference
from tflite_tools.running import runtime, samples
from tflite_tools.schema import contents
from tflite_tools.system import files

CELL = 8  # pixels
CELLS = shapes.SIZE // CELL
KINDS = len(shapes.CLASSES)
BATCH = 32
LEAST_SCORE = 0.05


def build(pixels: int = 0) -> Any:
    """The float detector, of 2 million multiplications: (64, 64, 3) in bytes -> distances
    (8, 8, 4) in cells and scores (8, 8, classes).

    With `pixels` they are one tensor (8, 8, 4 + classes), distances in so many pixels a cell, which
    is how not to do it: numbers of one tensor share one step.
    """
    layers = keras.layers

    def block(x: Any, filters: int, strides: int = 1) -> Any:
        x = layers.Conv2D(filters, 3, strides, "same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization()(x))

    image = layers.Input((shapes.SIZE, shapes.SIZE, 3), name="image")
    x = layers.Rescaling(1 / 255)(image)
    for filters in (8, 16, 32):
        x = block(x, filters, 2)
    for _ in range(2):
        x = layers.Add()([x, block(x, 32)])
    ones, rare = (keras.initializers.Constant(value) for value in (1.5, -4.0))
    distances = layers.Conv2D(4, 1, activation="relu", bias_initializer=ones, name="distances")(x)
    scores = layers.Conv2D(KINDS, 1, activation="sigmoid", bias_initializer=rare, name="scores")(x)
    if pixels:
        joined = layers.Concatenate(name="joined")([distances * float(pixels), scores])
        return keras.Model(image, joined, name="detector")
    return keras.Model(image, [distances, scores], name="detector")


def targets(scenes: shapes.Scenes) -> tuple[np.ndarray, np.ndarray]:
    """What a detector should say: the cell that holds the middle of a box tells of the box.

    Returns:
        distances, float32 (count, 8, 8, 5), the last one 1 where there is a box; scores, float32
        (count, 8, 8, classes).
    """
    shape = (len(scenes.images), CELLS, CELLS)
    distances, scores = np.zeros((*shape, 5), np.float32), np.zeros((*shape, KINDS), np.float32)
    for number, (boxes, classes) in enumerate(zip(scenes.boxes, scenes.classes, strict=True)):
        for box, kind in zip(boxes / CELL, classes, strict=True):
            column, row = ((box[:2] + box[2:]) / 2).astype(int)
            middle = np.array([column, row]) + 0.5
            distances[number, row, column] = [*(middle - box[:2]), *(box[2:] - middle), 1]
            scores[number, row, column, kind] = 1
    return distances, scores


def distance_loss(wanted: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    """1 - intersection over union, where there is a box; the boxes hold the middle of the cell."""
    there, wanted = wanted[..., 4], wanted[..., :4]
    low = tf.minimum(wanted, found)
    shared = (low[..., 0] + low[..., 2]) * (low[..., 1] + low[..., 3])
    areas = [(own[..., 0] + own[..., 2]) * (own[..., 1] + own[..., 3]) for own in (wanted, found)]
    union = areas[0] + areas[1] - shared
    lost = there * (1.0 - shared / tf.maximum(union, 1e-6))
    return tf.reduce_sum(lost) / tf.maximum(tf.reduce_sum(there), 1.0)


def score_loss(wanted: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    """The focal loss: cross-entropy times the squared error, in sum over cells and classes."""
    lost = keras.losses.BinaryFocalCrossentropy(gamma=2.0, reduction="none")
    boxes = tf.maximum(tf.reduce_sum(wanted), 1.0)
    return KINDS * tf.reduce_sum(lost(wanted, found)) / boxes


def joined_loss(pixels: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Both losses, of a model with one output."""

    def loss(wanted: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        distances = distance_loss(wanted[..., :5], found[..., :4] / pixels)
        return distances + score_loss(wanted[..., 5:], found[..., 4:])

    return loss


def train(model: Any, scenes: shapes.Scenes, epochs: int, rate: float, pixels: int = 0) -> None:
    """Adam with cosine decay to zero."""
    schedule = keras.optimizers.schedules.CosineDecay(
        rate, epochs * -(-len(scenes.images) // BATCH)
    )
    wanted: Any = targets(scenes)
    losses: Any = [distance_loss, score_loss]
    if pixels:
        wanted, losses = np.concatenate(wanted, axis=-1), joined_loss(pixels)
    model.compile(keras.optimizers.Adam(schedule), losses)
    model.fit(scenes.images, wanted, BATCH, epochs, verbose=0)


def mark(outputs: Sequence[np.ndarray], scenes: shapes.Scenes, pixels: int = 0) -> float:
    """Mean average precision of a detector's outputs."""
    if pixels:
        outputs = (outputs[0][..., :4] / np.float32(pixels), outputs[0][..., 4:])
    found = [
        detections.find(*own, cell=CELL, least_score=LEAST_SCORE)
        for own in zip(*outputs, strict=True)
    ]
    return detections.mean_average_precision(found, scenes.boxes, scenes.classes, KINDS)


def predicted(model: Any, images: np.ndarray) -> list[np.ndarray]:
    """A Keras model's outputs."""
    outputs = model.predict(images, 128, verbose=0)
    return outputs if isinstance(outputs, list) else [outputs]


def run_file(file: contents.Model, images: np.ndarray) -> list[np.ndarray]:
    """A file's outputs as real numbers, in TFLM or, where that is missing, in LiteRT."""
    name = runtime.TFLM if runtime.available(runtime.TFLM) else runtime.LITERT
    made = runtime.run(file, samples.stored(file, {"image": images}), runtime=name).outputs
    grids = [file.main.tensors[index].quantization for index in file.main.outputs]
    return [runtime.dequantize(*own) for own in zip(made, grids, strict=True)]


def quantized(model: Any, bits: int, scenes: shapes.Scenes, epochs: int, pixels: int = 0) -> Any:
    """The detector trained further with weights of `bits` bits."""
    model = tfbinreg.quantize_apply(model, weight_bits=bits, calibration_data=scenes.images)
    train(model, scenes, epochs, 0.002, pixels)
    tfbinreg.finalize(model, scenes.images, target="tflm")
    return model


def percent(values: Sequence[float]) -> str:
    """Mean and standard deviation of shares."""
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}"


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_dir", default="detector_output")
    parser.add_argument("--bits", type=int, default=4, choices=range(2, 9), help="weight bits")
    parser.add_argument(
        "--one_output",
        metavar="PIXELS",
        type=int,
        default=0,
        help="to compare: both on one grid, distances in this many pixels per cell",
    )
    for name, default, about in (
        ("seeds", 3, "number of seeds"),
        ("images", 2000, "training images"),
        ("held_out", 500, "evaluation images"),
        ("float_epochs", 20, "epochs of the float net"),
        ("epochs", 8, "epochs at low bits"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=about)
    options = parser.parse_args(arguments)
    for name in ("seeds", "images", "held_out", "float_epochs", "epochs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if options.one_output < 0:
        parser.error("--one_output must not be negative")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options, start = options_of(arguments), time.monotonic()
    pixels = options.one_output
    os.makedirs(options.output_dir, exist_ok=True)
    held_out, name = shapes.draw(options.held_out, 10**6), f"W{options.bits}A8"
    marks: dict[str, list[float]] = {"float": [], name: [], f"{name}, the file": []}
    for seed in range(options.seeds):
        keras.utils.set_random_seed(seed)
        scenes, model = shapes.draw(options.images, seed), build(pixels)
        train(model, scenes, options.float_epochs, 0.005, pixels)
        marks["float"].append(mark(predicted(model, held_out.images), held_out, pixels))
        model = quantized(model, options.bits, scenes, options.epochs, pixels)
        marks[name].append(mark(predicted(model, held_out.images), held_out, pixels))
        file = contents.load(tfbinreg.to_tflite(model))
        marks[f"{name}, the file"].append(mark(run_file(file, held_out.images), held_out, pixels))
        told = ", ".join(f"{key} {100 * own[-1]:.1f}" for key, own in marks.items())
        print(f"[{time.monotonic() - start:5.0f} s] seed {seed}: {told}", flush=True)
    print("\n| detector | mean average precision at 0.5, percent |\n|---|---|")
    for key, own in marks.items():
        print(f"| {key} | {percent(own)} |")

    path = os.path.join(options.output_dir, "detector")
    model.save(f"{path}.keras")
    files.write(f"{path}.tflite", file.data)
    tests = {"image": held_out.images[:64]}
    report = verify(file, reference=reference(f"{path}.keras", tests), inputs=tests)
    for check in report.checks:
        print(f"{check.name} {check.verdict.value}: {check.detail}")
    if not report.passed:
        raise SystemExit("The file does not match the model.")
    folder = os.path.join(options.output_dir, "net")
    os.makedirs(folder, exist_ok=True)
    for file_name, text in generate.generate(file, name="net").files.items():
        files.write(os.path.join(folder, file_name), text.encode())
    print(f"the last seed's model, file and C are in {options.output_dir}")


if __name__ == "__main__":
    main()
