"""The stock TFLiteConverter on the same network, with placeholder numbers, for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.deploy.frozen import FrozenGraph, FrozenOp
from tfbinreg.deploy.tf_ops import KERNEL_OPS, PLAIN_OPS

_LOWEST = -128  # of int8; a grid whose zero point lies there clips like a ReLU by itself


def stock_converter(graph: FrozenGraph) -> Any:
    """The stock converter of a traced graph of 8-bit fake-quant operations."""
    shapes = [tf.TensorSpec([1, *graph.ops[i].shape], tf.float32) for i in graph.inputs]

    # Without autograph, which is slow and has nothing to do: no branch hangs on a tensor.
    @tf.function(input_signature=shapes, autograph=False)
    def run(*inputs: tf.Tensor) -> list[tf.Tensor]:
        given = dict(zip(graph.inputs, inputs, strict=True))
        tensors: list[tf.Tensor] = []
        for index, op in enumerate(graph.ops):
            with tf.name_scope(f"op{index}"):
                taken = [tensors[i] for i in op.inputs] or [given[index]]
                tensors.append(_emit(op, taken, np.random.default_rng(index)))
        return [tensors[index] for index in graph.outputs]

    module = tf.Module()
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [run.get_concrete_function()], module
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter


def _emit(op: FrozenOp, inputs: Sequence[tf.Tensor], random: np.random.Generator) -> tf.Tensor:
    """The output of one operation, on its grid; its weights are random placeholders."""
    grid = op.grid
    if grid is None:
        raise ValueError(f"{op.name!r} has no grid.")
    output = inputs[0]
    if op.kernel is not None:
        # Distinct placeholders: equal constants would be merged, zeros optimized away.
        kernel = random.integers(1, 127, op.kernel.codes.shape).astype(np.float32)
        weights = tf.quantization.fake_quant_with_min_max_args(
            tf.constant(kernel), -127.0, 127.0, narrow_range=True
        )
        output = KERNEL_OPS[op.kind](op, inputs[0], weights)
        bias = random.integers(1, 127, op.kernel.bias.shape).astype(np.float32)
        output = tf.nn.bias_add(output, tf.constant(bias))
    elif op.kind != "InputLayer":
        output = PLAIN_OPS[op.kind](op, inputs)
    saturates = op.kind == "Conv2DTranspose" and grid.zero_point == _LOWEST
    if op.relu and not saturates:
        output = tf.nn.relu(output) if op.relu_limit is None else tf.nn.relu6(output)
    scale, zero_point = float(grid.scale), grid.zero_point
    low, high = (-128 - zero_point) * scale, (127 - zero_point) * scale
    return tf.quantization.fake_quant_with_min_max_args(output, low, high)
