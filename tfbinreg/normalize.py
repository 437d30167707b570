"""Any supported Keras model -> an equivalent plain functional model of simple layers.

Fused activations become layers of their own, SeparableConv2D its two convolutions, and a pooling
window over the whole image a global pooling, so that everything after meets few layer kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfbinreg import _compat
from tfbinreg.graph import Node, clone_layer, rebuild, trace
from tfbinreg.kinds import activation_name

keras = _compat.keras

Weights = list[np.ndarray]
Parts = list[tuple[Any, Weights]]  # the layers that replace one, in order, with their weights


def normalize(model: Any) -> tuple[Any, dict[str, str]]:
    """Rewrite `model` to simple layers with the same outputs.

    Args:
        model: a built Sequential or Functional model of supported layers (see `plan.check_layers`).

    Returns:
        The new model, with weights of its own, and for each of its layers the name of the layer it
        comes from.
    """
    graph = trace(model)
    taken = {node.name for node in graph.nodes}
    origin: dict[str, str] = {}
    pending: Parts = []

    def call(node: Node, tensors: Sequence[Any]) -> Any:
        if node.kind == "InputLayer":
            origin[node.name] = node.name
            return tensors[0]
        parts = _REWRITES.get(node.kind, _keep)(node.layer, _namer(node.name, taken))
        output: Any = tensors[0] if len(tensors) == 1 else list(tensors)
        for layer, weights in parts:
            output = layer(output)
            origin[layer.name] = node.name
            pending.append((layer, weights))
        return output

    normal = rebuild(graph, call)
    for layer, weights in pending:
        layer.set_weights(weights)
        layer.trainable = model.get_layer(origin[layer.name]).trainable
    return normal, origin


def _namer(name: str, taken: set[str]) -> Callable[[str], str]:
    """Names for the parts of layer `name` that no other layer has."""

    def part_name(suffix: str) -> str:
        candidate = f"{name}_{suffix}"
        while candidate in taken:
            candidate += "_"
        taken.add(candidate)
        return candidate

    return part_name


def _keep(layer: Any, part_name: Callable[[str], str]) -> Parts:
    return [(clone_layer(layer), layer.get_weights())]


def _activation_layer(function: str, name: str) -> Parts:
    layers: dict[str, Callable[[], Any]] = {
        "relu": lambda: keras.layers.ReLU(name=name),
        "relu6": lambda: keras.layers.ReLU(max_value=6.0, name=name),
        "softmax": lambda: keras.layers.Softmax(name=name),
    }
    return [(layers[function](), [])] if function != "linear" else []


def _own_activation(layer: Any, part_name: Callable[[str], str]) -> Parts:
    function = activation_name(layer)
    return _activation_layer(function, part_name(function)) if function != "linear" else []


def _split_activation(layer: Any, part_name: Callable[[str], str]) -> Parts:
    linear = clone_layer(layer, activation="linear")
    return [(linear, layer.get_weights()), *_own_activation(layer, part_name)]


def _replace_activation(layer: Any, part_name: Callable[[str], str]) -> Parts:
    return _activation_layer(activation_name(layer), layer.name)


def _split_separable(layer: Any, part_name: Callable[[str], str]) -> Parts:
    depthwise = keras.layers.DepthwiseConv2D(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        depth_multiplier=layer.depth_multiplier,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        name=part_name("depthwise"),
    )
    pointwise = keras.layers.Conv2D(
        layer.filters, 1, use_bias=layer.use_bias, name=part_name("pointwise")
    )
    kernels = layer.get_weights()
    activation = _own_activation(layer, part_name)
    return [(depthwise, kernels[:1]), (pointwise, kernels[1:]), *activation]


def _globalize_pooling(layer: Any, part_name: Callable[[str], str]) -> Parts:
    if tuple(layer.pool_size) != tuple(layer.input_shape[1:3]):
        return _keep(layer, part_name)
    return [(keras.layers.GlobalAveragePooling2D(keepdims=True, name=layer.name), [])]


_REWRITES: dict[str, Callable[[Any, Callable[[str], str]], Parts]] = {
    "Conv2D": _split_activation,
    "DepthwiseConv2D": _split_activation,
    "Dense": _split_activation,
    "SeparableConv2D": _split_separable,
    "Activation": _replace_activation,
    "AveragePooling2D": _globalize_pooling,
}
