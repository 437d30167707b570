"""The nets of the study, for 32x32 images and 10 classes, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tf_keras as keras

from benchmarks.nets import resnet8

layers = keras.layers
Activation = Callable[[Any], Any]


def relu6(x: Any) -> Any:
    return layers.ReLU(6.0)(x)


def relu(x: Any) -> Any:
    return layers.ReLU()(x)


def hard_sigmoid(x: Any) -> Any:
    """relu6(x + 3) / 6, MobileNetV3's; Keras 2 calls another one by this name."""
    return layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)


def hard_swish(x: Any) -> Any:
    return x * hard_sigmoid(x)


def linear(x: Any) -> Any:
    return x


def _conv(x: Any, filters: int, size: int, stride: int, activation: Activation) -> Any:
    x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
    return activation(layers.BatchNormalization()(x))


def _depthwise(x: Any, size: int, stride: int, activation: Activation) -> Any:
    x = layers.DepthwiseConv2D(size, stride, padding="same", use_bias=False)(x)
    return activation(layers.BatchNormalization()(x))


def _squeeze_and_excite(x: Any) -> Any:
    """Every channel times a factor from 0 to 1 that its means over the image decide."""
    channels = x.shape[-1]
    factor = layers.GlobalAveragePooling2D(keepdims=True)(x)
    factor = relu(layers.Conv2D(max(8, channels // 4), 1)(factor))
    factor = hard_sigmoid(layers.Conv2D(channels, 1)(factor))
    return x * factor


def _inverted_residual(
    x: Any,
    wide: int,
    filters: int,
    stride: int,
    activation: Activation,
    *,
    size: int = 3,
    excite: bool = False,
) -> Any:
    """Widen to `wide` channels, filter each, narrow to `filters`; add the input if it fits."""
    outputs = x if wide == x.shape[-1] else _conv(x, wide, 1, 1, activation)
    outputs = _depthwise(outputs, size, stride, activation)
    if excite:
        outputs = _squeeze_and_excite(outputs)
    outputs = _conv(outputs, filters, 1, 1, linear)
    if stride > 1 or filters != x.shape[-1]:
        return outputs
    return layers.Add()([x, outputs])


def _classify(x: Any, name: str, image: Any) -> Any:
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, activation="softmax")(x), name=name)


def mobilenetv2() -> Any:
    """MobileNetV2 in small (Sandler et al., CVPR 2018): ReLU6, linear bottlenecks, widened 6 times;
    1.1 million multiplications."""
    image = keras.Input((32, 32, 3), name="image")
    x = _conv(image, 16, 3, 2, relu6)
    x = _inverted_residual(x, 16, 8, 1, relu6)
    for filters, count in ((16, 2), (24, 3)):
        for index in range(count):
            x = _inverted_residual(x, 6 * x.shape[-1], filters, 1 if index else 2, relu6)
    x = _conv(x, 128, 1, 1, relu6)
    return _classify(x, "mobilenetv2", image)


def mobilenetv3() -> Any:
    """MobileNetV3-Small in small (Howard et al., ICCV 2019): hard swish, squeeze and excitation,
    filters of 5x5 behind; 1.0 million multiplications."""
    image = keras.Input((32, 32, 3), name="image")
    x = _conv(image, 16, 3, 2, hard_swish)
    x = _inverted_residual(x, 16, 16, 1, relu, excite=True)
    x = _inverted_residual(x, 40, 16, 2, relu)
    x = _inverted_residual(x, 48, 16, 1, relu)
    x = _inverted_residual(x, 64, 24, 2, hard_swish, size=5, excite=True)
    x = _inverted_residual(x, 96, 24, 1, hard_swish, size=5, excite=True)
    x = _inverted_residual(x, 96, 24, 1, hard_swish, size=5, excite=True)
    x = _conv(x, 144, 1, 1, hard_swish)
    return _classify(x, "mobilenetv3", image)


def probe() -> Any:
    """A net of four small layers, to try the harness out with."""
    image = keras.Input((32, 32, 3), name="image")
    x = _conv(image, 4, 3, 4, relu6)
    x = _conv(_depthwise(x, 3, 1, relu6), 8, 1, 1, relu6)
    return _classify(x, "probe", image)


NETS: dict[str, Callable[[], Any]] = {
    "mobilenetv2": mobilenetv2,
    "mobilenetv3": mobilenetv3,
    "resnet8": resnet8,
    "probe": probe,
}
