"""The nets whose generated C is counted on emulated processors: random weights at any width.

Neither instructions nor bytes depend on the values of the weights, only on their width.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import tf_keras as keras
import zoo
from coverage import settle
from nets import mobilenetv2, resnet8

import tfbinreg
from tflite_tools.schema.contents import Model, load

BITS = (2, 3, 4, 8)
_IMAGES = 16
layers = keras.layers


def ds_cnn() -> Any:
    """MLPerf Tiny's keyword net: 49 frames of 10 coefficients, four separable blocks of 64."""

    def normalized(x: Any, layer: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization()(layer(x)))

    frames = keras.Input((49, 10, 1))
    x = normalized(frames, layers.Conv2D(64, (10, 4), 2, padding="same"))
    for _ in range(4):
        x = normalized(x, layers.DepthwiseConv2D(3, padding="same"))
        x = normalized(x, layers.Conv2D(64, 1))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(frames, layers.Dense(12, activation="softmax")(x))


def autoencoder() -> Any:
    """Dense layers of 640-128-8-128-640, the shape of MLPerf Tiny's task of odd sounds."""
    frames = x = keras.Input((640,))
    for width in (128, 8, 128):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(width)(x)))
    return keras.Model(frames, layers.Dense(640)(x))


NETS: dict[str, Callable[[], Any]] = {
    "ResNet-8": resnet8,
    "MobileNetV2-0.35": mobilenetv2,
    "MobileNetV3Small": lambda: zoo.NETS["MobileNetV3Small"](keras),
    "DS-CNN": ds_cnn,
    "Autoencoder": autoencoder,
}


def file(
    name: str, bits: int, folder: str | None = None, *, short_constants: bool = False
) -> Model:
    """The canonical file of a net, as it was kept in `folder`, or made and kept there."""
    path = pathlib.Path(folder or "", f"{name}_{bits}{'_short' * short_constants}.tflite")
    if folder is not None and path.exists():
        return load(path.read_bytes())
    keras.utils.set_random_seed(0)
    model = NETS[name]()
    inputs = settle(model, _IMAGES)
    # Nearly all weights of the autoencoder are in its first and last layers.
    edges = {"first_last_bits": None} if name == "Autoencoder" else {}
    recipe = tfbinreg.Recipe(weight_bits=bits, activation_bits=8, **edges)
    quantized = tfbinreg.quantize_apply(model, recipe, calibration_data=inputs)
    target = "tflm" if short_constants else None
    tfbinreg.finalize(quantized, inputs, target=target, short_constants=short_constants)
    data = tfbinreg.to_tflite(quantized)
    if folder is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return load(data)
