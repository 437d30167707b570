"""How operations on tensors (`x + 3`, `tf.reshape`, `keras.ops.mean`) are written in layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfbinreg import _compat
from tfbinreg.frontend import layer_rules
from tfbinreg.frontend.builder import Builder, UnsupportedError, Value
from tfbinreg.frontend.program import Step
from tfbinreg.network.added_layers import Slice

keras = _compat.keras

# Arguments are values of the model (`Value`) or constants.
Operation = Callable[..., Value]


def _split(x: Any, y: Any) -> tuple[bool, bool]:
    return isinstance(x, Value), isinstance(y, Value)


def _add(build: Builder, step: Step, x: Any, y: Any) -> Value:
    if _split(x, y) == (True, True):
        return _merge(build, step, "Add", x, y)
    return build.affine(x, 1.0, y) if isinstance(x, Value) else build.affine(y, 1.0, x)


def _subtract(build: Builder, step: Step, x: Any, y: Any) -> Value:
    if _split(x, y) == (True, True):
        return _merge(build, step, "Subtract", x, y)
    if isinstance(x, Value):
        return build.affine(x, 1.0, -np.asarray(y, np.float64))
    return build.affine(y, -1.0, x)


def _multiply(build: Builder, step: Step, x: Any, y: Any) -> Value:
    if _split(x, y) == (True, True):
        return _merge(build, step, "Multiply", x, y)
    return build.affine(x, y, 0.0) if isinstance(x, Value) else build.affine(y, x, 0.0)


def _merge(build: Builder, step: Step, kind: str, x: Value, y: Value) -> Value:
    if len(x.shape) != len(y.shape):
        raise UnsupportedError(
            (f"tensors of shapes {x.shape} and {y.shape}", "give them the same rank")
        )
    return layer_rules.LAYERS[kind](build, step, [x, y])


def _divide(build: Builder, step: Step, x: Any, y: Any) -> Value:
    if isinstance(y, Value):
        raise UnsupportedError(("division by a tensor", "divide by a constant"))
    return build.affine(x, 1.0 / np.asarray(y, np.float64), 0.0)


def _clip(build: Builder, step: Step, x: Value, minimum: Any, maximum: Any) -> Value:
    low, high = np.asarray(minimum), np.asarray(maximum)
    if low.size != 1 or high.size != 1 or float(low) != 0.0 or float(high) <= 0.0:
        raise UnsupportedError(("clip that does not start at 0", "use a ReLU with max_value"))
    return build.relu(x, float(high))


def _mean(build: Builder, step: Step, x: Value, axis: Any = None, keepdims: bool = False) -> Value:
    axes = sorted(a % len(x.shape) for a in np.ravel(axis)) if axis is not None else []
    if axes != list(range(1, len(x.shape) - 1)) or len(x.shape) not in (3, 4):
        what = f"mean over axis {axis} of shape {x.shape}"
        raise UnsupportedError((what, "take the mean over height and width"))
    layer = keras.layers.GlobalAveragePooling2D(keepdims=bool(keepdims), name=step.name)
    return Value(step.shape, build.call(layer, build.image(x)))


def _concatenate(build: Builder, step: Step, xs: Any, axis: Any = -1) -> Value:
    if int(axis) not in (-1, len(step.shape) - 1):
        raise UnsupportedError((f"axis={axis}", "concatenate the last axis"))
    return layer_rules.LAYERS["Concatenate"](build, step, list(xs))


def _slice(part: Any) -> Any:
    """A slice as such: tf_keras keeps it as a dict."""
    return slice(part["start"], part["stop"], part["step"]) if isinstance(part, dict) else part


def _getitem(build: Builder, step: Step, x: Value, key: Any) -> Value:
    parts = [_slice(part) for part in (key if isinstance(key, (list, tuple)) else [key])]
    dots = [index for index, part in enumerate(parts) if part is Ellipsis]
    for at in dots:  # at most one
        parts[at : at + 1] = [slice(None)] * (len(x.shape) - len(parts) + 1)
    parts += [slice(None)] * (len(x.shape) - len(parts))
    remedy = "slice with ranges, and leave the batch alone"
    if len(parts) != len(x.shape) or not all(isinstance(part, slice) for part in parts):
        raise UnsupportedError((f"index {key}", remedy))
    if parts[0] != slice(None) or None in x.shape[1:]:
        raise UnsupportedError((f"index {key}", remedy))
    sizes = zip(parts[1:], x.shape[1:], strict=True)
    ranges = [part.indices(size or 0) for part, size in sizes]
    if any(stride < 1 for _, _, stride in ranges):
        raise UnsupportedError(("slice that runs backwards", remedy))
    begin, end, strides = zip(*ranges, strict=True)
    layer = Slice(begin, end, strides, name=step.name)
    return Value(step.shape, build.call(layer, build.plain(x)))


def _reshape(build: Builder, step: Step, x: Value, *_: Any, **__: Any) -> Value:
    return layer_rules.LAYERS["Reshape"](build, step, [x])


def _activation(name: str) -> Operation:
    def rewrite(build: Builder, step: Step, x: Value, **_: Any) -> Value:
        return layer_rules.activate(build, name, x)

    return rewrite


def _softmax(build: Builder, step: Step, x: Value, axis: Any = -1) -> Value:
    if axis not in (None, -1, len(x.shape) - 1):
        raise UnsupportedError((f"axis={axis}", "take the softmax over the last axis"))
    return layer_rules.activate(build, "softmax", x)


def _leaky_relu(build: Builder, step: Step, x: Value, negative_slope: float = 0.2) -> Value:
    layer = keras.layers.LeakyReLU(float(negative_slope), name=step.name)
    return Value(step.shape, build.call(layer, build.tensor(x)))


OPERATIONS: Mapping[str, Operation] = {
    "affine": lambda build, step, x, *, scale, offset: build.affine(x, scale, offset),
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "divide": _divide,
    "negative": lambda build, step, x: build.affine(x, -1.0, 0.0),
    "relu": _activation("relu"),
    "relu6": _activation("relu6"),
    "leaky_relu": _leaky_relu,
    "silu": _activation("silu"),
    "hard_swish": _activation("hard_swish"),
    "hard_sigmoid": _activation("hard_sigmoid"),
    "sigmoid": _activation("sigmoid"),
    "tanh": _activation("tanh"),
    "softmax": _softmax,
    "clip": _clip,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "concatenate": _concatenate,
    "mean": _mean,
    "identity": lambda build, step, x: x,
    "getitem": _getitem,
}
