"""How operations with a constant kernel (`tf.nn.conv2d(x, w)`, `x @ w`) are written in layers.

The layers of others compute their kernels as they like, a standardized one from a raw one for
example. What is read is the kernel as it is at inference: from there on it is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfbinreg import _compat
from tfbinreg.frontend.builder import Builder, Unfinished, UnsupportedError, Value
from tfbinreg.frontend.pool_rules import along, both_ends
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


def _filters(kernel: Any, what: str, x: Value) -> np.ndarray:
    """The kernel over the images, or signals, of `x` as numbers; of signals, with a height of 1."""
    numbers = _constant(kernel, what, len(x.shape))
    return numbers[None] if numbers.ndim == 3 else numbers


def _window(
    build: Builder,
    step: Step,
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
    options: dict[str, Any] = {
        "strides": along(strides, axes),
        "dilation_rate": along(dilations, axes),
        "padding": padding.lower(),
        "use_bias": False,
        "name": step.name,
    }
    if all(max(options[name]) > 1 for name in ("strides", "dilation_rate")):
        raise UnsupportedError((f"{what} with strides and dilations", "use one of them"))
    return build.image(x), options


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Interleaved(Unfinished):
    """Every so many rows and columns of `source` as a sample of its own; with a kernel, what it
    makes of them. TensorFlow computes dilated convolutions so.

    Attributes:
        block: how many rows and columns there are from one of a sample to the next.
        kernel: None in front of the convolution.
    """

    block: tuple[int, int]
    kernel: np.ndarray | None = None
    readers = ("batch_to_space", "convolution", "shape")
    problem = (
        "a part of space_to_batch_nd, convolution and batch_to_space_nd",
        "take all three of them, with one convolution of stride 1 and no padding, or a dilation",
    )


def _space_to_batch(
    build: Builder, step: Step, x: Value, block_shape: Any, paddings: Any, *_: Any, **__: Any
) -> Value:
    axes = len(x.shape) - 2
    block, margins = (_numbers(own) for own in (block_shape, paddings))
    if axes not in (1, 2) or block.shape != (axes,) or margins.shape != (axes, 2):
        what = f"space_to_batch_nd of shape {x.shape}"
        raise UnsupportedError((what, "take a convolution with a dilation"))
    return _Interleaved(step.shape, source=x, margins=both_ends(margins), block=along(block, axes))


def _numbers(constant: Any) -> np.ndarray:
    if isinstance(constant, Value):
        what = "space_to_batch_nd or batch_to_space_nd of open sizes"
        raise UnsupportedError((what, "fix the model's input shape"))
    return np.asarray(constant)


def _batch_to_space(
    build: Builder, step: Step, x: Value, block_shape: Any, crops: Any, *_: Any, **__: Any
) -> Value:
    """The end of a dilated convolution: its layer."""
    if not isinstance(x, _Interleaved) or x.kernel is None:
        what = "batch_to_space_nd of anything but a convolution behind space_to_batch_nd"
        raise UnsupportedError((what, _Interleaved.problem[1]))
    axes = len(x.source.shape) - 2
    block, cut = along(_numbers(block_shape), axes), both_ends(_numbers(crops))
    image, kernel = build.image(x.source), x.kernel
    margins = tuple((a - c, b - d) for (a, b), (c, d) in zip(x.margins, cut, strict=True))
    if block != x.block or min(map(min, margins)) < 0:
        raise UnsupportedError((f"batch_to_space_nd with crops {cut}", _Interleaved.problem[1]))
    totals = [(size - 1) * own for size, own in zip(kernel.shape[:2], block, strict=True)]
    padding = "valid"
    if any(map(any, margins)):
        padding = "same"
        if margins != tuple((total // 2, total - total // 2) for total in totals):
            padding = "valid"
            pad = keras.layers.ZeroPadding2D(margins, name=build.part_name("pad"))
            image = build.call(pad, image)
    options = {"dilation_rate": block, "padding": padding, "use_bias": False, "name": step.name}
    return _convolved(build, step, x.source, image, kernel, options)


def _convolved(
    build: Builder, step: Step, x: Value, image: Any, kernel: np.ndarray, options: dict[str, Any]
) -> Value:
    """The convolution of `x`, whose image is given, in as many groups as the kernel is for."""
    groups = (x.shape[-1] or 0) // kernel.shape[2]
    layer = keras.layers.Conv2D(kernel.shape[3], kernel.shape[:2], groups=groups, **options)
    return Value(step.shape, build.call(layer, image, [kernel]))


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
    kernel = _filters(filters, what, x)
    if isinstance(x, _Interleaved):
        numbers = (np.ravel(1 if own is None else own) for own in (strides, dilations))
        if any(np.any(own != 1) for own in numbers) or str(padding).lower() != "valid":
            raise UnsupportedError((f"it reads {x.problem[0]}", x.problem[1]))
        return dataclasses.replace(x, shape=step.shape, kernel=kernel)
    image, options = _window(build, step, x, what, strides, padding, data_format, dilations)
    return _convolved(build, step, x, image, kernel, options)


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
    kernel = _filters(filters, what, x)
    image, options = _window(build, step, x, what, strides, padding, data_format, rate or dilations)
    if len(x.shape) == 3:
        options["strides"] = options["strides"][1:] * 2  # Keras has one for both axes
    layer = keras.layers.DepthwiseConv2D(
        kernel.shape[:2], depth_multiplier=kernel.shape[3], **options
    )
    return Value(step.shape, build.call(layer, image, [kernel]))


def _separable(
    build: Builder,
    step: Step,
    x: Value,
    depthwise_filter: Any,
    pointwise_filter: Any,
    strides: Any = None,
    padding: Any = "valid",
    data_format: Any = None,
    dilations: Any = None,
    *_: Any,
    rate: Any = None,
    **__: Any,
) -> Value:
    """`tf.nn.separable_conv2d` and Keras 3's `separable_conv`: a depthwise convolution, and one of
    a pixel."""
    kernel = _constant(depthwise_filter, "depthwise convolution", len(x.shape))
    shape = (*step.shape[:-1], kernel.shape[-1] * kernel.shape[-2])
    first = dataclasses.replace(step, name=build.part_name("depthwise"), shape=shape)
    middle = _depthwise(
        build, first, x, kernel, strides, padding, data_format, dilations, rate=rate
    )
    return _convolution(build, step, middle, pointwise_filter)


def _transposed(
    build: Builder,
    step: Step,
    x: Value,
    filters: Any,
    output_shape: Any = None,
    strides: Any = 1,
    padding: Any = "SAME",
    data_format: Any = None,
    dilations: Any = None,
    *_: Any,
    **__: Any,
) -> Value:
    """`tf.nn.conv2d_transpose`, to the sizes that a layer makes. (Keras 3's `conv_transpose` does
    not run in a model of Keras 3.15: it takes one argument for another.)"""
    what = "transposed convolution"
    kernel = _filters(filters, what, x)
    image, options = _window(build, step, x, what, strides, padding, data_format, dilations)
    if set(options["dilation_rate"]) != {1}:
        raise UnsupportedError((f"{what} with dilations", "use a dilation of 1"))
    layer = keras.layers.Conv2DTranspose(kernel.shape[2], kernel.shape[:2], **options)
    made = tuple(layer.compute_output_shape(image.shape))
    if made[4 - len(step.shape) + 1 :] != tuple(step.shape[1:]):
        what = f"{what} from {tuple(x.shape)} to {tuple(step.shape)}"
        raise UnsupportedError((what, f"make it {made}, and crop or pad afterwards"))
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
    "batch_to_space": _batch_to_space,
    "convolution": _convolution,
    "depthwise_convolution": _depthwise,
    "matmul": _matmul,
    "bias_add": _bias_add,
    "separable_convolution": _separable,
    "space_to_batch": _space_to_batch,
    "transposed_convolution": _transposed,
}
