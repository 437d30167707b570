"""Generated C of pruned nets, with and without the channels that it leaves out.

A small net with depthwise, 1x1 and 3x3 'same' convolutions and two additions. Every kernel loses
the same share of its channels before it is quantized to 4 bits. The net is not trained, because
neither figure depends on the other weights. Has the requirements of `make test-device`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras as keras
from measure import table

import tfbinreg
from tflite_tools.c import boards, generate
from tflite_tools.pruning import smaller
from tflite_tools.running import runtime
from tflite_tools.schema.contents import Model, load

_WIDTH, _CPU = 16, "cortex-m4"
_SHIFTS = ("negative", "any", "positive")


def net() -> Any:
    """Images of 16 x 16 and 3 channels."""
    layers = keras.layers
    image = keras.Input((16, 16, 3))

    def normalized(x: Any, layer: Any) -> Any:
        return layers.BatchNormalization()(layer(x))

    def conv(x: Any, width: int, size: int, stride: int = 1) -> Any:
        return normalized(x, layers.Conv2D(width, size, stride, padding="same", use_bias=False))

    def depthwise(x: Any) -> Any:
        return normalized(x, layers.DepthwiseConv2D(3, padding="same", use_bias=False))

    x = y = layers.ReLU()(conv(image, _WIDTH, 3, 2))
    x = conv(layers.ReLU()(depthwise(x)), _WIDTH, 1)
    x = y = layers.ReLU()(layers.Add()([x, y]))
    x = conv(layers.ReLU()(conv(x, _WIDTH, 3)), _WIDTH, 3)
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.ReLU()(conv(layers.ReLU()(depthwise(x)), 2 * _WIDTH, 1))
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def prune(model: Any, share: float, shifts: str) -> None:
    """Zero the first channels of every convolution; shifts of the sign `shifts` remain of them."""
    random = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            (kernel,) = layer.get_weights()
            own = kernel[..., 0] if isinstance(layer, keras.layers.DepthwiseConv2D) else kernel
            own[..., : round(share * own.shape[-1])] = 0.0
            layer.set_weights([kernel])
        elif isinstance(layer, keras.layers.BatchNormalization):
            beta = random.normal(0.0, 0.3, layer.beta.shape)
            gone = beta[: round(share * len(beta))]
            signs = {"negative": -np.abs(gone), "any": gone, "positive": np.abs(gone)}
            gone[:] = signs[shifts]
            layer.beta.assign(beta)


def file(share: float, shifts: str) -> Model:
    """The canonical file."""
    keras.utils.set_random_seed(0)
    model = net()
    prune(model, share, shifts)
    images = np.random.default_rng(0).normal(size=(64, 16, 16, 3)).astype(np.float32)
    recipe = tfbinreg.Recipe(weight_bits=4, activation_bits=4, per_channel=True)
    quantized = tfbinreg.quantize_apply(model, recipe, calibration_data=images)
    tfbinreg.finalize(quantized, images, target="tflm")
    return load(tfbinreg.to_tflite(quantized))


def row(share: float, shifts: str, *, whole: bool) -> list[str]:
    """The net's figures; fails if the C does not compute what TFLM computes."""
    model = file(share, shifts)
    sources = generate.generate(model, whole=whole)
    inputs = [np.random.default_rng(0).integers(-128, 128, (3, 16, 16, 3)).astype(np.int8)]
    ran = boards.run(sources, model, inputs, cpu=_CPU)
    expected = runtime.run(model, inputs, runtime=runtime.TFLM).outputs
    if not all(map(np.array_equal, ran.outputs, expected)):
        raise AssertionError(f"{share} {shifts}: the C does not compute what TFLM computes")
    return [
        f"{100 * share:.0f} %",
        shifts if share else "",
        "" if whole else f"{sum(sources.left_out.values())}",
        f"{sources.packed_weight_bytes}",
        f"{sources.constant_bytes}",
        f"{sources.arena_bytes}",
        f"{ran.instructions:,}",
        "" if whole else f"{_moved(model)}",
    ]


def _moved(model: Model) -> int:
    """How many outputs of 256 random images other ones are in LiteRT without the channels."""
    shape = model.main.tensors[model.main.inputs[0]].shape[1:]
    inputs = [np.random.default_rng(1).integers(-128, 128, (256, *shape)).astype(np.int8)]
    files = (model, smaller.of_model(model).model)
    (first,), (second,) = (
        runtime.run(own, inputs, runtime=runtime.LITERT).outputs for own in files
    )
    return int(np.count_nonzero(first != second))


def main() -> None:
    """Print the table."""
    rows = [row(0.0, "any", whole=True)]
    for share in (0.25, 0.5):
        rows.append(row(share, "any", whole=True))
        rows += [row(share, shifts, whole=False) for shifts in _SHIFTS]
    names = ["pruned", "shifts", "left out", "weights", "constants", "arena"]
    print(table([*names, f"{_CPU}, instructions", "LiteRT moves"], rows))


if __name__ == "__main__":
    main()
