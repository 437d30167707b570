"""Keras layers of a normalized model that tf_keras does not have. None of them is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.network.hard_swish import hard_swish
from tfbinreg.network.value_functions import evaluate

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


def keeps_positive(affine: Any) -> bool:
    """Whether a ChannelAffine, or a layer without weights, makes no positive number negative."""
    return all(np.all(weight >= 0) for weight in affine.get_weights())


@_compat.register
class HardSwish(keras.layers.Layer):
    """x * min(max(x + 3, 0), 6) / 6; see `hard_swish`."""

    @_compat.without_autograph
    def call(self, inputs: Any, training: Any = None) -> Any:
        return hard_swish(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@_compat.register
class ValueFunction(keras.layers.Layer):
    """An activation function that TFLite has no operator for: each value by itself.

    Args:
        expression: as JSON.
    """

    def __init__(self, expression: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.expression = expression

    @_compat.without_autograph
    def call(self, inputs: Any, training: Any = None) -> Any:
        return evaluate(json.loads(self.expression), inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "expression": self.expression}


@_compat.register
class Slice(keras.layers.Layer):
    """x[:, begin:end:stride, ...]: a part of every sample.

    Args:
        begin: first index on each axis but the batch.
        end: index behind the last one; None for all of an axis whose size is open.
        strides: distance of the indices taken, positive.
    """

    def __init__(
        self, begin: Sequence[int], end: Sequence[int | None], strides: Sequence[int], **kwargs: Any
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


@_compat.register
class ResizeBilinear(keras.layers.Layer):
    """An image of another size, interpolated between its pixels along height and width.

    Args:
        size: (height, width) of the result; None for multiples of the input's.
        factor: how many times that is; None with `size`.
        half_pixel_centers: whether pixels are areas, so that the corners of both images meet.
        align_corners: whether the centers of the corner pixels meet.
    """

    def __init__(
        self,
        size: Sequence[int] | None = None,
        factor: Sequence[int] | None = None,
        half_pixel_centers: bool = True,
        align_corners: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size, self.factor = (own and tuple(map(int, own)) for own in (size, factor))
        self.half_pixel_centers, self.align_corners = half_pixel_centers, align_corners

    @_compat.without_autograph
    def call(self, inputs: Any, training: Any = None) -> Any:
        size = self.compute_output_shape(inputs.shape)[1:3]
        if None in size:
            size = tf.shape(inputs)[1:3] * self.factor
        resized = tf.raw_ops.ResizeBilinear(
            images=inputs,
            size=size,
            align_corners=self.align_corners,
            half_pixel_centers=self.half_pixel_centers,
        )
        return tf.cast(resized, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, height, width, channels = input_shape
        rows, columns = self.factor or (1, 1)
        multiple = (height and height * rows, width and width * columns)
        return tf.TensorShape((batch, *(self.size or multiple), channels))

    def get_config(self) -> dict[str, Any]:
        names = ("size", "factor", "half_pixel_centers", "align_corners")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@_compat.register
class PaddedMaxPooling2D(keras.layers.Layer):
    """The largest number of each window of an image with a border that no window chooses.

    What max pooling behind a padding with -inf becomes: no tensor between layers holds numbers
    that are not finite.

    Args:
        pool_size: height and width of a window.
        strides: distance of the windows along both.
        margins: rows above and below, columns before and behind; fewer than a window has, so that
            each window sees a part of the image.
    """

    def __init__(
        self,
        pool_size: Sequence[int],
        strides: Sequence[int],
        margins: Sequence[Sequence[int]],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pool_size, self.strides = tuple(pool_size), tuple(strides)
        self.margins = tuple(tuple(pair) for pair in margins)

    @_compat.without_autograph
    def call(self, inputs: Any, training: Any = None) -> Any:
        border = [(0, 0), *self.margins, (0, 0)]
        padded = tf.pad(inputs, border, constant_values=inputs.dtype.min)
        return tf.nn.max_pool2d(padded, self.pool_size, self.strides, "VALID")

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, *sizes, channels = input_shape
        own = zip(sizes, self.pool_size, self.strides, self.margins, strict=True)
        windows = [
            None if size is None else (size + sum(pair) - pool) // stride + 1
            for size, pool, stride, pair in own
        ]
        return tf.TensorShape((batch, *windows, channels))

    def get_config(self) -> dict[str, Any]:
        names = ("pool_size", "strides", "margins")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@_compat.register
class Augmentation(keras.layers.Layer):
    """A Keras 3 layer that varies the samples in training and does nothing at inference.

    Keras 3 computes it: tf_keras has no counterpart of some of these layers, and others of the
    same name that do something else.

    Args:
        layer: the Keras 3 layer, or its serialized configuration as JSON.
    """

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        import keras as keras3

        if not isinstance(layer, str):
            layer = json.dumps(keras3.saving.serialize_keras_object(layer))
        self.layer_config = layer
        made = keras3.saving.deserialize_keras_object(json.loads(layer))
        # Not self.layer = ...: tf_keras would search it for weights of its own kind.
        object.__setattr__(self, "layer", made)
        for index, variable in enumerate(made.variables):  # states of random generators
            if isinstance(variable.value, tf.Variable):
                self._track_trackable(variable.value, f"state{index}")

    @property
    def non_trainable_weights(self) -> list[tf.Variable]:
        """None: Keras takes the states for weights once it has loaded them from a folder."""
        return []

    @_compat.without_autograph
    def call(self, inputs: Any, training: Any = None) -> Any:
        if tf.is_tensor(training):
            return tf.cond(tf.cast(training, tf.bool), lambda: self._vary(inputs), lambda: inputs)
        return self._vary(inputs) if training else inputs

    def _vary(self, inputs: Any) -> tf.Tensor:
        varied = tf.convert_to_tensor(self.layer(inputs, training=True))
        return tf.ensure_shape(tf.cast(varied, inputs.dtype), inputs.shape)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer": self.layer_config}
