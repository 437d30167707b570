"""Convolutions in groups of channels, computed as one convolution for each group.

TensorFlow has no kernel for them on CPUs. Keras compiles them with XLA, which takes three to
thirty times as long as convolutions of the groups, forward and backward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfbinreg import _compat

Convolution = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # inputs, kernel -> outputs


def by_groups(
    convolve: Convolution, groups: int, inputs: tf.Tensor, kernel: tf.Tensor
) -> tf.Tensor:
    """A convolution whose outputs of group g see the input channels of group g alone.

    Args:
        convolve: a convolution without groups.
        groups: divides channels and filters.
        inputs: (batch, height, width, channels).
        kernel: (height, width, channels / groups, filters).

    Returns:
        (batch, rows, columns, filters).
    """
    if groups == 1:
        return convolve(inputs, kernel)
    parts = zip(tf.split(inputs, groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([convolve(*part) for part in parts], -1)


def compute_by_groups(layer: Any) -> None:
    """Let a Conv2D layer with groups compute them one by one."""
    if getattr(layer, "groups", 1) > 1:
        function = functools.partial(by_groups, layer.convolution_op, layer.groups)
        _compat.set_grouped_convolution(layer, function)
