"""Keras layers of a normalized model that tf_keras does not have. None of them is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.hard_swish import hard_swish

keras = _compat.keras


@_compat.register
class ChannelAffine(keras.layers.Layer):
    """x * scale + offset with one scale and offset per channel, kept as untrained weights.

    What Rescaling, Normalization, hard sigmoid and arithmetic with constants become. Like a batch
    normalization it is folded into the convolution before it where there is one.
    """

    def build(self, input_shape: Any) -> None:
        shape = (int(input_shape[-1]),)
        options = {"shape": shape, "dtype": tf.float32, "trainable": False}
        with _compat.own_scope(self):
            self.scale = self.add_weight(name="scale", initializer="ones", **options)
            self.offset = self.add_weight(name="offset", initializer="zeros", **options)
        super().build(input_shape)

    @_compat.without_autograph
    def call(self, inputs: Any, training: Any = None) -> Any:
        return inputs * tf.cast(self.scale, inputs.dtype) + tf.cast(self.offset, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@_compat.register
class HardSwish(keras.layers.Layer):
    """x * min(max(x + 3, 0), 6) / 6; see `hard_swish`."""

    @_compat.without_autograph
    def call(self, inputs: Any, training: Any = None) -> Any:
        return hard_swish(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@_compat.register
class Slice(keras.layers.Layer):
    """x[:, begin:end:stride, ...]: a part of every sample.

    Args:
        begin: first index on each axis but the batch.
        end: index behind the last one.
        strides: distance of the indices taken, positive.
    """

    def __init__(
        self, begin: Sequence[int], end: Sequence[int], strides: Sequence[int], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.begin, self.end, self.strides = tuple(begin), tuple(end), tuple(strides)

    @_compat.without_autograph
    def call(self, inputs: Any, training: Any = None) -> Any:
        axes = zip(self.begin, self.end, self.strides, strict=True)
        return inputs[(slice(None), *(slice(*axis) for axis in axes))]

    def get_config(self) -> dict[str, Any]:
        own = {"begin": self.begin, "end": self.end, "strides": self.strides}
        return {**super().get_config(), **own}
