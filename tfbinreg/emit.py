"""Frozen operations as TensorFlow operations that the stock converter turns into TFLite's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.freeze import FrozenOp

_LOWEST = -128  # of int8; a grid whose zero point lies there clips like a ReLU by itself


def emit(op: FrozenOp, inputs: Sequence[tf.Tensor], random: np.random.Generator) -> tf.Tensor:
    """The output of one operation, on its grid; its weights are random placeholders."""
    grid = op.grid
    assert grid is not None
    output = inputs[0]
    if op.kernel is not None:
        # Distinct placeholders: equal constants would be merged, zeros optimized away.
        kernel = random.integers(1, 127, op.kernel.codes.shape).astype(np.float32)
        weights = tf.quantization.fake_quant_with_min_max_args(
            tf.constant(kernel), -127.0, 127.0, narrow_range=True
        )
        output = KERNEL_OPS[op.kind](op.layer, inputs[0], weights)
        bias = random.integers(1, 127, op.kernel.bias.shape).astype(np.float32)
        output = tf.nn.bias_add(output, tf.constant(bias))
    elif op.kind != "InputLayer":
        output = _PLAIN_OPS[op.kind](op, inputs)
    # TRANSPOSE_CONV does not contain a ReLU in every runtime; saturation can do the same.
    saturates = op.kind == "Conv2DTranspose" and grid.zero_point == _LOWEST
    if op.relu and not saturates:
        output = tf.nn.relu(output) if op.relu_limit is None else tf.nn.relu6(output)
    if output is inputs[0] and op.kind != "InputLayer":
        return output
    scale, zero_point = float(grid.scale), grid.zero_point
    low, high = (-128 - zero_point) * scale, (127 - zero_point) * scale
    return tf.quantization.fake_quant_with_min_max_args(output, low, high)


def is_identity(op: FrozenOp) -> bool:
    """Whether an operation hands its input on as it is."""
    return _PLAIN_OPS.get(op.kind) is _identity


def _conv(layer: Any, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    padding = layer.padding.upper()
    return tf.nn.conv2d(inputs, kernel, layer.strides, padding, dilations=layer.dilation_rate)


def _depthwise(layer: Any, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    strides = [1, *layer.strides, 1]
    padding = layer.padding.upper()
    return tf.nn.depthwise_conv2d(inputs, kernel, strides, padding, dilations=layer.dilation_rate)


def _transpose(layer: Any, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    shape = [tf.shape(inputs)[0], *layer.compute_output_shape(inputs.shape)[1:]]
    return tf.nn.conv2d_transpose(inputs, kernel, shape, layer.strides, layer.padding.upper())


def _dense(layer: Any, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.matmul(inputs, kernel)


def _per_channel(layer: Any, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.nn.depthwise_conv2d(inputs, kernel, [1, 1, 1, 1], "VALID")


def _pool(operation: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    def run(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        layer = op.layer
        return operation(inputs[0], layer.pool_size, layer.strides, layer.padding.upper())

    return run


def _global(operation: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    def run(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        return operation(inputs[0], [1, 2], keepdims=op.layer.keepdims)

    return run


def _pad(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.pad(inputs[0], [[0, 0], *op.layer.padding, [0, 0]])


def _crop(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    (top, bottom), (left, right) = op.layer.cropping
    _, height, width, _ = inputs[0].shape
    return inputs[0][:, top : height - bottom, left : width - right, :]


def _reshape(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    shape = op.layer.compute_output_shape(inputs[0].shape)
    return tf.reshape(inputs[0], [1, *shape[1:]])


def _upsample(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    _, height, width, _ = inputs[0].shape
    rows, columns = op.layer.size
    size = tf.constant([height * rows, width * columns])
    return tf.raw_ops.ResizeNearestNeighbor(images=inputs[0], size=size)


def _identity(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    return inputs[0]


def _relu(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    limit = op.layer.max_value
    return tf.nn.relu(inputs[0]) if limit is None else tf.nn.relu6(inputs[0])


def _prelu(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    # The converter knows a PRELU by this form.
    with tf.init_scope():
        slopes = op.layer.alpha.numpy()
    return tf.nn.relu(inputs[0]) + (-slopes) * tf.nn.relu(-inputs[0])


def _activation(op: FrozenOp, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    return op.layer.activation(inputs[0])


# (layer, inputs, kernel) -> outputs without bias.
KERNEL_OPS: Mapping[str, Callable[..., tf.Tensor]] = {
    "BatchNormalization": _per_channel,
    "ChannelAffine": _per_channel,
    "Conv2D": _conv,
    "Conv2DTranspose": _transpose,
    "DepthwiseConv2D": _depthwise,
    "Dense": _dense,
}
_PLAIN_OPS: Mapping[str, Callable[[FrozenOp, Sequence[tf.Tensor]], tf.Tensor]] = {
    "Activation": _activation,
    "Add": lambda op, inputs: inputs[0] + inputs[1],
    "AveragePooling2D": _pool(tf.nn.avg_pool2d),
    "Concatenate": lambda op, inputs: tf.concat(inputs, -1),
    "Cropping2D": _crop,
    "Dropout": _identity,
    "Flatten": _reshape,
    "GlobalAveragePooling2D": _global(tf.reduce_mean),
    "GlobalMaxPooling2D": _global(tf.reduce_max),
    "HardSwish": lambda op, inputs: inputs[0] * tf.nn.relu6(inputs[0] + 3.0) * (1.0 / 6.0),
    "LeakyReLU": lambda op, inputs: tf.nn.leaky_relu(inputs[0], float(op.layer.alpha)),
    "MaxPooling2D": _pool(tf.nn.max_pool2d),
    "Multiply": lambda op, inputs: inputs[0] * inputs[1],
    "PReLU": _prelu,
    "ReLU": _relu,
    "Reshape": _reshape,
    "Slice": lambda op, inputs: op.layer.call(inputs[0]),
    "Softmax": lambda op, inputs: tf.nn.softmax(inputs[0]),
    "SpatialDropout2D": _identity,
    "Subtract": lambda op, inputs: inputs[0] - inputs[1],
    "UpSampling2D": _upsample,
    "ZeroPadding2D": _pad,
}
