"""How operations on tensors (`x + 3`, `tf.reshape`, `keras.ops.mean`) are written in layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfbinreg import _compat
from tfbinreg.frontend import (
    function_rules,
    kernel_rules,
    layer_rules,
    pool_rules,
    shape_rules,
)
from tfbinreg.frontend.activation_rules import activate, softmax
from tfbinreg.frontend.builder import Builder, UnsupportedError, Value
from tfbinreg.frontend.program import Step

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
        return function_rules.divide(build, x, y)
    return build.affine(x, 1.0 / np.asarray(y, np.float64), 0.0)


def _clip(build: Builder, step: Step, x: Value, minimum: Any, maximum: Any) -> Value:
    low, high = np.asarray(minimum), np.asarray(maximum)
    if low.size == high.size == 1 and float(low) == 0.0 < float(high):
        return build.relu(x, float(high))
    return function_rules.tabled(build, "clip", x, low, high)


def _reduce(kind: str, operation: str) -> Operation:
    """A reduction over height and width, which a pooling layer of this kind does."""

    def rewrite(
        build: Builder, step: Step, x: Value, axis: Any = None, keepdims: bool = False
    ) -> Value:
        if _axes(x, axis) != list(range(1, len(x.shape) - 1)) or len(x.shape) not in (3, 4):
            what = f"{operation} over axis {axis} of shape {x.shape}"
            raise UnsupportedError((what, f"take the {operation} over height and width"))
        return layer_rules.LAYERS[kind](build, step, [x])

    return rewrite


def _axes(x: Value, axis: Any) -> list[int]:
    return sorted(a % len(x.shape) for a in np.ravel(axis)) if axis is not None else []


def _of_list(kind: str, operation: str) -> Operation:
    """A reduction of several tensors, place by place, as a layer of this kind does it."""

    def rewrite(
        build: Builder, step: Step, xs: Any, axis: Any = None, keepdims: Any = False
    ) -> Value:
        if keepdims or np.ravel(axis).tolist() != [0]:
            what = f"{operation} of a list of tensors over axis {axis}"
            raise UnsupportedError((what, "take it over axis 0"))
        return layer_rules.LAYERS[kind](build, step, list(xs))

    return rewrite


def _mean(build: Builder, step: Step, x: Value, axis: Any = None, keepdims: bool = False) -> Value:
    if _axes(x, axis) == [len(x.shape) - 1]:
        return _over_channels(build, step, x, 1.0 / (x.shape[-1] or 1))
    return _reduce("GlobalAveragePooling2D", "mean")(build, step, x, axis, keepdims)


def _over_channels(build: Builder, step: Step, x: Value, weight: float) -> Value:
    """The sum over the last axis times a number: a convolution whose weights stay as they are."""
    layer = keras.layers.Conv2D(1, 1, use_bias=False, name=build.name("sum"))
    kernel = np.full((1, 1, x.shape[-1] or 0, 1), weight, np.float32)
    output = Value((*x.shape[:-1], 1), build.call(layer, build.image(x), [kernel]))
    layer.trainable = False
    if len(step.shape) == len(x.shape):
        return output
    named = dataclasses.replace(step, name=build.name("reshape"))
    return layer_rules.LAYERS["Reshape"](build, named, [output])


def _sum(build: Builder, step: Step, x: Value, axis: Any = None, keepdims: bool = False) -> Value:
    """Over height and width as many means."""
    if _axes(x, axis) == [len(x.shape) - 1]:
        return _over_channels(build, step, x, 1.0)
    count = np.prod([size or 0 for size in x.shape[1:-1]], dtype=np.int64)
    if not count:
        what = f"sum over unknown sizes of shape {x.shape}"
        raise UnsupportedError((what, "fix the model's input shape, or take the mean"))
    named = dataclasses.replace(step, name=build.part_name("mean"))
    mean = _reduce("GlobalAveragePooling2D", "sum")(build, named, x, axis, keepdims)
    return build.affine(mean, float(count), 0.0)


def _concatenate(build: Builder, step: Step, xs: Any, axis: Any = -1) -> Value:
    if int(axis) % len(step.shape) == 0:
        raise UnsupportedError(("axis=0", "concatenate another axis than the batch"))
    return layer_rules.concatenate(build, list(xs), int(axis), step.shape)


def _activation(name: str) -> Operation:
    def rewrite(build: Builder, step: Step, x: Value, **_: Any) -> Value:
        return activate(build, name, x)

    return rewrite


def _softmax(build: Builder, step: Step, x: Value, axis: Any = -1) -> Value:
    axes = np.ravel(-1 if axis is None else axis)
    if len(axes) != 1 or axes[0] % len(x.shape) == 0:
        raise UnsupportedError((f"axis={axis}", "take the softmax over one axis but the batch"))
    return softmax(build, x, axes[0])


def _extreme(kind: str) -> Operation:
    """The larger or the smaller of two tensors; of one and what is computed from it, a table."""
    name = kind.lower()

    def rewrite(build: Builder, step: Step, *args: Any, **kwargs: Any) -> Value:
        operands = function_rules.operands(name, args, kwargs)
        values = [own for own in operands if isinstance(own, Value)]
        if len(values) < 2:
            return function_rules.tabled(build, name, *operands)
        return build.function(name, operands) or _merge(build, step, kind, *values)

    return rewrite


def _transpose(build: Builder, step: Step, x: Value, perm: Any = None, *_: Any, **__: Any) -> Value:
    order = [int(axis) % len(x.shape) for axis in np.ravel(perm)] if perm is not None else [1]
    if order[0] != 0:
        what = f"transpose to {order if perm is not None else 'the reverse order'}"
        raise UnsupportedError((what, "leave the batch where it is"))
    return layer_rules.permute(build, step, x, order)


def _leaky_relu(build: Builder, step: Step, x: Value, negative_slope: float = 0.2) -> Value:
    layer = keras.layers.LeakyReLU(float(negative_slope), name=step.name)
    return Value(step.shape, build.call(layer, build.tensor(x)))


def operate(build: Builder, step: Step, args: Any, kwargs: Any) -> Value:
    """The result of an operation.

    Raises:
        UnsupportedError: if it cannot be rewritten.
    """
    if shape_rules.of_sizes((args, kwargs)):
        return shape_rules.Sizes(step.shape)
    name = step.operation or ""
    if args and isinstance(args[0], (list, tuple)) and name not in _OF_LISTS:
        if name not in _REDUCTIONS:
            what = f"{name} of a list of tensors"
            raise UnsupportedError((what, "concatenate or add them first"))
        return _REDUCTIONS[name](build, step, *args, **kwargs)
    extended = function_rules.extended(build, name, args, kwargs)
    return extended or OPERATIONS[name](build, step, *args, **kwargs)


_OF_LISTS = ("concatenate", "stack")
_REDUCTIONS: Mapping[str, Operation] = {
    "mean": _of_list("Average", "mean"),
    "max": _of_list("Maximum", "max"),
    "sum": _of_list("Add", "sum"),
}
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
    "concatenate": _concatenate,
    "mean": _mean,
    "max": _reduce("GlobalMaxPooling2D", "max"),
    "sum": _sum,
    "identity": lambda build, step, x: x,
    **function_rules.OPERATIONS,
    "maximum": _extreme("Maximum"),
    "minimum": _extreme("Minimum"),
    "transpose": _transpose,
    **kernel_rules.OPERATIONS,
    **pool_rules.OPERATIONS,
    **shape_rules.OPERATIONS,
}
