"""Frozen operations as TensorFlow operations on numbers, without grids and biases."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from tfbinreg.deploy.frozen import FrozenOp
from tfbinreg.network import value_functions
from tfbinreg.network.grouped_convolution import by_groups
from tfbinreg.network.hard_swish import hard_swish


def _conv(op: FrozenOp, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    own = op.attributes
    convolve = functools.partial(
        tf.nn.conv2d,
        strides=own["strides"],
        padding=own["padding"].upper(),
        dilations=own["dilation_rate"],
    )
    # Frozen graphs of earlier versions have no groups.
    return by_groups(convolve, own.get("groups", 1), inputs, kernel)


def _depthwise(op: FrozenOp, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    own = op.attributes
    strides, padding = [1, *own["strides"], 1], own["padding"].upper()
    return tf.nn.depthwise_conv2d(inputs, kernel, strides, padding, dilations=own["dilation_rate"])


def _transpose(op: FrozenOp, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    own, size = op.attributes, list(op.shape)
    for axis in (0, 1):
        stride = own["strides"][axis]
        reach = 0 if own["padding"] == "same" else max(kernel.shape[axis] - stride, 0)
        size[axis] = inputs.shape[axis + 1] * stride + reach
    shape = [tf.shape(inputs)[0], *size]
    return tf.nn.conv2d_transpose(inputs, kernel, shape, own["strides"], own["padding"].upper())


def _dense(op: FrozenOp, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.tensordot(inputs, kernel, 1)


def _per_channel(op: FrozenOp, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.nn.depthwise_conv2d(inputs, kernel, [1, 1, 1, 1], "VALID")


def _pool(operation: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    def run(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        own = op.attributes
        return operation(inputs[0], own["pool_size"], own["strides"], own["padding"].upper())

    return run


def _global(operation: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    def run(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        return operation(inputs[0], [1, 2], keepdims=op.attributes["keepdims"])

    return run


def _pad(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.pad(inputs[0], [[0, 0], *op.attributes["padding"], [0, 0]])


def _crop(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    (top, bottom), (left, right) = op.attributes["cropping"]
    _, height, width, _ = inputs[0].shape
    return inputs[0][:, top : height - bottom, left : width - right, :]


def _reshape(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    known = math.prod(size for size in op.shape if size is not None)
    left = math.prod(inputs[0].shape[1:]) // known  # for the one size that may be open
    return tf.reshape(inputs[0], [-1, *(left if size is None else size for size in op.shape)])


def _upsample(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    _, height, width, _ = inputs[0].shape
    rows, columns = op.attributes["size"]
    size = tf.constant([height * rows, width * columns])
    return tf.raw_ops.ResizeNearestNeighbor(images=inputs[0], size=size)


def _relu(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    limit = op.attributes["max_value"]
    return tf.nn.relu(inputs[0]) if limit is None else tf.nn.relu6(inputs[0])


def _slice(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    own = op.attributes
    axes = zip(own["begin"], own["end"], own["strides"], strict=True)
    return inputs[0][(slice(None), *(slice(*axis) for axis in axes))]


def _prelu(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    # The stock converter, with which files are compared, knows a PRELU by this form.
    return tf.nn.relu(inputs[0]) + (-op.attributes["alpha"]) * tf.nn.relu(-inputs[0])


def _activation(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    return {"sigmoid": tf.sigmoid, "tanh": tf.tanh}[op.attributes["activation"]](inputs[0])


def _function(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    return value_functions.evaluate(json.loads(op.attributes["expression"]), inputs[0])


# (operation, inputs, kernel) -> outputs without bias.
KERNEL_OPS: Mapping[str, Callable[..., tf.Tensor]] = {
    "BatchNormalization": _per_channel,
    "ChannelAffine": _per_channel,
    "Conv2D": _conv,
    "Conv2DTranspose": _transpose,
    "DepthwiseConv2D": _depthwise,
    "Dense": _dense,
}
PLAIN_OPS: Mapping[str, Callable[[FrozenOp, Sequence[tf.Tensor]], tf.Tensor]] = {
    "Activation": _activation,
    "Add": lambda op, inputs: inputs[0] + inputs[1],
    "AveragePooling2D": _pool(tf.nn.avg_pool2d),
    "Concatenate": lambda op, inputs: tf.concat(inputs, op.attributes.get("axis", -1)),
    "Cropping2D": _crop,
    "Flatten": _reshape,
    "GlobalAveragePooling2D": _global(tf.reduce_mean),
    "GlobalMaxPooling2D": _global(tf.reduce_max),
    "HardSwish": lambda op, inputs: hard_swish(inputs[0]),
    "LeakyReLU": lambda op, inputs: tf.nn.leaky_relu(inputs[0], float(op.attributes["alpha"])),
    "MaxPooling2D": _pool(tf.nn.max_pool2d),
    "Maximum": lambda op, inputs: tf.maximum(inputs[0], inputs[1]),
    "Minimum": lambda op, inputs: tf.minimum(inputs[0], inputs[1]),
    "Multiply": lambda op, inputs: inputs[0] * inputs[1],
    "PReLU": _prelu,
    "Permute": lambda op, inputs: tf.transpose(inputs[0], [0, *op.attributes["dims"]]),
    "ReLU": _relu,
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": lambda op, inputs: tf.nn.softmax(inputs[0]),
    "Subtract": lambda op, inputs: inputs[0] - inputs[1],
    "UpSampling2D": _upsample,
    "ValueFunction": _function,
    "ZeroPadding2D": _pad,
}
