"""ResNet-18 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016)."""

from __future__ import annotations

from typing import Any


def resnet18(keras: Any, input_shape: tuple[int, int, int], classes: int) -> Any:
    """ResNet-18 of version 1, logits out.

    Args:
        keras: tf_keras or Keras 3.
        input_shape: (height, width, 3).
        classes: number of classes.
    """
    layers = keras.layers

    def unit(x: Any, filters: int, kernel: int, stride: int, name: str) -> Any:
        x = layers.Conv2D(
            filters, kernel, stride, padding="same", use_bias=False, name=f"{name}_conv"
        )(x)
        return layers.BatchNormalization(name=f"{name}_bn")(x)

    image = keras.Input(input_shape, name="image")
    x = layers.ReLU(name="stem_relu")(unit(image, 64, 7, 2, "stem"))
    x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, filters in enumerate((64, 128, 256, 512)):
        for block in range(2):
            name, stride = f"s{stage}b{block}", 2 if stage and not block else 1
            y = layers.ReLU(name=f"{name}_relu1")(unit(x, filters, 3, stride, f"{name}_1"))
            y = unit(y, filters, 3, 1, f"{name}_2")
            if stride > 1:
                x = unit(x, filters, 1, stride, f"{name}_skip")
            x = layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([x, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(classes, name="head")(x), name="resnet18")
