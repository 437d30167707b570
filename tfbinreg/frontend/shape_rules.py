"""How operations that move numbers (`x[:, 1:]`, `tf.split`, `tf.pad`) are written in layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfbinreg import _compat
from tfbinreg.frontend import layer_rules
from tfbinreg.frontend.builder import Builder, UnsupportedError, Value
from tfbinreg.frontend.operation_names import ASPECTS
from tfbinreg.frontend.pool_rules import both_ends, pad_below
from tfbinreg.frontend.program import Shape, Step, replaced
from tfbinreg.network.added_layers import ResizeBilinear, Slice

keras = _compat.keras

_RANGES = "slice with ranges or single indices, and leave the batch alone"


@dataclasses.dataclass(frozen=True, eq=False)
class Sizes(Value):
    """What `tf.shape` gives, or a part of it: no numbers of the model, but what a reshape takes."""


def of_sizes(arguments: Any) -> bool:
    """Whether all values in arguments are sizes of tensors: then the result is one too."""
    found: list[Any] = []
    replaced(arguments, found.append)
    values = [value for value in found if isinstance(value, Value)]
    return bool(values) and all(isinstance(value, Sizes) for value in values)


def _reshape(build: Builder, step: Step, x: Value, *_: Any, **__: Any) -> Value:
    return layer_rules.LAYERS["Reshape"](build, step, [x])


def _shape(build: Builder, step: Step, x: Value, *_: Any, **__: Any) -> Value:
    return Sizes(step.shape)


def _stack(build: Builder, step: Step, *_: Any, **__: Any) -> Value:
    raise UnsupportedError(("stack of tensors", "concatenate the last axis"))


def _slice(part: Any) -> Any:
    """A slice as such: tf_keras keeps it as a dict."""
    return slice(part["start"], part["stop"], part["step"]) if isinstance(part, dict) else part


def _getitem(build: Builder, step: Step, x: Value, key: Any) -> Value:
    parts = [_slice(part) for part in (key if isinstance(key, (list, tuple)) else [key])]
    given = sum(part is not None for part in parts)
    dots = [index for index, part in enumerate(parts) if part is Ellipsis]
    for at in dots:  # at most one
        parts[at : at + 1] = [slice(None)] * (len(x.shape) - given + 1)
    # New axes and those of single indices are a matter of the shape.
    parts = [part for part in parts if part is not None]
    parts += [slice(None)] * (len(x.shape) - len(parts))
    parts = [slice(p, p + 1 or None) if isinstance(p, (int, np.integer)) else p for p in parts]
    if len(parts) != len(x.shape) or not all(isinstance(part, slice) for part in parts):
        raise UnsupportedError((f"index {_text(key)}", _RANGES))
    if parts[0] != slice(None) or len(step.shape) < 2:
        raise UnsupportedError((f"index {_text(key)}", _RANGES))
    return _part(build, step, x, parts)


def _text(key: Any) -> str:
    """An index as it was written."""
    if not isinstance(key, (list, tuple)):
        key = [key]
    return ", ".join(_index_text(_slice(part)) for part in key)


def _index_text(part: Any) -> str:
    if part is Ellipsis:
        return "..."
    if not isinstance(part, slice):
        return "a tensor" if isinstance(part, Value) else repr(part)
    ends = ("" if end is None else _index_text(end) for end in (part.start, part.stop))
    return ":".join(ends) + ("" if part.step is None else f":{_index_text(part.step)}")


def _part(build: Builder, step: Step, x: Value, parts: Sequence[slice]) -> Value:
    """What slices, one for each axis, leave of x, in the shape of the step."""
    ends = [end for part in parts for end in (part.start, part.stop, part.step)]
    numbers = all(end is None or isinstance(end, (int, np.integer)) for end in ends)
    pairs = list(zip(parts[1:], x.shape[1:], strict=True))
    if not numbers or any(size is None and part != slice(None) for part, size in pairs):
        what = f"index {_text(parts)} of a tensor of shape {x.shape}"
        raise UnsupportedError((what, "use numbers, and fix the model's input shape"))
    ranges = [(0, None, 1) if size is None else part.indices(size) for part, size in pairs]
    if any(stride < 1 for _, _, stride in ranges):
        raise UnsupportedError(("slice that runs backwards", _RANGES))
    sizes = tuple(None if end is None else len(range(*(b, end, s))) for b, end, s in ranges)
    if 0 in sizes:
        raise UnsupportedError((f"index {_text(parts)} of shape {x.shape}", "keep something"))
    if sizes == tuple(x.shape[1:]):
        part = x
    else:
        part = Value((x.shape[0], *sizes), _cut(build, x, ranges, sizes))
    if tuple(step.shape) == part.shape:
        return part
    named = dataclasses.replace(step, name=build.name("reshape"))
    return layer_rules.LAYERS["Reshape"](build, named, [part])


def _cut(
    build: Builder,
    x: Value,
    ranges: Sequence[tuple[int, int | None, int]],
    sizes: Sequence[int | None],
) -> Any:
    """A Slice, which TFLM has for a few axes: of more, neighbours that stay whole are one."""
    tensor, most = build.plain(x), layer_rules.MOST_AXES - 1
    if len(ranges) > most:
        groups: list[list[int]] = []
        whole = [part == (0, size, 1) for part, size in zip(ranges, x.shape[1:], strict=True)]
        for axis in range(len(ranges)):
            joins = axis > 0 and whole[axis] and whole[axis - 1]
            groups = [*groups[:-1], [*groups[-1], axis]] if joins else [*groups, [axis]]
        if len(groups) > most or None in x.shape[1:]:
            what = f"slice of axes {[axis + 1 for axis in range(len(whole)) if not whole[axis]]}"
            what += f" of shape {x.shape}"
            raise UnsupportedError((what, f"slice tensors of {most + 1} axes at most"))
        joined = [math.prod(x.shape[1 + axis] or 0 for axis in group) for group in groups]
        ranges = [
            ranges[group[0]] if not whole[group[0]] else (0, size, 1)
            for group, size in zip(groups, joined, strict=True)
        ]
        layer = keras.layers.Reshape(joined, name=build.part_name("joined"))
        tensor = build.call(layer, tensor)
    layer = Slice(*zip(*ranges, strict=True), name=build.name("slice"))
    tensor = build.call(layer, tensor)
    if len(ranges) == len(sizes):
        return tensor
    return build.call(keras.layers.Reshape(sizes, name=build.part_name("apart")), tensor)


def _split(
    build: Builder,
    step: Step,
    x: Value,
    _sections: Any = None,
    axis: Any = 0,
    *_: Any,
    before: Sequence[Shape],
    **__: Any,
) -> Value:
    """One part of `tf.split`; `before` are the shapes of those in front of it."""
    axis = int(axis) % len(x.shape)
    size = step.shape[axis]
    if axis == 0 or size is None or any(shape[axis] is None for shape in before):
        raise UnsupportedError((f"split of axis {axis} of shape {x.shape}", "split another axis"))
    begin = sum(shape[axis] or 0 for shape in before)
    parts = [slice(None)] * len(x.shape)
    parts[axis] = slice(begin, begin + size)
    return _part(build, step, x, parts)


def _pad(
    build: Builder,
    step: Step,
    x: Value,
    paddings: Any,
    mode: str = "constant",
    *rest: Any,
    **options: Any,
) -> Value:
    pads = np.asarray(paddings)
    # TensorFlow's two functions have the constant in different places.
    given = [*rest, options.get("constant_values")]
    computed = any(isinstance(own, Value) for own in given)
    constants = [
        np.asarray(own).tolist()
        for own in given
        if not (own is None or isinstance(own, (str, Value)))
    ]
    constant = next(iter(constants), 0.0)
    what = f"padding of mode {mode!r} with {'a tensor' if computed else constants}"
    remedy = "pad with zeros, or with -inf before a max pooling"
    if mode.lower() != "constant" or computed or not isinstance(constant, (int, float)):
        raise UnsupportedError((what, remedy))
    if pads.shape != (len(x.shape), 2) or np.any(pads[0]):
        what = f"padding by {pads.tolist()} of shape {x.shape}"
        raise UnsupportedError((what, "leave the batch alone"))
    if constant:
        padded = pad_below(build, step, x, pads, constant)
        if padded is None:
            raise UnsupportedError((what, remedy))
        return padded
    if len(x.shape) in (3, 4) and not np.any(pads[-1]):
        layer = keras.layers.ZeroPadding2D(both_ends(pads[1:-1]), name=step.name)
        return Value(step.shape, build.call(layer, build.image(x)))
    return _pad_one_axis(build, step, x, pads)


def _pad_one_axis(build: Builder, step: Step, x: Value, pads: np.ndarray) -> Value:
    """Zeros along one axis, as of channels: along the rows of an image of another shape."""
    axes, sizes = np.flatnonzero(pads.any(1)), x.shape
    if len(axes) == 0:
        return x
    if len(axes) > 1 or None in sizes[1:]:
        what = f"padding by {pads.tolist()} of shape {sizes}"
        raise UnsupportedError((what, "pad height and width, or one axis of known size"))
    (axis,) = axes.tolist()
    known = [size or 0 for size in sizes]
    shape = (math.prod(known[1:axis]), known[axis], math.prod(known[axis + 1 :]))
    before = keras.layers.Reshape(shape, name=build.part_name("reshape"))
    image = build.call(before, build.plain(x))
    layer = keras.layers.ZeroPadding2D(((0, 0), tuple(pads[axis].tolist())), name=step.name)
    padded = build.call(layer, image)
    behind = keras.layers.Reshape(step.shape[1:], name=build.part_name("reshape"))
    return Value(step.shape, build.call(behind, padded))


def _blocks(name: str) -> Callable[..., Value]:
    """`depth_to_space`, which makes blocks of pixels of the channels, and `space_to_depth`, which
    turns them back: in both, columns and the rows of blocks change places."""

    def rewrite(
        build: Builder, step: Step, x: Value, block_size: Any, data_format: Any = None, *_: Any
    ) -> Value:
        last = str(data_format) in ("None", "NHWC", "channels_last")
        if len(x.shape) != 4 or None in x.shape[1:] or not last:
            what = f"{name} of shape {x.shape} with data format {data_format}"
            raise UnsupportedError((what, "give it an image of known size, channels last"))
        block, given = int(block_size), x.shape if name == "depth_to_space" else step.shape
        height, width, channels = (size or 0 for size in given[1:])
        columns = (width, block) if name == "depth_to_space" else (block, width)
        apart = keras.layers.Reshape(
            (height, *columns, channels // block), name=build.part_name("blocks")
        )
        change = keras.layers.Permute((1, 3, 2, 4), name=build.part_name("columns"))
        together = keras.layers.Reshape(step.shape[1:], name=step.name)
        tensor = build.call(apart, build.plain(x))
        return Value(step.shape, build.call(together, build.call(change, tensor)))

    return rewrite


def _resize(
    build: Builder,
    step: Step,
    x: Value,
    size: Any,
    interpolation: str = "bilinear",
    _keep_ratio: Any = False,
    antialias: bool = False,
    *_: Any,
    half_pixel_centers: bool = True,
    align_corners: bool = False,
    **options: Any,
) -> Value:
    """To a whole multiple of the size by repeating numbers, as all runtimes do alike, or to any by
    interpolation."""
    old, wanted = x.shape[1:3], step.shape[1:3]
    if tuple(wanted) == tuple(old):
        return x
    method = str(interpolation).lower()
    if method not in ("nearest", "bilinear") or options.get("data_format") == "channels_first":
        what = f"resize with interpolation {interpolation!r}"
        raise UnsupportedError((what, "use 'nearest', 'bilinear' or a Conv2DTranspose"))
    set_otherwise = {"antialias": antialias and method == "bilinear", **options}
    for name in ("antialias", *ASPECTS):
        if set_otherwise.get(name):
            raise UnsupportedError((f"resize with {name}", "leave it out"))
    old, new = (tuple(size for size in shape if size is not None) for shape in (old, wanted))
    if len(old) < 2 or len(new) < 2:
        what = f"resize from {tuple(x.shape[1:3])} to {tuple(wanted)}"
        raise UnsupportedError((what, "use UpSampling2D, or fix the model's input shape"))
    if method == "bilinear":
        layer = ResizeBilinear(
            new,
            half_pixel_centers=half_pixel_centers,
            align_corners=align_corners,
            name=step.name,
        )
    else:
        layer = _repeated(old, new, align_corners, step.name)
    return Value(step.shape, build.call(layer, build.image(x)))


def _repeated(old: Sequence[int], new: Sequence[int], align_corners: bool, name: str) -> Any:
    sizes = list(zip(new, old, strict=True))
    if any(after % before for after, before in sizes) or align_corners:
        what = f"resize from {tuple(old)} to {tuple(new)}"
        raise UnsupportedError((what, "resize to a multiple of the size, or use 'bilinear'"))
    return keras.layers.UpSampling2D([after // before for after, before in sizes], name=name)


def _resize_v1(
    build: Builder,
    step: Step,
    x: Value,
    size: Any,
    interpolation: Any = "bilinear",
    align_corners: bool = False,
    **_: Any,
) -> Value:
    """TensorFlow 1's `tf.image.resize`, whose pixels are points."""
    named = {0: "bilinear", 1: "nearest"}.get(interpolation, interpolation)
    return _resize(
        build, step, x, size, named, half_pixel_centers=False, align_corners=align_corners
    )


def _resize_bilinear(
    build: Builder,
    step: Step,
    x: Value,
    size: Any,
    align_corners: bool = False,
    *_: Any,
    half_pixel_centers: bool = False,
    **__: Any,
) -> Value:
    """TensorFlow 1's `tf.image.resize_bilinear`."""
    return _resize(
        build,
        step,
        x,
        size,
        half_pixel_centers=half_pixel_centers,
        align_corners=align_corners,
    )


OPERATIONS: Mapping[str, Callable[..., Value]] = {
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "getitem": _getitem,
    "split": _split,
    "pad": _pad,
    "depth_to_space": _blocks("depth_to_space"),
    "space_to_depth": _blocks("space_to_depth"),
    "resize": _resize,
    "resize_bilinear": _resize_bilinear,
    "resize_v1": _resize_v1,
    "shape": _shape,
    "stack": _stack,
}
