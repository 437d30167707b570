"""How activation functions that have a name are written in layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfbinreg import _compat
from tfbinreg.frontend.builder import Builder, Value
from tfbinreg.network.added_layers import HardSwish
from tfbinreg.network.layer_kinds import HARD_SIGMOID_FIFTH

keras = _compat.keras


def activate(build: Builder, name: str, source: Value) -> Value:
    """The activation function of this canonical name (`layer_kinds.ACTIVATIONS`)."""
    return _ACTIVATIONS[name](build, source)


def elementwise(build: Builder, layer: Any, source: Value) -> Value:
    return Value(source.shape, build.call(layer, build.tensor(source)))


def _sigmoid(build: Builder, source: Value) -> Value:
    layer = keras.layers.Activation("sigmoid", name=build.name("sigmoid"))
    return elementwise(build, layer, source)


def _tanh(build: Builder, source: Value) -> Value:
    return elementwise(build, keras.layers.Activation("tanh", name=build.name("tanh")), source)


def softmax(build: Builder, source: Value, axis: Any = -1) -> Value:
    """A softmax over one axis, which the runtimes take for the last one."""
    rank, tensor = len(source.shape), build.plain(source)
    order = list(range(1, rank))
    place = int(np.ravel(axis)[0]) % rank - 1
    order[place], order[-1] = order[-1], order[place]
    moves = place != rank - 2
    if moves:
        tensor = build.call(keras.layers.Permute(order, name=build.part_name("to_last")), tensor)
    layer = keras.layers.Softmax(
        name=build.part_name("softmax") if moves else build.name("softmax")
    )
    tensor = build.call(layer, tensor)
    if moves:
        tensor = build.call(keras.layers.Permute(order, name=build.name("from_last")), tensor)
    return Value(source.shape, tensor)


def _silu(build: Builder, source: Value) -> Value:
    """x * sigmoid(x): the fixed grid of the sigmoid, and then a learned one."""
    product = build.name("silu")
    layer = keras.layers.Activation("sigmoid", name=build.part_name("sigmoid"))
    tensor = build.tensor(source)
    gate = build.call(layer, tensor)
    return Value(source.shape, build.call(keras.layers.Multiply(name=product), [tensor, gate]))


def hard_swish(build: Builder, source: Value) -> Value:
    return elementwise(build, HardSwish(name=build.name("hard_swish")), source)


def function(build: Builder, name: str, source: Value) -> Value:
    """A function of `value_functions` without options."""
    made = build.function(name, [source])
    assert made is not None  # of one value
    return made


def leaky_relu(build: Builder, source: Value, slope: float) -> Value:
    layer = keras.layers.LeakyReLU(slope, name=build.name("leaky_relu"))
    return elementwise(build, layer, source)


_ACTIVATIONS: Mapping[str, Callable[[Builder, Value], Value]] = {
    "linear": lambda build, source: source,
    "relu": lambda build, source: build.relu(source),
    "relu6": lambda build, source: build.relu(source, 6.0),
    "softmax": softmax,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "silu": _silu,
    "hard_swish": hard_swish,
    "hard_sigmoid": lambda build, x: build.relu(build.affine(x, 1 / 6, 0.5), 1.0),
    HARD_SIGMOID_FIFTH: lambda build, x: build.relu(build.affine(x, 0.2, 0.5), 1.0),
    "leaky_relu": lambda build, x: leaky_relu(build, x, 0.2),
    "mish": lambda build, x: function(build, "mish", x),
}
