"""The layer-kind table: supporting a layer is a row here, not an if-branch elsewhere."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

Problems = list[tuple[str, str]]  # (what is wrong, what to do)


class Role(enum.Enum):
    """What a layer does to its input's grid."""

    INPUT = "input"  # starts a grid
    KERNEL = "kernel"  # weights; starts a grid
    NORM = "norm"  # folded into the kernel before it
    RELU = "relu"  # absorbed by the grid before it
    MERGE = "merge"  # combines tensors; starts a grid
    SAME = "same"  # moves numbers about; keeps the grid
    SOFTMAX = "softmax"  # fixed output grid of 1/256
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
        check: returns what of a layer's configuration is not supported.
    """

    role: Role
    op: str
    kernel: str | None = None
    channel_axis: int | None = None
    regrid: bool = False
    check: Callable[[Any], Problems] = lambda layer: []


FUSED_ACTIVATIONS = ("linear", "relu", "relu6", "softmax")


def activation_name(layer: Any) -> str:
    """Name of the activation function of a layer that has one."""
    function = layer.activation
    return getattr(function, "__name__", type(function).__name__)


def _check_activation(layer: Any) -> Problems:
    name = activation_name(layer)
    if name in FUSED_ACTIVATIONS:
        return []
    return [(f"activation {name!r}", f"use one of {', '.join(FUSED_ACTIVATIONS)}")]


def _check_channels_last(layer: Any) -> Problems:
    if layer.data_format == "channels_last":
        return []
    return [("data_format 'channels_first'", "build the model with channels_last")]


def _check_conv(layer: Any) -> Problems:
    problems = _check_activation(layer) + _check_channels_last(layer)
    if getattr(layer, "groups", 1) != 1:
        problems.append(("grouped convolution", "use DepthwiseConv2D or groups=1"))
    if layer.strides[0] != layer.strides[1] and "Depthwise" in type(layer).__name__:
        problems.append(("unequal strides", "use the same stride in both directions"))
    return problems


def _check_separable(layer: Any) -> Problems:
    problems = _check_conv(layer)
    if layer.depthwise_regularizer is not None or layer.pointwise_regularizer is not None:
        problems.append(("weight regularizer", "use DepthwiseConv2D and a 1x1 Conv2D instead"))
    return problems


def _check_dense(layer: Any) -> Problems:
    problems = _check_activation(layer)
    if layer.built and len(layer.input_shape) != 2:
        problems.append((f"input of shape {layer.input_shape}", "put a Flatten or pooling before"))
    return problems


def _check_norm(layer: Any) -> Problems:
    axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
    if not layer.built or axis in (-1, len(layer.input_shape) - 1):
        return []
    return [(f"axis={axis}", "normalize over the last axis")]


def _check_relu(layer: Any) -> Problems:
    problems = []
    if layer.negative_slope or layer.threshold:
        problems.append(("negative_slope or threshold", "use a plain ReLU"))
    if layer.max_value not in (None, 6):
        problems.append((f"max_value={layer.max_value}", "use max_value None or 6"))
    return problems


def _check_add(layer: Any) -> Problems:
    if not layer.built or len(layer.input_shape) == 2:
        return []
    return [(f"{len(layer.input_shape)} inputs", "add two tensors at a time")]


def _check_average_pool(layer: Any) -> Problems:
    problems = _check_channels_last(layer)
    if layer.padding == "same" and layer.built:
        _, height, width, _ = layer.input_shape
        sizes = zip((height, width), layer.pool_size, layer.strides, strict=True)
        if any(size is None or size % stride or pool != stride for size, pool, stride in sizes):
            problems.append(("padding='same' with windows over the border", "use padding='valid'"))
    return problems


def _check_softmax(layer: Any) -> Problems:
    axis = getattr(layer, "axis", -1)
    return [] if axis == -1 else [(f"axis={axis}", "take the softmax over the last axis")]


KINDS: dict[str, Kind] = {
    "InputLayer": Kind(role=Role.INPUT, op=""),
    "Conv2D": Kind(
        role=Role.KERNEL, op="CONV_2D", kernel="kernel", channel_axis=3, check=_check_conv
    ),
    "DepthwiseConv2D": Kind(
        role=Role.KERNEL,
        op="DEPTHWISE_CONV_2D",
        kernel="depthwise_kernel",
        channel_axis=2,
        check=_check_conv,
    ),
    "Dense": Kind(
        role=Role.KERNEL, op="FULLY_CONNECTED", kernel="kernel", channel_axis=1, check=_check_dense
    ),
    "SeparableConv2D": Kind(
        role=Role.REWRITE, op="DEPTHWISE_CONV_2D + CONV_2D", check=_check_separable
    ),
    "BatchNormalization": Kind(role=Role.NORM, op="folded", check=_check_norm),
    "ReLU": Kind(role=Role.RELU, op="fused", regrid=True, check=_check_relu),
    "Activation": Kind(role=Role.REWRITE, op="fused", check=_check_activation),
    "Add": Kind(role=Role.MERGE, op="ADD", check=_check_add),
    "GlobalAveragePooling2D": Kind(role=Role.MERGE, op="MEAN", check=_check_channels_last),
    "AveragePooling2D": Kind(
        role=Role.SAME, op="AVERAGE_POOL_2D", regrid=True, check=_check_average_pool
    ),
    "MaxPooling2D": Kind(role=Role.SAME, op="MAX_POOL_2D", check=_check_channels_last),
    "GlobalMaxPooling2D": Kind(role=Role.SAME, op="REDUCE_MAX", check=_check_channels_last),
    "ZeroPadding2D": Kind(role=Role.SAME, op="PAD", check=_check_channels_last),
    "Flatten": Kind(role=Role.SAME, op="RESHAPE"),
    "Reshape": Kind(role=Role.SAME, op="RESHAPE"),
    "Dropout": Kind(role=Role.SAME, op="none"),
    "SpatialDropout2D": Kind(role=Role.SAME, op="none"),
    "Softmax": Kind(role=Role.SOFTMAX, op="SOFTMAX", check=_check_softmax),
}
