"""The networks that people use, with random weights, in tf_keras or Keras 3."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from resnet18 import resnet18

SIZE, CLASSES = 96, 10
_SHAPE = (SIZE, SIZE, 3)


def _application(name: str, **options: Any) -> Callable[[Any], Any]:
    def build(keras: Any) -> Any:
        make = getattr(keras.applications, name)
        return make(weights=None, input_shape=_SHAPE, classes=CLASSES, **options)

    return build


def nested_backbone(keras: Any) -> Any:
    """Transfer learning: MobileNetV2 as one layer, preprocessing before it, a head behind."""
    layers = keras.layers
    backbone = keras.applications.MobileNetV2(
        weights=None, input_shape=_SHAPE, include_top=False, alpha=0.35
    )
    image = keras.Input(_SHAPE, name="image")
    x = backbone(layers.Rescaling(1 / 127.5, -1, name="scale")(image))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax", name="head")(x))


def vgg16_bn(keras: Any) -> Any:
    """VGG16 with batch normalization and one dense layer."""
    layers = keras.layers
    image = x = keras.Input(_SHAPE, name="image")
    for stage, (filters, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        for index in range(depth):
            name = f"s{stage}c{index}"
            x = layers.Conv2D(filters, 3, padding="same", name=name)(x)
            x = layers.BatchNormalization(name=f"{name}_bn")(x)
            x = layers.Activation("relu", name=f"{name}_relu")(x)
        x = layers.MaxPooling2D(name=f"s{stage}_pool")(x)
    x = layers.Dropout(0.5, name="dropout")(layers.Flatten(name="flat")(x))
    return keras.Model(image, layers.Dense(CLASSES, name="head")(x), name="vgg16_bn")


def unet(keras: Any) -> Any:
    """A U-Net of depth 3, once up by transposed convolution and once by nearest neighbours."""
    layers = keras.layers

    def block(x: Any, filters: int, name: str) -> Any:
        for index in range(2):
            x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv{index}")(x)
            x = layers.BatchNormalization(name=f"{name}_bn{index}")(x)
            x = layers.ReLU(name=f"{name}_relu{index}")(x)
        return x

    image = keras.Input(_SHAPE, name="image")
    first = block(image, 16, "down0")
    second = block(layers.MaxPooling2D(name="pool0")(first), 32, "down1")
    x = block(layers.MaxPooling2D(name="pool1")(second), 64, "middle")
    x = layers.Conv2DTranspose(32, 2, 2, name="up1")(x)
    x = block(layers.Concatenate(name="skip1")([x, second]), 32, "up1")
    x = layers.UpSampling2D(name="up0")(x)
    x = block(layers.Concatenate(name="skip0")([x, first]), 16, "up0")
    x = layers.Conv2D(4, 1, activation="softmax", name="head")(x)
    return keras.Model(image, x, name="unet")


def regnet(keras: Any) -> Any:
    """Grouped convolutions between pointwise ones, as in RegNetX (arXiv 2003.13678)."""
    layers = keras.layers

    def conv(x: Any, filters: int, size: int, name: str, **options: Any) -> Any:
        x = layers.Conv2D(filters, size, padding="same", use_bias=False, name=name, **options)(x)
        return layers.BatchNormalization(name=f"{name}_bn")(x)

    def block(x: Any, filters: int, stride: int, name: str) -> Any:
        y = layers.ReLU(name=f"{name}_relu1")(conv(x, filters, 1, f"{name}_in"))
        y = conv(y, filters, 3, f"{name}_groups", strides=stride, groups=filters // 8)
        y = conv(layers.ReLU(name=f"{name}_relu2")(y), filters, 1, f"{name}_out")
        if stride > 1:
            x = conv(x, filters, 1, f"{name}_skip", strides=stride)
        return layers.ReLU(name=f"{name}_relu3")(layers.Add(name=f"{name}_add")([x, y]))

    image = keras.Input(_SHAPE, name="image")
    x = layers.ReLU(name="stem_relu")(conv(image, 16, 3, "stem", strides=2))
    for stage, filters in enumerate((24, 56, 152)):
        x = block(x, filters, 2, f"stage{stage}_first")
        x = block(x, filters, 1, f"stage{stage}_second")
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(image, layers.Dense(CLASSES, name="head")(x), name="regnet")


def ds_cnn_1d(keras: Any) -> Any:
    """A depthwise-separable net over 1-D signals, as for vibration or keywords."""
    layers = keras.layers
    signal = keras.Input((256, 6), name="signal")
    x = layers.Conv1D(32, 10, 2, padding="same", name="stem")(signal)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_bn")(x))
    for index in range(4):
        x = layers.SeparableConv1D(32, 3, padding="same", use_bias=False, name=f"sep{index}")(x)
        x = layers.ReLU(name=f"relu{index}")(layers.BatchNormalization(name=f"bn{index}")(x))
    x = layers.MaxPooling1D(name="pool")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(signal, layers.Dense(CLASSES, name="head")(x), name="ds_cnn_1d")


def autoencoder(keras: Any) -> Any:
    """Dense layers, as MLPerf Tiny's anomaly detection."""
    layers = keras.layers
    features = x = keras.Input((128,), name="features")
    for index, units in enumerate((64, 64, 8, 64, 64)):
        x = layers.Dense(units, name=f"dense{index}")(x)
        x = layers.BatchNormalization(name=f"bn{index}")(x)
        x = layers.Activation("relu", name=f"relu{index}")(x)
    return keras.Model(features, layers.Dense(128, name="output")(x), name="autoencoder")


# Name -> build(keras), with `keras` tf_keras or Keras 3.
NETS: dict[str, Callable[[Any], Any]] = {
    "MobileNet": _application("MobileNet"),
    "MobileNetV2": _application("MobileNetV2"),
    "MobileNetV3Small": _application("MobileNetV3Small"),
    "MobileNetV3Small minimalistic": _application("MobileNetV3Small", minimalistic=True),
    "MobileNetV3Large": _application("MobileNetV3Large"),
    "ResNet50": _application("ResNet50"),
    "EfficientNetB0": _application("EfficientNetB0"),
    "EfficientNetV2B0": _application("EfficientNetV2B0"),
    "DenseNet121": _application("DenseNet121"),
    "NASNetMobile": _application("NASNetMobile"),
    "InceptionV3": _application("InceptionV3"),
    "nested MobileNetV2": nested_backbone,
    "ResNet-18": lambda keras: resnet18(keras, _SHAPE, CLASSES),
    "VGG16-BN": vgg16_bn,
    "U-Net": unet,
    "RegNetX": regnet,
    "DS-CNN 1-D": ds_cnn_1d,
    "Dense autoencoder": autoencoder,
}


@dataclasses.dataclass(frozen=True)
class Listed:
    """A net of another package.

    Attributes:
        model: the function or class that makes it, "package.module.function".
        arguments: of the function.
        options: its keyword arguments.
        keras: the Kerases whose model it can be. A package that asks TensorFlow for its Keras gets
            tf_keras where the variable TF_USE_LEGACY_KERAS is 1.
    """

    model: str
    arguments: Sequence[Any] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keras: Sequence[str] = ("tf_keras",)

    def __call__(self, _: Any) -> Any:
        """The net, of the Keras that this process is set to."""
        module, _dot, function = self.model.rpartition(".")
        return getattr(importlib.import_module(module), function)(*self.arguments, **self.options)


def listed(path: str) -> dict[str, Listed]:
    """The nets that a JSON file lists, {name: {"model": ..., "arguments": [...], ...}}."""
    return {name: Listed(**entry) for name, entry in json.loads(Path(path).read_text()).items()}
