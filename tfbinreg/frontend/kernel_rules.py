"""How operations with a constant kernel (`tf.nn.conv2d(x, w)`, `x @ w`) are written in layers.

The layers of others compute their kernels as they like, a standardized one from a raw one for
example. What is read is the kernel as it is at inference: from there on it is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfbinreg import _compat
from tfbinreg.frontend.builder import Builder, UnsupportedError, Value
from tfbinreg.frontend.pool_rules import along
from tfbinreg.frontend.program import Step

keras = _compat.keras

_NO_PRODUCTS = (
    "it has no exact form: take convolutions, pooling, and gates (squeeze and excitation by "
    "Multiply)"
)


def _constant(kernel: Any, what: str, axes: int) -> np.ndarray:
    """A kernel as numbers.

    Raises:
        UnsupportedError: if it is computed from inputs, or no layer can start from it.
    """
    if isinstance(kernel, Value):
        raise UnsupportedError((f"{what} of two tensors", _NO_PRODUCTS))
    numbers = np.asarray(kernel, np.float32)
    if numbers.ndim != axes:
        what = f"{what} with a constant of shape {numbers.shape}"
        raise UnsupportedError((what, f"use one of {axes} axes"))
    if not np.all(np.isfinite(numbers)):
        raise UnsupportedError((f"{what} with NaN or infinite values", "train or load it again"))
    if not np.any(numbers):
        raise UnsupportedError((f"{what} with zeros only", "train it first, or remove the layer"))
    return numbers


def _window(
    build: Builder,
    x: Value,
    what: str,
    strides: Any,
    padding: Any,
    data_format: Any,
    dilations: Any,
) -> tuple[Any, dict[str, Any]]:
    """The image of a convolution, and options of its layer."""
    axes = len(x.shape) - 2
    if axes not in (1, 2) or str(data_format).startswith(("NC", "channels_first")):
        what = f"{what} of shape {x.shape} with data format {data_format}"
        raise UnsupportedError((what, "give it an image or a signal, channels last"))
    if not isinstance(padding, str):
        raise UnsupportedError((f"{what} with padding {padding}", "use 'valid' or 'same'"))
    options = {
        "strides": along(strides, axes),
        "dilation_rate": along(dilations, axes),
        "padding": padding.lower(),
        "use_bias": False,
        "name": build.step.name,
    }
    return build.image(x), options


def _convolution(
    build: Builder,
    step: Step,
    x: Value,
    filters: Any,
    strides: Any = None,
    padding: Any = "valid",
    data_format: Any = None,
    dilations: Any = None,
    *_: Any,
    **__: Any,
) -> Value:
    what = "convolution"
    kernel = _constant(filters, what, len(x.shape))
    image, options = _window(build, x, what, strides, padding, data_format, dilations)
    if kernel.ndim == 3:
        kernel = kernel[None]
    groups = (x.shape[-1] or 0) // kernel.shape[2]
    layer = keras.layers.Conv2D(kernel.shape[3], kernel.shape[:2], groups=groups, **options)
    return Value(step.shape, build.call(layer, image, [kernel]))


def _depthwise(
    build: Builder,
    step: Step,
    x: Value,
    filters: Any,
    strides: Any = None,
    padding: Any = "valid",
    data_format: Any = None,
    dilations: Any = None,
    *_: Any,
    rate: Any = None,
    **__: Any,
) -> Value:
    """`tf.nn.depthwise_conv2d` and Keras 3's `depthwise_conv`."""
    what = "depthwise convolution"
    kernel = _constant(filters, what, len(x.shape))
    image, options = _window(build, x, what, strides, padding, data_format, rate or dilations)
    if kernel.ndim == 3:
        kernel = kernel[None]
        options["strides"] = options["strides"][1:] * 2  # Keras has one for both axes
    layer = keras.layers.DepthwiseConv2D(
        kernel.shape[:2], depth_multiplier=kernel.shape[3], **options
    )
    return Value(step.shape, build.call(layer, image, [kernel]))


def _matmul(build: Builder, step: Step, *args: Any, **kwargs: Any) -> Value:
    """x @ kernel: a layer at every position."""
    named = [kwargs[key] for key in ("a", "x", "x1", "b", "y", "x2") if key in kwargs]
    x, other = [*args, *named][:2]
    turned = kwargs.get("transpose_b", args[3] if len(args) > 3 else False)
    if kwargs.get("transpose_a", args[2] if len(args) > 2 else False) or not isinstance(x, Value):
        what = "product with a constant from the left"
        raise UnsupportedError((what, "take Dense, which works along the last axis"))
    kernel = _constant(other, "product", 2)
    kernel = kernel.T if turned else kernel
    if len(step.shape) == 2:
        layer = keras.layers.Dense(kernel.shape[1], use_bias=False, name=step.name)
        return Value(step.shape, build.call(layer, build.plain(x), [kernel]))
    layer = keras.layers.Conv2D(kernel.shape[1], 1, use_bias=False, name=step.name)
    return Value(step.shape, build.call(layer, build.image(x), [kernel[None, None]]))


def _bias_add(build: Builder, step: Step, x: Value, bias: Any, *_: Any, **__: Any) -> Value:
    return build.affine(x, 1.0, bias)


OPERATIONS: Mapping[str, Callable[..., Value]] = {
    "convolution": _convolution,
    "depthwise_convolution": _depthwise,
    "matmul": _matmul,
    "bias_add": _bias_add,
}
