"""The TFLite operator of every kind of frozen operation: name, version, options, parameters.

The versions are those the stock converter writes for int8 tensors (tensorflow/compiler/mlir/lite/
tools/versioning/op_version.cc), so that every runtime that runs its files runs these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfbinreg.core.grid import Grid
from tfbinreg.deploy.frozen import FrozenOp

_ACTIVATION_NONE, _ACTIVATION_RELU, _ACTIVATION_RELU6 = 0, 1, 3
_PADDING = {"same": 0, "valid": 1}
_LOWEST = -128  # of int8
_INT8, _INT32 = 9, 2  # the schema's numbers of types
_SPATIAL = np.array([1, 2], np.int32)  # height and width


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Operator:
    """A TFLite operator without its tensors.

    Attributes:
        name: of the builtin operator.
        version: of the operator.
        options: the schema's table of its options without the ending "Options".
        fields: of that table, by the schema's names.
        parameters: constants after its inputs, by name: int32, or int8 on the grid of its output.
    """

    name: str
    version: int = 2
    options: str = ""
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parameters: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def operator(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    """The TFLite operator of a frozen operation.

    Args:
        op: anything but a model input.
        shapes: of its inputs, without the batch axis.
    """
    return _OPERATORS[op.kind](op, shapes)


def fused_activation(op: FrozenOp) -> int:
    """The schema's number of the ReLU that an operator contains."""
    if not op.relu:
        return _ACTIVATION_NONE
    return _ACTIVATION_RELU if op.relu_limit is None else _ACTIVATION_RELU6


def has_relu_behind(op: FrozenOp) -> bool:
    """Whether the ReLU of an operation is an operator of its own in a file.

    Not every runtime knows a TRANSPOSE_CONV with a ReLU inside. Where int8 ends at zero, saturation
    does what a ReLU without an upper limit does.
    """
    ends_at_zero = op.grid is not None and op.grid.zero_point == _LOWEST
    return op.kind == "Conv2DTranspose" and op.relu and not (ends_at_zero and op.relu_limit is None)


def relu(limit: float | None) -> Operator:
    """A ReLU by itself."""
    return Operator(name="RELU" if limit is None else "RELU6")


def places_of(op: FrozenOp) -> tuple[Operator, ...]:
    """The operators before the one of an operation, each with the int32 tensor it makes: places in
    a table, from 0 to 255, for the int8 inputs of a function of one value."""
    if op.kind != "ValueFunction":
        return ()
    cast = Operator(
        name="CAST", version=1, options="Cast", fields={"inDataType": _INT8, "outDataType": _INT32}
    )
    first = np.array([-_LOWEST], np.int32)
    return cast, Operator(name="ADD", version=1, options="Add", parameters={"first": first})


def _strides(strides: Sequence[int]) -> dict[str, int]:
    return {"strideH": int(strides[0]), "strideW": int(strides[1])}


def _dilations(dilations: Sequence[int]) -> dict[str, int]:
    return {"dilationHFactor": int(dilations[0]), "dilationWFactor": int(dilations[1])}


def _conv(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    own = op.attributes
    return Operator(
        name="CONV_2D",
        version=3,
        options="Conv2D",
        fields={
            "padding": _PADDING[own["padding"]],
            "fusedActivationFunction": fused_activation(op),
            **_strides(own["strides"]),
            **_dilations(own["dilation_rate"]),
        },
    )


def _depthwise(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    own = {"padding": "valid", "strides": (1, 1), "dilation_rate": (1, 1), **op.attributes}
    return Operator(
        name="DEPTHWISE_CONV_2D",
        version=3,
        options="DepthwiseConv2D",
        fields={
            "padding": _PADDING[own["padding"]],
            "depthMultiplier": op.shape[-1] // shapes[0][-1],  # type: ignore[operator]
            "fusedActivationFunction": fused_activation(op),
            **_strides(own["strides"]),
            **_dilations(own["dilation_rate"]),
        },
    )


def _transpose(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    # The writer puts a ReLU behind it: `has_relu_behind`.
    fields = {
        "padding": _PADDING[op.attributes["padding"]],
        "fusedActivationFunction": _ACTIVATION_NONE,
        **_strides(op.attributes["strides"]),
    }
    return Operator(
        name="TRANSPOSE_CONV",
        version=3,
        options="TransposeConv",
        fields=fields,
        parameters={"shape": np.array([1, *op.shape], np.int32)},
    )


def _dense(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    return Operator(
        name="FULLY_CONNECTED",
        version=4,
        options="FullyConnected",
        fields={
            "keepNumDims": len(op.shape) > 1,
            "fusedActivationFunction": fused_activation(op),
        },
    )


def _pool(name: str) -> Callable[[FrozenOp, Any], Operator]:
    def make(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
        own = op.attributes
        height, width = own["pool_size"]
        fields = {
            "padding": _PADDING[own["padding"]],
            "filterHeight": int(height),
            "filterWidth": int(width),
            "fusedActivationFunction": fused_activation(op),
            **_strides(own["strides"]),
        }
        return Operator(name=name, options="Pool2D", fields=fields)

    return make


def _reduce(name: str) -> Callable[[FrozenOp, Any], Operator]:
    def make(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
        fields = {"keepDims": bool(op.attributes["keepdims"])}
        return Operator(name=name, options="Reducer", fields=fields, parameters={"axes": _SPATIAL})

    return make


def _arithmetic(name: str, options: str) -> Callable[[FrozenOp, Any], Operator]:
    def make(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
        fields = {"fusedActivationFunction": fused_activation(op)}
        return Operator(name=name, options=options, fields=fields)

    return make


def _plain(name: str, version: int) -> Callable[[FrozenOp, Any], Operator]:
    return lambda op, shapes: Operator(name=name, version=version)


def _extreme(name: str) -> Callable[[FrozenOp, Any], Operator]:
    return lambda op, shapes: Operator(name=name, options="MaximumMinimum")


def _transposed(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    order = np.array([0, *op.attributes["dims"]], np.int32)
    return Operator(name="TRANSPOSE", options="Transpose", parameters={"order": order})


def _reshape(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    return _reshaped(op.shape)  # type: ignore[arg-type]


def _reshaped(shape: Sequence[int]) -> Operator:
    size = np.array([1, *shape], np.int32)
    return Operator(
        name="RESHAPE",
        version=1,
        options="Reshape",
        fields={"newShape": size},
        parameters={"shape": size},
    )


def grid_of(op: FrozenOp) -> Grid:
    """The grid of an operation's output.

    Raises:
        ValueError: if it has none.
    """
    if op.grid is None:
        raise ValueError(f"The output of {op.name!r} is not on a grid: quantize the whole model.")
    return op.grid


def _pad(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    paddings = np.array([(0, 0), *op.attributes["padding"], (0, 0)], np.int32)
    if not op.attributes.get("lowest"):
        return Operator(name="PAD", options="Pad", parameters={"paddings": paddings})
    grid = grid_of(op)
    lowest: np.ndarray = np.array(grid.qmin + grid.zero_point, np.int8)
    return Operator(
        name="PADV2", options="PadV2", parameters={"paddings": paddings, "lowest": lowest}
    )


def _crop(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    (top, bottom), (left, right) = op.attributes["cropping"]
    height, width, channels = shapes[0]
    return _strided_slice((top, left, 0), (height - bottom, width - right, channels), (1, 1, 1))


def _slice(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    own = op.attributes
    # Python's own rule for indices that are negative, missing or beyond the end.
    ranges = [
        slice(*axis).indices(size)
        for *axis, size in zip(own["begin"], own["end"], own["strides"], shapes[0], strict=True)
    ]
    return _strided_slice(*zip(*ranges, strict=True))


def _strided_slice(begin: Sequence[int], end: Sequence[int], strides: Sequence[int]) -> Operator:
    parameters = {
        "begin": np.array([0, *begin], np.int32),
        "end": np.array([1, *end], np.int32),
        "strides": np.array([1, *strides], np.int32),
    }
    return Operator(name="STRIDED_SLICE", options="StridedSlice", parameters=parameters)


def _upsample(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    size = np.array(op.shape[:2], np.int32)
    return Operator(
        name="RESIZE_NEAREST_NEIGHBOR",
        options="ResizeNearestNeighbor",
        parameters={"size": size},
    )


def _resize_bilinear(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    own = op.attributes
    fields = {"alignCorners": own["align_corners"], "halfPixelCenters": own["half_pixel_centers"]}
    return Operator(
        name="RESIZE_BILINEAR",
        version=3 if own["half_pixel_centers"] else 2,
        options="ResizeBilinear",
        fields=fields,
        parameters={"size": np.array(op.shape[:2], np.int32)},
    )


def _concatenate(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    axis = op.attributes.get("axis", -1) % (1 + len(op.shape))  # former graphs have none
    return Operator(name="CONCATENATION", options="Concatenation", fields={"axis": axis})


def _leaky_relu(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    fields = {"alpha": float(op.attributes["alpha"])}
    return Operator(name="LEAKY_RELU", options="LeakyRelu", fields=fields)


def _softmax(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    return Operator(name="SOFTMAX", options="Softmax", fields={"beta": 1.0})


def _activation(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    return Operator(name={"sigmoid": "LOGISTIC", "tanh": "TANH"}[op.attributes["activation"]])


def _function(op: FrozenOp, shapes: Sequence[tuple[int, ...]]) -> Operator:
    return Operator(name="GATHER", options="Gather", fields={"axis": 0})


_OPERATORS: Mapping[str, Callable[[FrozenOp, Sequence[tuple[int, ...]]], Operator]] = {
    "Activation": _activation,
    "Add": _arithmetic("ADD", "Add"),
    "AveragePooling2D": _pool("AVERAGE_POOL_2D"),
    "BatchNormalization": _depthwise,
    "ChannelAffine": _depthwise,
    "Concatenate": _concatenate,
    "Conv2D": _conv,
    "Conv2DTranspose": _transpose,
    "Cropping2D": _crop,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Flatten": _reshape,
    "GlobalAveragePooling2D": _reduce("MEAN"),
    "GlobalMaxPooling2D": _reduce("REDUCE_MAX"),
    "HardSwish": _plain("HARD_SWISH", 1),
    "LeakyReLU": _leaky_relu,
    "MaxPooling2D": _pool("MAX_POOL_2D"),
    "Maximum": _extreme("MAXIMUM"),
    "Minimum": _extreme("MINIMUM"),
    "Multiply": _arithmetic("MUL", "Mul"),
    "PReLU": _plain("PRELU", 1),
    "Permute": _transposed,
    "ReLU": lambda op, shapes: relu(op.attributes["max_value"]),
    "Reshape": _reshape,
    "ResizeBilinear": _resize_bilinear,
    "Slice": _slice,
    "Softmax": _softmax,
    "Subtract": _arithmetic("SUB", "Sub"),
    "UpSampling2D": _upsample,
    "ValueFunction": _function,
    "ZeroPadding2D": _pad,
}
