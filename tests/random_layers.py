"""Vocabulary of random nets: expressions of a tensor for every kind of layer, for hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

Shape = tuple[int, ...]  # without the batch axis
Draw = Callable[[st.SearchStrategy], Any]
Made = tuple[str, Shape] | None  # an expression of the tensor {x}, and the shape of its result

NAMED = "name={name!r}"
ACTIVATIONS = (
    *("linear", "relu", "relu6", "softmax", "sigmoid", "tanh", "swish", "hard_sigmoid"),
    *("gelu", "elu", "mish"),
)


def _layer(text: str, shape: Shape) -> Made:
    """A layer as it stands before its name; `text` ends behind the bracket or an argument."""
    return f"layers.{text}{'' if text.endswith('(') else ', '}{NAMED})({{x}})", shape


def _window(size: int, kernel: int, stride: int, dilation: int, padding: str) -> int:
    """How many windows there are along an axis."""
    if padding == "same":
        return -(-size // stride)
    return (size - (kernel - 1) * dilation - 1) // stride + 1


def windows(
    sizes: Sequence[int], kernel: Sequence[int], stride: int, dilation: int, padding: str
) -> list[int]:
    """`_window` along all axes."""
    pairs = zip(sizes, kernel, strict=True)
    return [_window(size, own, stride, dilation, padding) for size, own in pairs]


def _activation(draw: Draw) -> str:
    name = draw(st.sampled_from(["linear", "relu", *ACTIVATIONS]))
    return "" if name == "linear" else f", activation={name!r}"


def _bias(draw: Draw) -> str:
    return draw(st.sampled_from(["", ", use_bias=False"]))


def _argument(sizes: tuple[Any, ...]) -> Any:
    """As layers over a line take it, or those over an image."""
    return sizes if len(sizes) > 1 else sizes[0]


def divisors(size: int) -> list[int]:
    """The divisors of a size, 1 most often."""
    return [1, *(part for part in range(1, size + 1) if size % part == 0)]


def _conv(
    name: str, *, filters: bool = False, multiplier: bool = False, grouped: bool = False
) -> Any:
    def made(draw: Draw, shape: Shape) -> Made:
        kernel = tuple(draw(st.integers(1, min(3, size))) for size in shape[:-1])
        padding = draw(st.sampled_from(["valid", "same"]))
        stride, dilation = draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
        places = windows(shape[:-1], kernel, stride, dilation, padding)
        if min(places) < 1:
            return None
        count = draw(st.integers(1, 5)) if filters else None
        depth = draw(st.integers(1, 2)) if multiplier else 1
        groups = draw(st.sampled_from(divisors(shape[-1]))) if grouped else 1
        count = count and count * groups
        text = (
            f"{name}({f'{count}, ' if filters else ''}{_argument(kernel)}, strides={stride}, "
            f"dilation_rate={dilation}, padding={padding!r}"
            f"{f', depth_multiplier={depth}' if multiplier else ''}"
            f"{f', groups={groups}' if groups > 1 else ''}{_bias(draw)}{_activation(draw)}"
        )
        return _layer(text, (*places, count or shape[-1] * depth))

    return made


def _transpose(draw: Draw, shape: Shape) -> Made:
    filters, kernel, stride = (draw(st.integers(1, most)) for most in (4, 3, 2))
    padding = draw(st.sampled_from(["valid", "same"]))
    longer = max(kernel - stride, 0) if padding == "valid" else 0
    text = (
        f"Conv2DTranspose({filters}, {kernel}, strides={stride}, padding={padding!r}"
        f"{_bias(draw)}{_activation(draw)}"
    )
    return _layer(text, (*(size * stride + longer for size in shape[:-1]), filters))


def _dense(draw: Draw, shape: Shape) -> Made:
    units = draw(st.integers(1, 6))
    return _layer(f"Dense({units}{_bias(draw)}{_activation(draw)}", (*shape[:-1], units))


def last_axis(draw: Draw, shape: Shape) -> str:
    """The last axis, counted from either end."""
    return f"axis={draw(st.sampled_from([-1, len(shape)]))}"


def _norm(draw: Draw, shape: Shape) -> Made:
    options = draw(st.sampled_from(["", ", center=False", ", scale=False"]))
    return _layer(f"BatchNormalization({last_axis(draw, shape)}{options}", shape)


def _numbers(draw: Draw, count: int, low: float, high: float) -> list[float]:
    return [draw(st.integers(round(16 * low), round(16 * high))) / 16 for _ in range(count)]


def _normalization(draw: Draw, shape: Shape) -> Made:
    mean, variance = (_numbers(draw, shape[-1], *ends) for ends in ((-1, 1), (0.25, 4)))
    axis = last_axis(draw, shape)
    return _layer(f"Normalization({axis}, mean={mean}, variance={variance}", shape)


def _rescaling(draw: Draw, shape: Shape) -> Made:
    (scale,), (offset,) = _numbers(draw, 1, 0.25, 2), _numbers(draw, 1, -1, 1)
    return _layer(f"Rescaling({scale}, {offset}", shape)


def _constant(draw: Draw, shape: Shape) -> Made:
    forms = ["{x} * 0.5", "{x} + 0.25", "3.0 - {x}", "{x} / -4.0", "-{x}", "{x} * 0.5 + 1.0"]
    forms += [f"{{x}} {sign} np.float32({_numbers(draw, shape[-1], 0.25, 2)})" for sign in "*+"]
    return draw(st.sampled_from(forms)), shape


def _relu(draw: Draw, shape: Shape) -> Made:
    given = draw(st.sampled_from(["", "6.0", "1.5", "negative_slope=0.25"]))
    return _layer(f"ReLU({given}", shape)


def _hard_swish(draw: Draw, shape: Shape) -> Made:
    return "{x} * layers.ReLU(6.0)({x} + 3.0) / 6.0", shape


def _function(draw: Draw, shape: Shape) -> Made:
    return _layer(f"Activation({draw(st.sampled_from(ACTIVATIONS))!r}", shape)


def _prelu(draw: Draw, shape: Shape) -> Made:
    shared = f"shared_axes={list(range(1, len(shape)))}" if len(shape) > 1 else ""
    return _layer(f"PReLU({shared}", shape)


def _softmax(draw: Draw, shape: Shape) -> Made:
    return _layer(f"Softmax({last_axis(draw, shape)}", shape)


def _same(text: str) -> Any:
    """A layer that keeps the shape."""
    return lambda draw, shape: _layer(text, shape)


def _pool(name: str) -> Any:
    def made(draw: Draw, shape: Shape) -> Made:
        pool = tuple(draw(st.integers(1, min(3, size))) for size in shape[:-1])
        stride, padding = draw(st.integers(1, 2)), draw(st.sampled_from(["valid", "same"]))
        places = windows(shape[:-1], pool, stride, 1, padding)
        text = f"{name}({_argument(pool)}, strides={stride}, padding={padding!r}"
        return _layer(text, (*places, shape[-1]))

    return made


def _whole(name: str) -> Any:
    def made(draw: Draw, shape: Shape) -> Made:
        kept = draw(st.booleans())
        return _layer(
            f"{name}(keepdims={kept}", ((1,) * (len(shape) - 1) if kept else ()) + shape[-1:]
        )

    return made


def _upsampling(name: str) -> Any:
    def made(draw: Draw, shape: Shape) -> Made:
        sizes = tuple(draw(st.integers(1, 2)) for _ in shape[:-1])
        longer = [size * factor for size, factor in zip(shape[:-1], sizes, strict=True)]
        text = f"{name}({_argument(sizes)}"
        if len(sizes) > 1 and draw(st.booleans()):
            text += ", interpolation='bilinear'"
        return _layer(text, (*longer, shape[-1]))

    return made


def _resizing(draw: Draw, shape: Shape) -> Made:
    method = draw(st.sampled_from(["nearest", "bilinear"]))
    if method == "nearest":
        height, width = (size * draw(st.integers(1, 2)) for size in shape[:-1])
    else:
        height, width = (draw(st.integers(1, 2 * size)) for size in shape[:-1])
    text = f"Resizing({height}, {width}, interpolation={method!r}"
    return _layer(text, (height, width, shape[-1]))


def _border(name: str, sign: int) -> Any:
    """Padding (+1) or cropping (-1) of none, one or two at either end."""

    def made(draw: Draw, shape: Shape) -> Made:
        ends = st.tuples(st.integers(0, 2), st.integers(0, 2))
        sizes = tuple(draw(ends) for _ in shape[:-1])
        other = [size + sign * sum(two) for size, two in zip(shape[:-1], sizes, strict=True)]
        return _layer(f"{name}({_argument(sizes)}", (*other, shape[-1])) if min(other) > 0 else None

    return made


def _value_function(draw: Draw, shape: Shape) -> Made:
    names = ("gelu", "elu", "selu", "softplus", "softsign", "mish")
    if draw(st.booleans()):
        return _layer(f"Activation({draw(st.sampled_from(names))!r}", shape)
    forms = ("1.0 / ({x} * {x} + 1.0)", "abs({x})", "layers.ELU(0.5)({x})", "2.0 - abs({x} * 3.0)")
    return draw(st.sampled_from(forms)), shape


def _slice(draw: Draw, shape: Shape) -> Made:
    forms = ["{x}[..., :1]", "{x}[..., ::2]", "{x}[:, 1:]", "{x}[:, :-1]", "{x}[:, ::2]"]
    if len(shape) > 1:
        forms += ["{x}[:, 0]", "{x}[..., -1]"]
    if len(shape) < 3:
        forms.append("{x}[:, None, ..., ::1]")
    form = draw(st.sampled_from(forms))
    result = eval(form.format(x="x"), {"x": np.empty((1, *shape))}).shape[1:]
    return (form, result) if min(result) > 0 else None


def _reshape(draw: Draw, shape: Shape) -> Made:
    size = int(np.prod(shape))
    forms = [(size,), (1, size), (size, 1), (1, 1, size), shape[::-1], (-1, shape[-1])]
    forms += [(part, size // part) for part in (2, 3, 4) if size % part == 0]
    forms += [(2, part, size // (2 * part)) for part in (2, 3) if size % (2 * part) == 0]
    form = draw(st.sampled_from(forms))
    return _layer(f"Reshape({form}", np.empty(shape).reshape(form).shape)


def _permute(draw: Draw, shape: Shape) -> Made:
    dims = tuple(draw(st.permutations(range(1, len(shape) + 1))))
    return _layer(f"Permute({dims}", tuple(shape[axis - 1] for axis in dims))


def _flatten(draw: Draw, shape: Shape) -> Made:
    return _layer("Flatten(", (int(np.prod(shape)),))


def _nested(draw: Draw, shape: Shape) -> Made:
    text, result = draw(st.sampled_from([_dense, _norm, _relu, _function, _rescaling]))(draw, shape)
    inner = text.removesuffix("({x})").replace(NAMED, "name='inner'")
    model = f"own.Sequential([layers.Input({shape}), {inner}, layers.ReLU()], {NAMED})"
    return f"{model}({{x}})", result


def _over_time(draw: Draw, shape: Shape) -> Made:
    """A layer for each part of the first axis."""
    kinds = [_dense, _norm, _relu, _function, _softmax, _same("Dropout(0.5"), _flatten]
    if len(shape) == 3:
        kinds += [VOCABULARY[kind] for kind in ("Conv1D", "MaxPooling1D", "ZeroPadding1D")]
    made = draw(st.sampled_from(kinds))(draw, shape[1:])
    if made is None:
        return None
    inner = made[0].removesuffix("({x})").replace(NAMED, "name='inner'")
    return f"layers.TimeDistributed({inner}, {NAMED})({{x}})", (shape[0], *made[1])


# By the names of `KINDS`. ChannelAffine, HardSwish and Slice are written as users write them; an
# Augmentation is what the augmentation layers of Keras 3 become.
VOCABULARY: dict[str, Callable[[Draw, Shape], Made]] = {
    "Conv2D": _conv("Conv2D", filters=True, grouped=True),
    "DepthwiseConv2D": _conv("DepthwiseConv2D", multiplier=True),
    "Conv2DTranspose": _transpose,
    "Dense": _dense,
    "SeparableConv2D": _conv("SeparableConv2D", filters=True, multiplier=True),
    "Conv1D": _conv("Conv1D", filters=True, grouped=True),
    "DepthwiseConv1D": _conv("DepthwiseConv1D", multiplier=True),
    "SeparableConv1D": _conv("SeparableConv1D", filters=True, multiplier=True),
    "BatchNormalization": _norm,
    "ChannelAffine": _constant,
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    "ReLU": _relu,
    "LeakyReLU": _same("LeakyReLU(0.1"),
    "PReLU": _prelu,
    "HardSwish": _hard_swish,
    "Activation": _function,
    "Softmax": _softmax,
    "ValueFunction": _value_function,
    "GlobalAveragePooling2D": _whole("GlobalAveragePooling2D"),
    "GlobalAveragePooling1D": _whole("GlobalAveragePooling1D"),
    "AveragePooling2D": _pool("AveragePooling2D"),
    "AveragePooling1D": _pool("AveragePooling1D"),
    "MaxPooling2D": _pool("MaxPooling2D"),
    "MaxPooling1D": _pool("MaxPooling1D"),
    "GlobalMaxPooling2D": _whole("GlobalMaxPooling2D"),
    "GlobalMaxPooling1D": _whole("GlobalMaxPooling1D"),
    "UpSampling2D": _upsampling("UpSampling2D"),
    "UpSampling1D": _upsampling("UpSampling1D"),
    "Resizing": _resizing,
    "ZeroPadding2D": _border("ZeroPadding2D", 1),
    "ZeroPadding1D": _border("ZeroPadding1D", 1),
    "Cropping2D": _border("Cropping2D", -1),
    "Cropping1D": _border("Cropping1D", -1),
    "Slice": _slice,
    "Flatten": _flatten,
    "Permute": _permute,
    "Reshape": _reshape,
    "Dropout": _same("Dropout(0.5"),
    "SpatialDropout1D": _same("SpatialDropout1D(0.5"),
    "SpatialDropout2D": _same("SpatialDropout2D(0.5"),
    **{
        name: _same(f"{name}({options}")
        for name, options in {
            "GaussianNoise": "0.5",
            "GaussianDropout": "0.5",
            "AlphaDropout": "0.5",
            "ActivityRegularization": "l1=0.5",
            "Identity": "",
            "RandomFlip": "",
            "RandomRotation": "0.5",
            "RandomZoom": "0.5",
            "RandomTranslation": "0.5, 0.5",
            "RandomContrast": "0.5",
            "RandomBrightness": "0.5",
        }.items()
    },
    "RandomCrop": lambda draw, shape: _layer(f"RandomCrop({shape[0]}, {shape[1]}", shape),
    "TimeDistributed": _over_time,
    "nested model": _nested,
}


def takes(kind: str, rank: int) -> bool:
    """Whether a kind takes tensors of this rank, by its name."""
    if "1D" in kind:
        return rank == 2
    if kind == "TimeDistributed":
        return rank > 1
    return rank == 3 if "2D" in kind or kind.startswith(("Random", "Resizing")) else True
