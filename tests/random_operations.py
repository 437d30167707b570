"""Vocabulary of random nets: operations on tensors, in the words of either Keras."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st
from random_layers import NAMED, Draw, Shape, divisors, windows

# What the tensor {x} is written in, by the Kerases that can, and the shape of its result.
Made = tuple[dict[str, str], Shape] | None


def _spelled(tf: str, keras: str, shape: Shape) -> Made:
    return {"tf_keras": tf, "keras": keras}, shape


def _numbers(draw: Draw, *shape: int) -> str:
    """A kernel of numbers that are neither large nor all alike."""
    spread = max(1.0, float(np.prod(shape[:-1])) ** 0.5)
    made = f"np.random.default_rng({draw(st.integers(0, 9))}).normal(size={shape})"
    return f"({made} / {spread:.3g}).astype('float32')"


def _borders(draw: Draw, axes: int, most: int = 2) -> list[tuple[int, int]]:
    ends = st.integers(0, most)
    return [(draw(ends), draw(ends)) for _ in range(axes)]


def _padding(border: list[tuple[int, int]], constant: str | None = None) -> list[str]:
    """The tensor in a border, in both spellings."""
    more = "" if constant is None else f", 'constant', {constant}"
    return [f"{name}({{x}}, {border}{more})" for name in ("tf.pad", "own.ops.pad")]


def _pad(draw: Draw, shape: Shape) -> Made:
    """Zeros around an image or a signal, or along one axis of anything."""
    if len(shape) > 1 and draw(st.booleans()):
        border = [(0, 0), *_borders(draw, len(shape) - 1), (0, 0)]
    else:
        axis, border = draw(st.integers(1, len(shape))), [(0, 0)] * (len(shape) + 1)
        border[axis] = _borders(draw, 1)[0]
    larger = tuple(size + sum(pair) for size, pair in zip(shape, border[1:], strict=True))
    return _spelled(*_padding(border), larger)


def _padded_pool(draw: Draw, shape: Shape) -> Made:
    """Max pooling of a border that no window chooses."""
    axes = len(shape) - 1
    pool = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    border = [_borders(draw, 1, own - 1)[0] for own in pool]
    stride = draw(st.integers(1, 3))
    sizes = [size + sum(two) for size, two in zip(shape[:-1], border, strict=True)]
    places = windows(sizes, pool, stride, 1, "valid")
    if min(places) < 1:
        return None
    lowest = draw(st.sampled_from(["-np.inf", "-1e9", "np.float32(-65504)"]))
    own = f"layers.MaxPooling{axes}D({pool if axes > 1 else pool[0]}, {stride}, {NAMED})"
    padded = _padding([(0, 0), *border, (0, 0)], lowest)
    return _spelled(*(f"{own}({text})" for text in padded), (*places, shape[-1]))


def _pool(draw: Draw, shape: Shape) -> Made:
    sizes, kind = shape[:-1], draw(st.sampled_from(["max", "average"]))
    pool = tuple(draw(st.integers(1, min(3, size))) for size in sizes)
    stride, padding = draw(st.integers(1, 2)), draw(st.sampled_from(["valid", "same"]))
    places = windows(sizes, pool, stride, 1, padding)
    name = {"max": "max", "average": "avg"}[kind]
    tf = f"tf.nn.{name}_pool{len(sizes)}d({{x}}, {list(pool)}, {stride}, {padding.upper()!r})"
    return _spelled(
        tf, f"own.ops.{kind}_pool({{x}}, {pool}, {stride}, {padding!r})", (*places, shape[-1])
    )


def _convolution(draw: Draw, shape: Shape) -> Made:
    sizes, channels = shape[:-1], shape[-1]
    kernel = tuple(draw(st.integers(1, min(3, size))) for size in sizes)
    stride, dilation = draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
    padding = draw(st.sampled_from(["valid", "same"]))
    places = windows(sizes, kernel, stride, dilation, padding)
    if min(places) < 1:
        return None
    groups = draw(st.sampled_from(divisors(channels)))
    filters = groups * draw(st.integers(1, 4))
    numbers = _numbers(draw, *kernel, channels // groups, filters)
    tf = f"{{x}}, {numbers}, {stride}, {padding.upper()!r}, dilations={dilation}"
    keras = f"{{x}}, {numbers}, {stride}, {padding!r}, dilation_rate={dilation}"
    made = _spelled(f"tf.nn.convolution({tf})", f"own.ops.conv({keras})", (*places, filters))
    if made is not None and groups > 1:
        del made[0]["keras"]  # which refuses it
    return made


def _depthwise(draw: Draw, shape: Shape) -> Made:
    """Of images; TensorFlow has none for signals."""
    sizes, channels = shape[:-1], shape[-1]
    kernel = tuple(draw(st.integers(1, min(3, size))) for size in sizes)
    stride, padding = draw(st.integers(1, 2)), draw(st.sampled_from(["valid", "same"]))
    multiplier = draw(st.integers(1, 2))
    numbers = _numbers(draw, *kernel, channels, multiplier)
    strides = [1, stride, stride, 1]
    places = windows(sizes, kernel, stride, 1, padding)
    return _spelled(
        f"tf.nn.depthwise_conv2d({{x}}, {numbers}, {strides}, {padding.upper()!r})",
        f"own.ops.depthwise_conv({{x}}, {numbers}, {stride}, {padding!r})",
        (*places, channels * multiplier),
    )


def _blocks(draw: Draw, shape: Shape) -> Made:
    """Pixels of channels, or channels of pixels."""
    height, width, channels = shape
    block = draw(st.integers(2, 3))
    fits = [channels % block**2 == 0, height % block == width % block == 0]
    if not any(fits):
        return None
    name, result = "depth_to_space", (height * block, width * block, channels // block**2)
    if not fits[0] or (fits[1] and draw(st.booleans())):
        name, result = "space_to_depth", (height // block, width // block, channels * block**2)
    return _spelled(f"tf.nn.{name}({{x}}, {block})", f"own.ops.{name}({{x}}, {block})", result)


def _transposed(draw: Draw, shape: Shape) -> Made:
    """Of images; that of Keras 3 does not run in a model."""
    kernel, stride, filters = (draw(st.integers(1, most)) for most in (3, 2, 4))
    padding = draw(st.sampled_from(["valid", "same"]))
    longer = max(kernel - stride, 0) if padding == "valid" else 0
    sizes = [size * stride + longer for size in shape[:-1]]
    numbers = _numbers(draw, kernel, kernel, filters, shape[-1])
    tf = f"{{x}}, {numbers}, (tf.shape({{x}})[0], *{(*sizes, filters)}), {stride}"
    text = f"tf.nn.conv2d_transpose({tf}, {padding.upper()!r})"
    return {"tf_keras": text}, (*sizes, filters)


def _separable(draw: Draw, shape: Shape) -> Made:
    """Of images."""
    kernel, filters = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    depth, point = (
        _numbers(draw, *own) for own in ((kernel, kernel, shape[-1], 1), (1, 1, shape[-1], filters))
    )
    return _spelled(
        f"tf.nn.separable_conv2d({{x}}, {depth}, {point}, [1, 1, 1, 1], 'SAME')",
        f"own.ops.separable_conv({{x}}, {depth}, {point}, 1, 'same', data_format='channels_last')",
        (*shape[:-1], filters),
    )


def _product(draw: Draw, shape: Shape) -> Made:
    units = draw(st.integers(1, 6))
    numbers = _numbers(draw, shape[-1], units)
    bias = draw(st.sampled_from(["", f" + {_numbers(draw, units)}"]))
    texts = (f"({name}({{x}}, {numbers}){bias})" for name in ("tf.matmul", "own.ops.matmul"))
    return _spelled(*texts, (*shape[:-1], units))


def _reduction(draw: Draw, shape: Shape) -> Made:
    """Over height and width, or over the channels."""
    kept = draw(st.booleans())
    name = draw(st.sampled_from(["mean", "sum", "max"]))
    if name != "max" and draw(st.booleans()):
        axes, result = [len(shape)], (*shape[:-1], *([1] * kept))
    else:
        axes = list(range(1, len(shape)))
        result = (*([1] * (len(shape) - 1) * kept), shape[-1])
    options = f"{{x}}, {tuple(axes)}, keepdims={kept}"
    return _spelled(f"tf.reduce_{name}({options})", f"own.ops.{name}({options})", result)


# By names of their own; those with a number of axes are only of images.
OPERATIONS: dict[str, Callable[[Draw, Shape], Made]] = {
    "PaddedMaxPooling2D": _padded_pool,
    "PaddedMaxPooling1D": _padded_pool,
    "pad": _pad,
    "convolution 2D": _convolution,
    "convolution 1D": _convolution,
    "depthwise convolution 2D": _depthwise,
    "separable convolution 2D": _separable,
    "transposed convolution 2D": _transposed,
    "blocks 2D": _blocks,
    "pooling 2D": _pool,
    "pooling 1D": _pool,
    "reduction 2D": _reduction,
    "reduction 1D": _reduction,
    "product": _product,
}
