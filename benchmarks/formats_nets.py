"""The quantized nets whose formats are measured, each at any number of bits."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras
import zoo
from coverage import settle
from nets import mobilenetv2

import tfbinreg

sys.path.append(str(Path(__file__).parents[1] / "examples"))

import data
import fashion_mnist
import resnet8_cifar10

_STEPS, _BATCH = 5, 8  # of training for nets of random weights
_RATE = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What to train with.

    Attributes:
        data_dir: folder with fashion_mnist.npz, cifar10.npz and mlperf_tiny_resnet8.h5.
        bits: of weights and activations.
        epochs: of float training and of quantized training, each.
        limit: most rows to train on; None for all.
    """

    data_dir: str
    bits: tuple[int, int]
    epochs: int
    limit: int | None = None


def fashion(work: Work) -> Any:
    """The net of examples/fashion_mnist.py, trained in float and then quantized."""
    split = _cut(data.fashion_mnist(work.data_dir), work.limit)
    model = fashion_mnist.build()
    rows = len(split.train_images)
    model.compile(
        fashion_mnist.float_optimizer(work.epochs, rows), "sparse_categorical_crossentropy"
    )
    images = split.train_images.astype(np.float32)
    model.fit(images, split.train_labels, fashion_mnist.BATCH, work.epochs, verbose=0, shuffle=True)
    return _fine_tuned(model, split, work)


def resnet8(work: Work) -> Any:
    """MLPerf Tiny's trained ResNet-8, fine-tuned on CIFAR-10."""
    path = os.path.join(work.data_dir, "mlperf_tiny_resnet8.h5")
    model = keras.models.load_model(path, compile=False)
    return _fine_tuned(model, _cut(data.cifar10(work.data_dir), work.limit), work)


def _fine_tuned(model: Any, split: data.Split, work: Work) -> Any:
    """LSQ, and LSQ + BR in the second half of the epochs; finalized."""
    switch = (work.epochs + 1) // 2
    return resnet8_cifar10.fine_tune(model, split, work.bits, work.epochs, switch)


def _cut(split: data.Split, limit: int | None) -> data.Split:
    images, labels = split.train_images[:limit], split.train_labels[:limit]
    return dataclasses.replace(split, train_images=images, train_labels=labels)


def _random(build: Callable[[], Any]) -> Callable[[Work], Any]:
    """A net of random weights that knows the statistics of its inputs, after a few steps."""

    def make(work: Work) -> Any:
        model = build()
        inputs = settle(model, _STEPS * _BATCH)
        quantized = tfbinreg.quantize_apply(
            model, weight_bits=work.bits[0], activation_bits=work.bits[1]
        )
        quantized.compile(keras.optimizers.SGD(_RATE, 0.9), "sparse_categorical_crossentropy")
        classes = quantized.output_shape[-1]
        labels = np.random.default_rng(1).integers(classes, size=len(inputs))
        quantized.fit(inputs, labels, _BATCH, verbose=0, shuffle=False)
        tfbinreg.finalize(quantized, inputs)
        return quantized

    return make


def large(work: Work) -> Any:
    """MobileNetV2 of width 1 for 1000 classes, untrained: a file of 4 MB."""
    model = keras.applications.MobileNetV2(input_shape=(96, 96, 3), weights=None)
    inputs = settle(model, 2 * _BATCH)
    quantized = tfbinreg.quantize_apply(
        model, weight_bits=work.bits[0], activation_bits=work.bits[1], calibration_data=inputs
    )
    tfbinreg.finalize(quantized, inputs)
    return quantized


# Name -> quantized, finalized model.
NETS: dict[str, Callable[[Work], Any]] = {
    "Fashion-MNIST net": fashion,
    "ResNet-8": resnet8,
    "MobileNetV2-0.35": _random(mobilenetv2),
    "MobileNetV3Small": _random(lambda: zoo.NETS["MobileNetV3Small"](keras)),
}
