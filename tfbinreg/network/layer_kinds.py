"""The layer-kind table: supporting a layer is a row here, not an if-branch elsewhere.

Rows of role `REWRITE` are accepted in a user's model and rewritten by `normalize`; the others are
what a normalized model is made of.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfbinreg.core.grid import Grid

Shape = tuple[int | None, ...]
Problems = list[tuple[str, str]]  # (what is wrong, what to do)


class Role(enum.Enum):
    """What a layer does to its input's grid."""

    INPUT = "input"  # starts a grid
    KERNEL = "kernel"  # weights; starts a grid
    NORM = "norm"  # a factor and an offset per channel, folded into the kernel before it; without
    # one it is a 1x1 depthwise convolution and starts a grid
    RELU = "relu"  # absorbed by the grid before it
    MERGE = "merge"  # computes with activations; starts a grid
    JOIN = "join"  # puts tensors side by side, which therefore share one grid
    SAME = "same"  # moves numbers about; keeps the grid
    FIXED = "fixed"  # the runtime prescribes the output grid
    REWRITE = "rewrite"  # replaced by others before quantization


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """How a layer class is quantized and deployed.

    Attributes:
        role: see `Role`.
        op: TFLite operator it becomes; several joined by " + ".
        kernel: attribute that holds the quantized weights.
        channel_axis: output-channel axis of that kernel.
        regrid: whether its output leaves the grid and must be rounded to it again.
        fuses_relu: whether its operator can contain the ReLU behind it.
        keeps_sign: whether its outputs are never negative if its inputs are not.
        lopsided: whether its outputs reach far on the positive side only, so that a grid with a
            learned offset serves them better than a symmetric one.
        augments: whether it varies the samples in training only, as the world would: at a model
            input it acts before the input's grid.
        check: returns what of a layer's configuration is not supported, given its input shapes.
        attributes: what of a layer's configuration its operation needs in a file.
        title: what users call it, where that is not the class.
    """

    role: Role
    op: str
    kernel: str | None = None
    channel_axis: int | None = None
    regrid: bool = False
    fuses_relu: bool = False
    keeps_sign: bool = False
    lopsided: bool = False
    augments: bool = False
    check: Callable[[Any, Sequence[Shape]], Problems] = lambda layer, shapes: []
    attributes: tuple[str, ...] = ()
    title: str = ""

    @property
    def has_kernel(self) -> bool:
        """Whether its operation has a kernel: its own, or that of a normalization by itself."""
        return self.role in (Role.KERNEL, Role.NORM)


# Names that layers and operations give their activation functions -> the one used from here on.
ACTIVATIONS = {
    "linear": "linear",
    "relu": "relu",
    "relu6": "relu6",
    "softmax": "softmax",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "swish": "silu",
    "silu": "silu",
    "hard_sigmoid": "hard_sigmoid",
    "hard_swish": "hard_swish",
    "hard_silu": "hard_swish",
    "leaky_relu": "leaky_relu",
    "mish": "mish",
}

HARD_SIGMOID_FIFTH = "hard_sigmoid_fifth"  # Keras 2's, which clips 0.2 x + 0.5

# The output grids that TFLite prescribes: code * scale.
_FIXED_GRIDS = {
    "sigmoid": Grid(8, False, np.array(1.0 / 256.0), 0, 255),
    "softmax": Grid(8, False, np.array(1.0 / 256.0), 0, 255),
    "tanh": Grid(8, True, np.array(1.0 / 128.0), -128, 127),
}


def activation_name(layer: Any) -> str:
    """Name of the activation function of a layer that has one."""
    return function_name(layer.activation)


def function_name(function: Any) -> str:
    """Name of an activation function, which may be a layer."""
    return getattr(function, "__name__", type(function).__name__)


def relu_limit(layer: Any) -> float | None:
    """The largest output of a ReLU layer; Keras may have made an array of it."""
    return None if layer.max_value is None else float(layer.max_value)


def fixed_grid(layer: Any) -> Grid:
    """The output grid of a layer of role FIXED."""
    return _FIXED_GRIDS["softmax" if type(layer).__name__ == "Softmax" else activation_name(layer)]


def operation_attributes(layer: Any, kind: Kind) -> dict[str, Any]:
    """The attributes of a layer that its operation needs, as plain values."""
    return {name: _plain(layer, name) for name in kind.attributes}


def _plain(layer: Any, name: str) -> Any:
    """An attribute as numbers, text, tuples or a float32 array."""
    value = getattr(layer, name)
    if callable(value):
        return activation_name(layer)
    if hasattr(value, "numpy"):
        return np.asarray(value.numpy(), np.float32)
    if isinstance(value, np.ndarray):  # what Keras has made of a number
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(tuple(part) if isinstance(part, (list, tuple)) else part for part in value)
    return value


def check_activation(name: str) -> Problems:
    """What is not supported of an activation function, by its canonical name."""
    if name in ACTIVATIONS.values() or name == HARD_SIGMOID_FIFTH:
        return []
    return [(f"activation {name!r}", f"use one of {', '.join(ACTIVATIONS)}")]


def _check_channels_last(layer: Any, shapes: Sequence[Shape]) -> Problems:
    if layer.data_format == "channels_last":
        return []
    return [("data_format 'channels_first'", "build the model with channels_last")]


_GROUPED = ("Conv2D", "Conv1D")


def _check_conv(layer: Any, shapes: Sequence[Shape]) -> Problems:
    problems = _check_channels_last(layer, shapes)
    if getattr(layer, "groups", 1) != 1 and type(layer).__name__ not in _GROUPED:
        problems.append(("grouped convolution", "use groups=1"))
    if len(set(layer.strides)) > 1 and "Depthwise" in type(layer).__name__:
        problems.append(("unequal strides", "use the same stride in both directions"))
    return problems


def _check_transpose(layer: Any, shapes: Sequence[Shape]) -> Problems:
    problems = _check_conv(layer, shapes)
    if layer.output_padding is not None:
        problems.append(("output_padding", "leave it out and crop or pad afterwards"))
    if set(layer.dilation_rate) != {1}:
        problems.append(("dilation_rate", "use a dilation of 1"))
    return problems


def _check_dense(layer: Any, shapes: Sequence[Shape]) -> Problems:
    if 2 <= len(shapes[0]) <= 4:
        return []
    return [(f"input of shape {shapes[0]}", "put a Flatten or Reshape before")]


def _check_last_axis(layer: Any, shapes: Sequence[Shape]) -> Problems:
    rank = len(shapes[0])
    axes = np.ravel(layer.axis).tolist()
    if [axis % rank for axis in axes] == [rank - 1]:
        return []
    return [(f"axis={axes if len(axes) > 1 else axes[0]}", "work over the last axis")]


def _check_one_axis(layer: Any, shapes: Sequence[Shape]) -> Problems:
    axes = np.ravel(layer.axis).tolist()
    if len(axes) == 1 and axes[0] % len(shapes[0]):
        return []
    return [(f"axis={axes if len(axes) > 1 else axes[0]}", "work over one axis but the batch")]


def _check_relu(layer: Any, shapes: Sequence[Shape]) -> Problems:
    problems = []
    if layer.threshold:
        problems.append(("threshold", "use a plain ReLU"))
    if layer.negative_slope and layer.max_value is not None:
        problems.append(("negative_slope with max_value", "use only one of them"))
    if layer.max_value is not None and layer.max_value <= 0:
        problems.append((f"max_value={layer.max_value}", "use a positive one"))
    return problems


def _check_same_shape(layer: Any, shapes: Sequence[Shape]) -> Problems:
    if len({len(shape) for shape in shapes}) == 1:
        return []
    return [(f"inputs of shapes {', '.join(map(str, shapes))}", "give them the same rank")]


def _check_concatenate(layer: Any, shapes: Sequence[Shape]) -> Problems:
    problems = _check_same_shape(layer, shapes)
    if layer.axis % len(shapes[0]) == 0:
        problems.append(("axis=0", "concatenate another axis than the batch"))
    return problems


def _check_upsampling(layer: Any, shapes: Sequence[Shape]) -> Problems:
    problems = _check_channels_last(layer, shapes)
    if layer.interpolation not in ("nearest", "bilinear"):
        what = f"interpolation {layer.interpolation!r}"
        problems.append((what, "use 'nearest', 'bilinear' or a Conv2DTranspose"))
    return problems


def _check_prelu(layer: Any, shapes: Sequence[Shape]) -> Problems:
    shared = tuple(layer.shared_axes or ())
    if shared == tuple(range(1, len(shapes[0]) - 1)):
        return []
    what = f"shared_axes={list(shared) or None}"
    return [(what, "share the slopes over all axes but the last")]


def _check_crop(layer: Any, shapes: Sequence[Shape]) -> Problems:
    if tuple(shapes[0][1:3]) == (layer.height, layer.width):
        return []
    remedy = "crop in the input pipeline, before the model"
    return [("a crop that is a resize at inference", remedy)]


_IMAGE_AUGMENTATION = Kind(
    role=Role.SAME, op="none", augments=True, title="RandomFlip and other augmentation"
)
_CONV = ("strides", "dilation_rate", "padding")
_POOL = ("pool_size", "strides", "padding")

KINDS: dict[str, Kind] = {
    "InputLayer": Kind(role=Role.INPUT, op=""),
    "Conv2D": Kind(
        role=Role.KERNEL,
        op="CONV_2D",
        kernel="kernel",
        channel_axis=3,
        fuses_relu=True,
        check=_check_conv,
        attributes=(*_CONV, "groups"),
    ),
    "DepthwiseConv2D": Kind(
        role=Role.KERNEL,
        op="DEPTHWISE_CONV_2D",
        kernel="depthwise_kernel",
        channel_axis=2,
        fuses_relu=True,
        check=_check_conv,
        attributes=_CONV,
    ),
    "Conv2DTranspose": Kind(
        role=Role.KERNEL,
        op="TRANSPOSE_CONV",
        kernel="kernel",
        channel_axis=2,
        fuses_relu=True,
        check=_check_transpose,
        attributes=("strides", "padding"),
    ),
    "Dense": Kind(
        role=Role.KERNEL,
        op="FULLY_CONNECTED",
        kernel="kernel",
        channel_axis=1,
        fuses_relu=True,
        check=_check_dense,
    ),
    "SeparableConv2D": Kind(role=Role.REWRITE, op="DEPTHWISE_CONV_2D + CONV_2D", check=_check_conv),
    "Conv1D": Kind(role=Role.REWRITE, op="CONV_2D", check=_check_conv),
    "DepthwiseConv1D": Kind(role=Role.REWRITE, op="DEPTHWISE_CONV_2D", check=_check_conv),
    "SeparableConv1D": Kind(role=Role.REWRITE, op="DEPTHWISE_CONV_2D + CONV_2D", check=_check_conv),
    "BatchNormalization": Kind(
        role=Role.NORM,
        op="folded or DEPTHWISE_CONV_2D",
        fuses_relu=True,
        check=_check_last_axis,
    ),
    "ChannelAffine": Kind(
        role=Role.NORM,
        op="folded or DEPTHWISE_CONV_2D",
        fuses_relu=True,
        title="`x * c`, `x / c`, `x + c` with constants",
    ),
    "Rescaling": Kind(role=Role.REWRITE, op="folded or DEPTHWISE_CONV_2D"),
    "Normalization": Kind(role=Role.REWRITE, op="folded or DEPTHWISE_CONV_2D"),
    "ReLU": Kind(
        role=Role.RELU, op="fused", regrid=True, check=_check_relu, attributes=("max_value",)
    ),
    "LeakyReLU": Kind(role=Role.MERGE, op="LEAKY_RELU", lopsided=True, attributes=("alpha",)),
    "PReLU": Kind(
        role=Role.MERGE, op="PRELU", lopsided=True, check=_check_prelu, attributes=("alpha",)
    ),
    "HardSwish": Kind(role=Role.MERGE, op="HARD_SWISH", lopsided=True, title="hard swish"),
    "ValueFunction": Kind(
        role=Role.MERGE,
        op="CAST + ADD + GATHER",
        lopsided=True,
        attributes=("expression",),
        title="GELU, ELU, SELU, softplus, mish and all functions of one value",
    ),
    "Activation": Kind(
        role=Role.FIXED, op="LOGISTIC or TANH", title="sigmoid, tanh", attributes=("activation",)
    ),
    "Softmax": Kind(role=Role.FIXED, op="SOFTMAX", check=_check_one_axis),
    "Add": Kind(
        role=Role.MERGE, op="ADD", fuses_relu=True, keeps_sign=True, check=_check_same_shape
    ),
    "Subtract": Kind(role=Role.MERGE, op="SUB", fuses_relu=True, check=_check_same_shape),
    "Multiply": Kind(
        role=Role.MERGE, op="MUL", fuses_relu=True, keeps_sign=True, check=_check_same_shape
    ),
    "Average": Kind(role=Role.REWRITE, op="ADD + DEPTHWISE_CONV_2D", check=_check_same_shape),
    "Concatenate": Kind(
        role=Role.JOIN, op="CONCATENATION", check=_check_concatenate, attributes=("axis",)
    ),
    "Maximum": Kind(role=Role.JOIN, op="MAXIMUM", check=_check_same_shape),
    "Minimum": Kind(role=Role.JOIN, op="MINIMUM", check=_check_same_shape),
    "GlobalAveragePooling2D": Kind(
        role=Role.MERGE,
        op="MEAN",
        keeps_sign=True,
        check=_check_channels_last,
        attributes=("keepdims",),
    ),
    "GlobalAveragePooling1D": Kind(role=Role.REWRITE, op="MEAN", check=_check_channels_last),
    "AveragePooling2D": Kind(
        role=Role.SAME,
        op="AVERAGE_POOL_2D",
        regrid=True,
        check=_check_channels_last,
        attributes=_POOL,
    ),
    "AveragePooling1D": Kind(role=Role.REWRITE, op="AVERAGE_POOL_2D", check=_check_channels_last),
    "MaxPooling2D": Kind(
        role=Role.SAME, op="MAX_POOL_2D", check=_check_channels_last, attributes=_POOL
    ),
    "MaxPooling1D": Kind(role=Role.REWRITE, op="MAX_POOL_2D", check=_check_channels_last),
    "PaddedMaxPooling2D": Kind(
        role=Role.SAME,
        op="PADV2 + MAX_POOL_2D",
        attributes=("pool_size", "strides", "margins"),
        title="padding with -inf before max pooling",
    ),
    "GlobalMaxPooling2D": Kind(
        role=Role.SAME, op="REDUCE_MAX", check=_check_channels_last, attributes=("keepdims",)
    ),
    "GlobalMaxPooling1D": Kind(role=Role.REWRITE, op="REDUCE_MAX", check=_check_channels_last),
    "UpSampling2D": Kind(
        role=Role.SAME, op="RESIZE_NEAREST_NEIGHBOR", check=_check_upsampling, attributes=("size",)
    ),
    "UpSampling1D": Kind(role=Role.REWRITE, op="RESIZE_NEAREST_NEIGHBOR"),
    "ResizeBilinear": Kind(
        role=Role.SAME,
        op="RESIZE_BILINEAR",
        regrid=True,
        attributes=("factor", "half_pixel_centers", "align_corners"),
        title="UpSampling2D, bilinear",
    ),
    "Resizing": Kind(role=Role.REWRITE, op="RESIZE_NEAREST_NEIGHBOR or RESIZE_BILINEAR"),
    "ZeroPadding2D": Kind(
        role=Role.SAME, op="PAD", check=_check_channels_last, attributes=("padding",)
    ),
    "ZeroPadding1D": Kind(role=Role.REWRITE, op="PAD"),
    "Cropping2D": Kind(
        role=Role.SAME, op="STRIDED_SLICE", check=_check_channels_last, attributes=("cropping",)
    ),
    "Cropping1D": Kind(role=Role.REWRITE, op="STRIDED_SLICE"),
    "Slice": Kind(
        role=Role.SAME,
        op="STRIDED_SLICE",
        title="`x[:, a:b]`",
        attributes=("begin", "end", "strides"),
    ),
    "Flatten": Kind(role=Role.SAME, op="RESHAPE"),
    "Reshape": Kind(role=Role.SAME, op="RESHAPE"),
    "Permute": Kind(role=Role.SAME, op="TRANSPOSE", attributes=("dims",)),
    "Dropout": Kind(role=Role.SAME, op="none"),
    "SpatialDropout1D": Kind(role=Role.REWRITE, op="none"),
    "SpatialDropout2D": Kind(role=Role.SAME, op="none"),
    "GaussianNoise": Kind(role=Role.SAME, op="none", augments=True),
    "GaussianDropout": Kind(role=Role.SAME, op="none"),
    "AlphaDropout": Kind(role=Role.SAME, op="none"),
    "ActivityRegularization": Kind(role=Role.SAME, op="none"),
    "Identity": Kind(role=Role.REWRITE, op="none"),
    "RandomFlip": _IMAGE_AUGMENTATION,
    "RandomRotation": _IMAGE_AUGMENTATION,
    "RandomZoom": _IMAGE_AUGMENTATION,
    "RandomTranslation": _IMAGE_AUGMENTATION,
    "RandomContrast": _IMAGE_AUGMENTATION,
    "RandomBrightness": _IMAGE_AUGMENTATION,
    "RandomCrop": dataclasses.replace(_IMAGE_AUGMENTATION, check=_check_crop),
    "Augmentation": _IMAGE_AUGMENTATION,
}


def support_table() -> str:
    """The table of supported layers in docs/supported.md, in Markdown."""
    lines = ["| layer | TFLite operator | weights | output grid |", "|---|---|---|---|"]
    for name, kind in KINDS.items():
        if kind.role is not Role.INPUT:
            weights = "1-8 bits" if "Conv" in name or name == "Dense" else ""
            lines.append(f"| {kind.title or name} | {kind.op} | {weights} | {_output_grid(kind)} |")
    return "\n".join(dict.fromkeys(lines))


def _output_grid(kind: Kind) -> str:
    if kind.role is Role.FIXED:
        return "prescribed"
    if kind.role in (Role.SAME, Role.JOIN):
        return "its inputs'"
    if kind.role is Role.RELU:
        return "unsigned, 2-8 bits"
    if kind.lopsided:
        return "with offset, 8 bits"
    return "signed, 8 bits" if kind.role is not Role.REWRITE else ""


if __name__ == "__main__":
    print(support_table())
