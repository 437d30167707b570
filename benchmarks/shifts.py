"""Generated C with power-of-two scales compared with learned scales: instructions, bytes.

One small net, quantized with `hardware_friendly(4)` and with the same recipe with LSQ. It is not
trained, because neither figure depends on the weights. Has the requirements of `make test-device`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tf_keras as keras
from measure import table

import tfbinreg
from tflite_tools.c import boards, generate
from tflite_tools.schema.contents import load

_CPUS = ("cortex-m3", "cortex-m4")


def net() -> Any:
    """Depthwise-separable blocks with an addition; 16 x 16 images of 3 channels."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((16, 16, 3))

    def normalized(x: Any, layer: Any) -> Any:
        return layers.BatchNormalization()(layer(x))

    x = normalized(image, layers.Conv2D(16, 3, 2, padding="same", use_bias=False))
    x = y = layers.ReLU()(x)
    x = normalized(x, layers.DepthwiseConv2D(3, padding="same", use_bias=False))
    x = normalized(layers.ReLU()(x), layers.Conv2D(16, 1, use_bias=False))
    x = layers.ReLU()(layers.Add()([x, y]))
    x = normalized(x, layers.DepthwiseConv2D(3, padding="same", use_bias=False))
    x = normalized(layers.ReLU()(x), layers.Conv2D(32, 1, use_bias=False))
    x = layers.Flatten()(layers.AveragePooling2D(8)(layers.ReLU()(x)))
    return keras.Model(image, layers.Dense(10)(x))


def row(method: str, per_channel: bool) -> list[str]:
    """The net's figures."""
    images = np.random.default_rng(0).normal(size=(64, 16, 16, 3)).astype(np.float32)
    recipe = dataclasses.replace(
        tfbinreg.recipes.hardware_friendly(4), method=method, per_channel=per_channel
    )
    model = tfbinreg.quantize_apply(net(), recipe, calibration_data=images)
    tfbinreg.finalize(model)
    file = load(tfbinreg.to_tflite(model))
    sources = generate.generate(file)
    inputs = [np.random.default_rng(0).integers(-128, 128, (3, 16, 16, 3)).astype(np.int8)]
    counts = [boards.run(sources, file, inputs, cpu=cpu).instructions for cpu in _CPUS]
    sizes = boards.size(sources, flags=("-Os",))
    return [
        method,
        "channel" if per_channel else "tensor",
        *(f"{count:,}" for count in counts),
        f"{sizes.text}",
        f"{sizes.rodata}",
        f"{sources.constant_bytes}",
    ]


def main() -> None:
    """Print the table."""
    rows = [row(method, per) for per in (False, True) for method in ("lsq", "tqt")]
    names = [*(f"{cpu}, instructions" for cpu in _CPUS), "text -Os", "rodata", "constants"]
    print(table(["method", "a step per", *names], rows))


if __name__ == "__main__":
    main()
