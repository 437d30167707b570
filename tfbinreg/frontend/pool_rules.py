"""How pooling is written in layers, and padding with -inf, which is a part of max pooling."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfbinreg import _compat
from tfbinreg.frontend.builder import Builder, Padded, UnsupportedError, Value
from tfbinreg.frontend.program import Step
from tfbinreg.network.added_layers import PaddedMaxPooling2D

keras = _compat.keras

Rewrite = Callable[[Builder, Step, list[Value]], Value]
Pair = tuple[int, int]
Border = tuple[Pair, Pair]  # rows above and below, columns before and behind
_NO_BORDER: Border = ((0, 0), (0, 0))

# What people pad with for want of -inf is -1e9, or the least number of 16 bits.
_LOW = -1e4


def pad_below(
    build: Builder, step: Step, x: Value, pads: np.ndarray, constant: float
) -> Value | None:
    """`x` in a border of a constant that none of its numbers is below; None if some may be.

    Raises:
        UnsupportedError: if other axes than those of an image or a signal are padded.
    """
    if not (constant <= _LOW or constant <= build.lower_bound(x)):  # of NaN neither
        return None
    if len(x.shape) not in (3, 4) or np.any(pads[-1]):
        what = f"padding by {pads.tolist()} of shape {x.shape} with {constant}"
        raise UnsupportedError((what, "pad height and width alone"))
    if not np.any(pads):
        return x
    return Padded(step.shape, source=x, margins=both_ends(pads[1:-1]))


@dataclasses.dataclass(frozen=True)
class _Window:
    """How an image is pooled; `padding` is a name, or the rows and columns of a border."""

    pool: Pair
    strides: Pair
    padding: str | Border

    def border(self, sizes: Sequence[int | None]) -> Border:
        """What the padding is around an image of these sizes.

        Raises:
            UnsupportedError: if it depends on a size that is open.
        """
        if not isinstance(self.padding, str):
            return self.padding
        if self.padding == "valid":
            return _NO_BORDER
        if None in sizes:
            what = f"padding with -inf of an image of sizes {tuple(sizes)} before 'same' pooling"
            raise UnsupportedError((what, "fix the model's input shape"))
        return _same(sizes, self.pool, self.strides)


def _same(sizes: Sequence[Any], pool: Pair, strides: Pair) -> Border:
    """The border that padding 'same' puts around an image."""
    totals = [
        max((-(-size // stride) - 1) * stride + window - size, 0)
        for size, window, stride in zip(sizes, pool, strides, strict=True)
    ]
    above, before = ((total // 2, total - total // 2) for total in totals)
    return above, before


def along(sizes: Any, axes: int) -> Pair:
    """Sizes of windows, strides or dilations along height and width; of signals, along a height of
    1 too."""
    numbers = [int(size) for size in np.ravel(1 if sizes is None else sizes)]
    if len(numbers) == axes + 2:  # of batch and channels too
        numbers = numbers[1:-1]
    numbers = numbers * axes if len(numbers) == 1 else numbers
    height, width = (1,) * (2 - axes) + tuple(numbers)
    return height, width


def both_ends(margins: Iterable[Iterable[Any]]) -> Border:
    """Rows and columns at either end of an image; of a signal, along a height of 1 too."""
    above, before = [(0, 0), *((int(a), int(b)) for a, b in margins)][-2:]
    return above, before


def _average(build: Builder, step: Step, x: Value, window: _Window) -> Value:
    """Over the whole image it is a mean."""
    image = build.image(x)
    sizes = tuple(image.shape[1:3])
    if len(x.shape) == 4 and window.pool == sizes and tuple(step.shape[1:3]) == (1, 1):
        return global_average(build, step, [x])
    layer = keras.layers.AveragePooling2D(
        window.pool, window.strides, window.padding, name=step.name
    )
    return Value(step.shape, build.call(layer, image))


def _max(build: Builder, step: Step, x: Value, window: _Window) -> Value:
    """Of a tensor in a border, with a border of its own or not."""
    padding = window.padding
    image = build.image(x.source if isinstance(x, Padded) else x)
    if isinstance(x, Padded) or not isinstance(padding, str):
        outer = x.margins if isinstance(x, Padded) else _NO_BORDER
        sizes = image.shape[1:3]
        padded = [
            None if size is None else size + sum(pair)
            for size, pair in zip(sizes, outer, strict=True)
        ]
        (a, b), (c, d) = outer
        (e, f), (g, h) = window.border(padded)
        border = ((a + e, b + f), (c + g, d + h))
        if border == _NO_BORDER:
            padding = "valid"
        elif None not in sizes and border == _same(sizes, window.pool, window.strides):
            padding = "same"
        else:
            return _bordered(build, step, image, window, border)
    layer = keras.layers.MaxPooling2D(window.pool, window.strides, padding, name=step.name)
    return Value(step.shape, build.call(layer, image))


def _bordered(build: Builder, step: Step, image: Any, window: _Window, border: Border) -> Value:
    if any(max(pair) >= size for pair, size in zip(border, window.pool, strict=True)):
        what = f"max pooling of {window.pool} with a border of {border}, which a window fits into"
        raise UnsupportedError((what, "pad with fewer rows and columns than a window has"))
    layer = PaddedMaxPooling2D(window.pool, window.strides, border, name=step.name)
    return Value(step.shape, build.call(layer, image))


def _of_layer(pooled: Callable[..., Value]) -> Rewrite:
    def rewrite(build: Builder, step: Step, values: list[Value]) -> Value:
        layer = step.layer
        axes = np.size(layer.pool_size)
        pool, strides = (along(own, axes) for own in (layer.pool_size, layer.strides))
        return pooled(build, step, values[0], _Window(pool, strides, layer.padding))

    return rewrite


def _operation(pooled: Callable[..., Value], name: str) -> Callable[..., Value]:
    """`tf.nn.max_pool2d`, `keras.ops.max_pool` and those of averages."""

    def rewrite(
        build: Builder,
        step: Step,
        x: Value,
        pool_size: Any,
        strides: Any = None,
        padding: Any = "valid",
        data_format: Any = None,
        *_: Any,
        **__: Any,
    ) -> Value:
        axes = len(x.shape) - 2
        if axes not in (1, 2) or str(data_format).startswith(("NC", "channels_first")):
            what = f"{name} of shape {x.shape} with data format {data_format}"
            raise UnsupportedError((what, "give it an image or a signal, channels last"))
        padding = padding.lower() if isinstance(padding, str) else both_ends(padding[1:-1])
        pool = along(pool_size, axes)
        strides = pool if strides is None else along(strides, axes)
        return pooled(build, step, x, _Window(pool, strides, padding))

    return rewrite


def _global(layer_class: Any) -> Rewrite:
    """A pooling over the whole image; the rank of the result tells whether its axes stay."""

    def rewrite(build: Builder, step: Step, values: list[Value]) -> Value:
        (x,) = values
        image = build.image(x.source if isinstance(x, Padded) else x)
        layer = layer_class(keepdims=len(step.shape) > 2, name=step.name)
        return Value(step.shape, build.call(layer, image))

    return rewrite


global_average = _global(keras.layers.GlobalAveragePooling2D)
global_maximum = _global(keras.layers.GlobalMaxPooling2D)
average_layer, max_layer = _of_layer(_average), _of_layer(_max)
OPERATIONS: Mapping[str, Callable[..., Value]] = {
    "average_pool": _operation(_average, "average pooling"),
    "max_pool": _operation(_max, "max pooling"),
}
