"""The two networks that the benchmarks train, with their input shapes and batch sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tf_keras as keras

layers = keras.layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Net:
    """A network and the batch it is trained on.

    Attributes:
        build: makes a new float model with random weights.
        input_shape: (height, width, channels).
        classes: number of classes.
        batch: batch size.
    """

    build: Callable[[], Any]
    input_shape: tuple[int, int, int]
    classes: int
    batch: int

    def random_batch(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs uniform in [-1, 1), float32, and labels, int64."""
        generator = np.random.default_rng(seed)
        shape = (self.batch, *self.input_shape)
        inputs = generator.uniform(-1.0, 1.0, shape).astype(np.float32)
        return inputs, generator.integers(self.classes, size=self.batch)


def mobilenetv2() -> Any:
    """MobileNetV2 of width 0.35 at 96x96 with 2 classes, the size of MLPerf Tiny's person task."""
    return keras.applications.MobileNetV2(
        input_shape=(96, 96, 3), alpha=0.35, weights=None, classes=2
    )


def resnet8() -> Any:
    """MLPerf Tiny's ResNet-8 for 32x32 images: stem of 16, stacks of 16, 32 and 64, 10 classes."""
    inputs = keras.Input((32, 32, 3))
    outputs = layers.ReLU()(_convolve(inputs, 16, 3, 1))
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        outputs = _residual(outputs, filters, stride)
    outputs = layers.GlobalAveragePooling2D()(outputs)
    outputs = layers.Dense(10, activation="softmax")(outputs)
    return keras.Model(inputs, outputs, name="resnet8")


def _convolve(inputs: Any, filters: int, size: int, stride: int) -> Any:
    outputs = layers.Conv2D(filters, size, stride, padding="same")(inputs)
    return layers.BatchNormalization()(outputs)


def _residual(inputs: Any, filters: int, stride: int) -> Any:
    """Two 3x3 convolutions; a 1x1 shortcut where the shape changes."""
    outputs = layers.ReLU()(_convolve(inputs, filters, 3, stride))
    outputs = _convolve(outputs, filters, 3, 1)
    if stride > 1:
        inputs = layers.Conv2D(filters, 1, stride, padding="same")(inputs)
    return layers.ReLU()(layers.Add()([outputs, inputs]))


NETS = {
    "mobilenetv2": Net(build=mobilenetv2, input_shape=(96, 96, 3), classes=2, batch=32),
    "resnet8": Net(build=resnet8, input_shape=(32, 32, 3), classes=10, batch=128),
}
