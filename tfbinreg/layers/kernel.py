"""The Keras layers of a quantized model: a kernel wrapper and activation grids."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.recipe import Recipe
from tfbinreg.methods.trace_facts import exceeds, shapes_suffice
from tfbinreg.methods.uniform_activations import Observer, break_ties
from tfbinreg.network.grouped_convolution import compute_by_groups
from tfbinreg.network.hard_swish import hard_swish, hard_swish_table

keras = _compat.keras


def _short_name(weight: tf.Variable) -> str:
    return weight.name.split(":")[0].split("/")[-1]


class BoundLayer:
    """A layer that computes with the grid its inputs are on.

    Attributes:
        source: name of the `QuantizeActivation` that put them there.
    """

    source: str | None = None
    _source: Any = None

    def bind(self, source: QuantizeActivation) -> None:
        """Bind it to the layer named `source`, once the model is built."""
        # Not self._source = ...: Keras would count the other layer's weights as this one's.
        object.__setattr__(self, "_source", source)


class LatentKernel(NamedTuple):
    """A kernel that is quantized: the trained weights, and how.

    Attributes:
        weight: the trained variable.
        quantizer: a tfmot `Quantizer` that a method made.
        variables: the quantizer's.
    """

    weight: tf.Variable
    quantizer: Any
    variables: dict[str, tf.Variable]


@_compat.register
class QuantizedKernel(_compat.QuantizeWrapper):
    """Runs a layer with its kernel quantized by the wrapped `QuantizeConfig`.

    tfmot's `QuantizeWrapperV2` lists the inner layer's weights before a layer that comes from a
    config has built them. A loaded model therefore orders its weights differently, and neither
    `load_model` nor `load_weights` works with trainable quantizer variables. This subclass, which
    tfmot's `quantize_apply` passes through untouched, builds the inner layer first and leaves the
    layer's own kernel attribute as it found it.
    """

    made_with: Recipe | None = None
    kernels: list[LatentKernel]

    def remember(self, recipe: Recipe) -> None:
        """Store the recipe of the model, for models that are cloned from its layers."""
        self.made_with = recipe

    def build(self, input_shape: Any) -> None:
        with _compat.own_scope(self):
            keras.layers.Wrapper.build(self, input_shape)
            compute_by_groups(self.layer)
            weights = self.quantize_config.get_weights_and_quantizers(self.layer)
            kernels = [
                LatentKernel(
                    weight, quantizer, quantizer.build(weight.shape, _short_name(weight), self)
                )
                for weight, quantizer in weights
            ]
        self.channels = int(self.layer.compute_output_shape(input_shape)[-1])
        # Not self.kernels = ...: Keras would list the inner layer's kernel twice.
        object.__setattr__(self, "kernels", kernels)

    @_compat.without_autograph
    def call(self, inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        with _compat.float32_variables():
            quantized = [
                own.quantizer(tf.convert_to_tensor(own.weight), training, weights=own.variables)
                for own in self.kernels
            ]
        quantized = [tf.cast(kernel, self.compute_dtype) for kernel in quantized]
        config, latent = self.quantize_config, [own.weight for own in self.kernels]
        config.set_quantize_weights(self.layer, quantized)
        try:
            return self.layer.call(inputs, **kwargs)
        finally:
            config.set_quantize_weights(self.layer, latent)

    @property
    def trainable_weights(self) -> list[tf.Variable]:
        """None in a frozen layer, whose step is then fixed like its kernel."""
        return super().trainable_weights if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[tf.Variable]:
        """In an order that keeps `weights` unchanged when something is frozen, because .h5 files
        store weights by position.
        """
        if self.trainable:
            return super().non_trainable_weights
        return self.layer.weights + self._trainable_weights + self._non_trainable_weights

    def latent(self, kernel: tf.Variable, attached: bool = True) -> Any:
        """The part of a kernel that is quantized: here the kernel itself, with pruned channels set
        to 0, so that penalties and statistics do not see weights without effect.

        Args:
            kernel: the trained variable.
            attached: whether a factor that multiplies it gets a gradient.
        """
        alive = self.alive()
        return kernel if alive is None else kernel * alive

    def latent_factor(self) -> Any:
        """What turns a kernel into latent weights, as a broadcastable factor: 1.0, or 0.0 in pruned
        channels.
        """
        alive = self.alive()
        return 1.0 if alive is None else alive

    def largest_slope(self) -> Any:
        """The largest square of d latent / d kernel."""
        return tf.reduce_max(tf.square(self.latent_factor()))

    def alive(self) -> tf.Tensor | None:
        """1.0 for each channel of the kernel and 0.0 for pruned ones, broadcastable to it; None if
        no channel is pruned.
        """
        (own,) = self.kernels
        bits = getattr(own.quantizer, "channel_bits", None)
        if bits is None or all(bits):
            return None
        shape = [1] * len(own.weight.shape)
        shape[own.quantizer.axis] = -1
        return tf.reshape(tf.constant(np.sign(bits), tf.float32), shape)

    def initialize_steps(self, start: str = "mse") -> None:
        """Set the steps from the current kernel; `start` as in `Recipe.weight_start`."""
        for own in self.kernels:
            own.quantizer.initialize(own.variables, self.latent(own.weight).numpy(), start)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)


@_compat.register
class QuantizeActivation(keras.layers.Layer):
    """Puts a tensor on the grid its quantizer learns.

    It is a separate layer, rather than an output quantizer inside a wrapper, so that several
    tensors can share one grid by calling the same layer (pooling in, pooling out).

    Args:
        quantizer: a tfmot `Quantizer` with `settle`.
    """

    _observer: Observer | None

    def __init__(self, quantizer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.quantizer = quantizer
        self.observe_with(None)

    def build(self, input_shape: Any) -> None:
        with _compat.own_scope(self):
            self.grid_variables = self.quantizer.build(input_shape, "activation", self)
        super().build(input_shape)

    @_compat.without_autograph
    def call(
        self,
        inputs: Any,
        training: Any = None,
        member: int | None = 0,
        averaged: bool = False,
    ) -> Any:
        """Quantize `inputs`.

        Args:
            inputs: any float tensor.
            training: whether in training.
            member: the index of this tensor among those that share the grid and were not on it
                before; None if it is made from such tensors, by pooling or a ReLU.
            averaged: whether it holds means of numbers on this same grid.
        """
        if shapes_suffice() and not tf.executing_eagerly():
            return tf.identity(inputs)
        if averaged:
            inputs = break_ties(inputs, *self.stored_grid())
        if self._observer is not None and member is not None:
            self._observer.see(inputs)
        return self.quantizer(inputs, training, weights=self.grid_variables, member=member)

    def observe_with(self, observer: Observer | None) -> None:
        """Show the values of eager passes to an observer before quantization; None stops this."""
        # Not self._observer = ...: Keras would track it.
        object.__setattr__(self, "_observer", observer)

    @property
    def is_ready(self) -> Any:
        """Whether the grid is known: prescribed, or set from data. A bool or a scalar tensor."""
        return exceeds(self.grid_variables["initialized"], 0) if self.grid_variables else True

    def stored_grid(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Scale, float32, and zero point, int32, of the int8 tensor in a file (`Grid`)."""
        return self.quantizer.stored_grid(self.grid_variables)

    def coarsen(self, factor: float) -> None:
        """Make the steps of the grid larger."""
        quantizer, variables = self.quantizer, self.grid_variables
        quantizer.start_from(quantizer.covered(variables) * factor, variables)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        quantizer = keras.saving.serialize_keras_object(self.quantizer)
        return {**super().get_config(), "quantizer": quantizer}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> QuantizeActivation:
        config = dict(config)
        quantizer = keras.saving.deserialize_keras_object(config.pop("quantizer"))
        return cls(quantizer, **config)


@_compat.register
class QuantizedHardSwish(BoundLayer, QuantizeActivation):
    """Hard swish onto a learned grid; at inference it uses the runtimes' own integer arithmetic.

    Args:
        quantizer: as for `QuantizeActivation`.
        operation: name of the float layer that it replaces.
        source: name of the `QuantizeActivation` whose grid its inputs are on.
    """

    def __init__(self, quantizer: Any, operation: str, source: str, **kwargs: Any) -> None:
        super().__init__(quantizer, **kwargs)
        self.operation, self.source = operation, source

    @_compat.without_autograph
    def call(
        self,
        inputs: Any,
        training: Any = None,
        member: int | None = 0,
        averaged: bool = False,
    ) -> Any:
        smooth = super().call(hard_swish(inputs), training, member)
        source = self._source
        if training or source is None:
            return smooth
        ready = [source.is_ready, self.is_ready]
        if all(known is True for known in ready):
            return self._exact(inputs, source)
        ready = tf.reduce_all(ready)
        return tf.cond(ready, lambda: self._exact(inputs, source), lambda: smooth)

    def _exact(self, inputs: tf.Tensor, source: QuantizeActivation) -> tf.Tensor:
        """The int8 kernel's outputs for `inputs`, which are on the grid of `source`."""
        (scale, zero_point), (out_scale, out_zero_point) = source.stored_grid(), self.stored_grid()
        table = hard_swish_table(scale, zero_point, out_scale, out_zero_point)
        values = tf.cast(inputs, tf.float32)
        stored = tf.cast(tf.round(values / scale), tf.int32) + zero_point
        codes = tf.gather(table, tf.clip_by_value(stored + 128, 0, 255)) - out_zero_point
        return tf.cast(tf.cast(codes, tf.float32) * out_scale, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "operation": self.operation, "source": self.source}
