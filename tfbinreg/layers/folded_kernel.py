"""`FoldedKernel`: a kernel that trains as it is deployed, with its normalizations folded in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import prescale
from tfbinreg.layers.kernel import BoundLayer, QuantizedKernel
from tfbinreg.network.added_layers import ChannelAffine
from tfbinreg.network.layer_kinds import KINDS

keras = _compat.keras

# Largest bias in units of its grid, above the largest code: not at a whole number, so that biases
# that lie on a grid already keep it.
_ABOVE_LARGEST = 0.25


@_compat.register
class FoldedKernel(BoundLayer, QuantizedKernel):
    """Runs a layer whose kernel is quantized with the normalizations behind it folded in.

    With K and C the factor and the offset, per output channel, that the normalizations make of the
    layer's outputs at their moving statistics, inference computes exactly what is deployed,

        y = conv(x, Q(w K)) + Q(C)

    with one step for the whole folded kernel (or one per channel). While the statistics are not
    frozen, training normalizes by those of the batch, of the float convolution conv(x, w), and
    keeps the moving ones up to date (the correction of Krishnamoorthi, arXiv 1806.08342):

        y = conv(x, Q(w K)) sigma / sigma_batch + Q(C_batch)

    Once frozen (`statistics_frozen` is 1; see `FreezeBatchNorm`) training computes what inference
    does. Gradients reach w, gamma and beta through the folded kernel and bias.

    A bias of `bias_bits` bits is a code times 2^k times the accumulator's unit (input scale *
    kernel scale / pre-scale), with the smallest k >= 0 that fits the layer's largest bias.

    Args:
        layer: the layer, without bias and activation.
        quantize_config: for its kernel.
        norms: BatchNormalization and ChannelAffine layers, in the order they act; none of them is
            called.
        use_bias: whether a bias is added before the normalizations.
        bias_bits: 8, or None for a bias of 32 bits, which `finalize` rounds.
        source: name of the `QuantizeActivation` on whose grid its inputs lie.
    """

    def __init__(
        self,
        layer: Any,
        quantize_config: Any,
        norms: Sequence[Any] = (),
        use_bias: bool = False,
        bias_bits: int | None = None,
        source: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, quantize_config, **kwargs)
        self.norms, self.use_bias, self.bias_bits = list(norms), use_bias, bias_bits
        self.source = source

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        shape = self.layer.compute_output_shape(input_shape)
        self._channels = int(shape[-1])
        with tf.name_scope(f"{self.name}/"):
            self.bias = None
            if self.use_bias:
                self.bias = self.add_weight("bias", (self._channels,), initializer="zeros")
            self.statistics_frozen = self.add_weight(
                "statistics_frozen",
                (),
                dtype=tf.int32,
                initializer="zeros",
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
        for norm in self.norms:
            with tf.name_scope(f"{norm.name}/"):
                norm.build(shape)

    @property
    def trainable_weights(self) -> list[tf.Variable]:
        norms = [weight for norm in self.norms for weight in norm.trainable_weights]
        return super().trainable_weights + (norms if self.trainable else [])

    @property
    def non_trainable_weights(self) -> list[tf.Variable]:
        kind = "non_trainable_weights" if self.trainable else "weights"
        norms = [weight for norm in self.norms for weight in getattr(norm, kind)]
        others = super().non_trainable_weights
        return others[:-1] + norms + others[-1:]  # statistics_frozen is last

    def set_layer_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Take the weights of the layer as it was: kernel and, if it had one, bias."""
        self.kernels[0][0].assign(weights[0])
        if self.bias is not None:
            self.bias.assign(weights[1])

    @property
    def batch_norms(self) -> list[Any]:
        """Those of its normalizations that have statistics."""
        return [norm for norm in self.norms if not isinstance(norm, ChannelAffine)]

    def latent(self, kernel: tf.Variable, attached: bool = True) -> tf.Tensor:
        factor, _ = self.fold()
        return self._times(kernel, factor if attached else tf.stop_gradient(factor))

    def latent_factor(self) -> tf.Tensor:
        return self._broadcast(self.kernels[0][0], self.fold()[0])

    def largest_slope(self) -> tf.Tensor:
        return tf.reduce_max(tf.square(self.fold()[0]))

    def fold(self) -> tuple[tf.Tensor, tf.Tensor]:
        """(K, C) at the moving statistics, float32, (output channels,)."""
        moving = [(norm.moving_mean, norm.moving_variance) for norm in self.batch_norms]
        factor, offset, _ = self._fold(lambda *_: moving.pop(0))
        return factor, offset

    def integer_bias(self) -> np.ndarray:
        """The bias of `bias_bits` bits in accumulator units, int64, (output channels,)."""
        codes, shift, _ = self._bias_codes(self.fold()[1])
        return codes.numpy().astype(np.int64) << int(shift)

    @_compat.without_autograph
    def call(self, inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        ((kernel, quantizer, variables),) = self.kernels
        with _compat.float32_variables():
            factor, offset = self.fold()
            folded = self._times(kernel, factor)
            quantized = quantizer(folded, training, weights=variables)
            ratio: Any = 1.0
            if training and self.trainable and self.batch_norms:
                ratio, offset = tf.cond(
                    self.statistics_frozen > 0,
                    lambda: (tf.ones_like(offset), offset),
                    lambda: self._normalize_by_batch(inputs, kernel),
                )
            offset = self._quantized_bias(offset)
        output = self._run(inputs, quantized)
        return output * tf.cast(ratio, output.dtype) + tf.cast(offset, output.dtype)

    def get_config(self) -> dict[str, Any]:
        own = {
            "norms": [keras.saving.serialize_keras_object(norm) for norm in self.norms],
            "use_bias": self.use_bias,
            "bias_bits": self.bias_bits,
            "source": self.source,
        }
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FoldedKernel:
        norms = [
            # An .h5 file or a SavedModel names no modules.
            keras.layers.deserialize(norm, use_legacy_format="module" not in norm)
            for norm in config["norms"]
        ]
        return super().from_config({**config, "norms": norms})

    def _run(self, inputs: Any, kernel: tf.Tensor) -> tf.Tensor:
        """The inner layer with another kernel."""
        ((latent, _, _),) = self.kernels
        kernel = tf.cast(kernel, self.compute_dtype)
        self.quantize_config.set_quantize_weights(self.layer, [kernel])
        try:
            return self.layer.call(inputs)
        finally:
            self.quantize_config.set_quantize_weights(self.layer, [latent])

    def _times(self, kernel: Any, factor: tf.Tensor) -> tf.Tensor:
        """The kernel with each output channel multiplied by its factor."""
        return kernel * self._broadcast(kernel, factor)

    def _broadcast(self, kernel: Any, factor: tf.Tensor) -> tf.Tensor:
        """Factors of output channels, shaped to broadcast against the kernel."""
        axis = KINDS[type(self.layer).__name__].channel_axis or 0
        return (
            factor
            if axis == len(kernel.shape) - 1
            else tf.reshape(factor, (kernel.shape[axis], -1))
        )

    def _fold(
        self, statistics_of: Callable[[Any, Any], tuple[Any, Any]]
    ) -> tuple[tf.Tensor, tf.Tensor, list[Any]]:
        """(K, C) and the (mean, variance) that each batch normalization used.

        Args:
            statistics_of: called with K and C as far as the normalization, for its statistics.
        """
        factor: Any = tf.ones(self._channels)
        offset = tf.zeros(self._channels) if self.bias is None else tf.convert_to_tensor(self.bias)
        used = []
        for norm in self.norms:
            if isinstance(norm, ChannelAffine):
                own_factor, own_offset = norm.scale, norm.offset
            else:
                mean, variance = statistics_of(factor, offset)
                used.append((mean, variance))
                own_factor = tf.math.rsqrt(variance + norm.epsilon)
                own_factor *= norm.gamma if norm.scale else 1.0
                own_offset = (norm.beta if norm.center else 0.0) - own_factor * mean
            factor, offset = own_factor * factor, own_factor * offset + own_offset
        return factor, offset, used

    def _normalize_by_batch(self, inputs: Any, kernel: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """sigma / sigma_batch and C_batch; moves the moving statistics on."""
        outputs = tf.cast(self._run(inputs, tf.convert_to_tensor(kernel)), tf.float32)
        mean, variance = tf.nn.moments(outputs, list(range(len(outputs.shape) - 1)))
        _, offset, used = self._fold(lambda k, c: (k * mean + c, k * k * variance))
        ratio = tf.ones(self._channels)
        for norm, (own_mean, own_variance) in zip(self.batch_norms, used, strict=True):
            ratio *= tf.sqrt(norm.moving_variance + norm.epsilon)
            ratio *= tf.math.rsqrt(own_variance + norm.epsilon)
            if norm.trainable:
                for moving, value in (
                    (norm.moving_mean, own_mean),
                    (norm.moving_variance, own_variance),
                ):
                    moving.assign(moving * norm.momentum + value * (1.0 - norm.momentum))
        return ratio, offset

    def _quantized_bias(self, bias: tf.Tensor) -> tf.Tensor:
        """`bias` on its grid, once there is one; the gradient passes straight through."""
        if self.bias_bits is None or self._source is None:
            return bias
        codes, shift, unit = self._bias_codes(bias)
        rounded = tf.where(self._source.is_ready, codes * unit * 2.0**shift, bias)
        return bias + tf.stop_gradient(rounded - bias)

    def _bias_codes(self, bias: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Codes, k, and the accumulator's unit per channel: the bias is codes * 2^k * unit."""
        ((_, quantizer, variables),) = self.kernels
        grid = quantizer.grid_now(variables)
        unit = grid.scale * self._source.stored_grid()[0] / prescale(grid.qmin, grid.qmax)
        unit = tf.repeat(
            tf.reshape(unit, [-1]), self._channels // max(1, unit.shape.num_elements())
        )
        largest = (2.0 ** ((self.bias_bits or 0) - 1) - 1.0 + _ABOVE_LARGEST) * unit
        shift = tf.math.log(tf.reduce_max(tf.abs(bias) / largest)) / math.log(2.0)
        shift = tf.maximum(tf.math.ceil(shift), 0.0)
        return tf.floor(bias / (unit * 2.0**shift) + 0.5), shift, unit
