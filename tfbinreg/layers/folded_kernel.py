"""`FoldedKernel`: a kernel that trains as it is deployed, with its normalizations folded in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import prescale
from tfbinreg.layers.kernel import BoundLayer, QuantizedKernel
from tfbinreg.network.added_layers import ChannelAffine
from tfbinreg.network.layer_kinds import KINDS
from tfbinreg.network.normalizations import TENSORS, Affine, Statistics, affine_of, fold_norms

keras = _compat.keras

# Largest bias in units of its grid, above the largest code: not at a whole number, so that biases
# that lie on a grid already keep it.
_ABOVE_LARGEST = 0.25


@dataclasses.dataclass(frozen=True, eq=False)
class BiasCodes:
    """A bias of few bits: codes * 2^shift * unit.

    Attributes:
        codes: whole numbers, float32, (output channels,).
        shift: float32, ().
        unit: of the accumulator, float32, (output channels,).
    """

    codes: tf.Tensor
    shift: tf.Tensor
    unit: tf.Tensor

    def values(self) -> tf.Tensor:
        """The bias, float32, (output channels,)."""
        return self.codes * self.unit * 2.0**self.shift


@_compat.register
class FoldedKernel(BoundLayer, QuantizedKernel):
    """Runs a layer whose kernel is quantized with the normalizations after it folded in.

    Let K and C be the factor and the offset, per output channel, that the normalizations apply to
    the layer's outputs at their moving statistics. Then inference computes exactly what is
    deployed,

        y = conv(x, Q(w K)) + Q(C)

    with one step for the whole folded kernel (or one per channel). While the statistics are not
    frozen, training normalizes with the batch statistics of the float convolution conv(x, w) and
    keeps the moving statistics up to date (the correction of Krishnamoorthi, arXiv 1806.08342):

        y = conv(x, Q(w K)) sigma / sigma_batch + Q(C_batch)

    Once they are frozen (`statistics_frozen` is 1; see `FreezeBatchNorm`), training computes what
    inference does. Gradients reach w, gamma and beta through the folded kernel and bias.

    A bias of `bias_bits` bits is a code times 2^k times the accumulator's unit (input scale *
    kernel scale / pre-scale), with the smallest k >= 0 that fits the layer's largest bias.

    Args:
        layer: the layer, without bias and activation.
        quantize_config: for its kernel.
        norms: BatchNormalization and ChannelAffine layers, in the order in which they act; none of
            them is called.
        use_bias: whether a bias is added before the normalizations.
        bias_bits: 8, or None for a bias of 32 bits, which `finalize` rounds.
        source: name of the `QuantizeActivation` whose grid its inputs are on.
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
        with tf.name_scope(f"{self.name}/"):
            self.bias = None
            if self.use_bias:
                self.bias = self.add_weight("bias", (self.channels,), initializer="zeros")
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
        """Take over the weights of the original layer: kernel and, if it had one, bias."""
        self.kernels[0].weight.assign(weights[0])
        if self.bias is not None:
            self.bias.assign(weights[1])

    @property
    def batch_norms(self) -> list[Any]:
        """Its normalizations that have statistics."""
        return [norm for norm in self.norms if not isinstance(norm, ChannelAffine)]

    def latent(self, kernel: tf.Variable, attached: bool = True) -> tf.Tensor:
        factor = self.latent_factor()
        return kernel * (factor if attached else tf.stop_gradient(factor))

    def latent_factor(self) -> tf.Tensor:
        return self._broadcast(self.kernels[0].weight, self.fold().factor) * super().latent_factor()

    def fold(self) -> Affine:
        """(K, C) at the moving statistics, float32, (output channels,)."""
        return fold_norms(self._before_norms(), self.norms, TENSORS)

    def integer_bias(self) -> np.ndarray:
        """The bias of `bias_bits` bits in accumulator units, int64, (output channels,)."""
        bias = self._bias_codes(self.fold().offset)
        return bias.codes.numpy().astype(np.int64) << int(bias.shift)

    @_compat.without_autograph
    def call(self, inputs: Any, training: Any = None, by_batch: bool = False, **kwargs: Any) -> Any:
        """Run the layer.

        Args:
            inputs: any float tensor.
            training: whether in training.
            by_batch: whether to use the statistics of the batch at inference too.
        """
        (own,) = self.kernels
        with _compat.float32_variables():
            folded = self.fold()
            latent = own.weight * self._broadcast(own.weight, folded.factor)
            alive = super().latent(own.weight)
            quantized = own.quantizer(latent, training, weights=own.variables)
            ratio, offset = 1.0, folded.offset
            if (training or by_batch) and self.trainable and self.batch_norms:
                ratio, offset = tf.cond(
                    self.statistics_frozen > 0,
                    lambda: (tf.ones_like(offset), offset),
                    lambda: self._normalize_by_batch(inputs, alive),
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
        (own,) = self.kernels
        kernel = tf.cast(kernel, self.compute_dtype)
        self.quantize_config.set_quantize_weights(self.layer, [kernel])
        try:
            return self.layer.call(inputs)
        finally:
            self.quantize_config.set_quantize_weights(self.layer, [own.weight])

    def _broadcast(self, kernel: Any, factor: tf.Tensor) -> tf.Tensor:
        """Factors of output channels, shaped to broadcast against the kernel."""
        axis = KINDS[type(self.layer).__name__].channel_axis or 0
        return (
            factor
            if axis == len(kernel.shape) - 1
            else tf.reshape(factor, (kernel.shape[axis], -1))
        )

    def _before_norms(self) -> Affine:
        """The bias, as an `Affine`."""
        bias = tf.zeros(self.channels) if self.bias is None else tf.convert_to_tensor(self.bias)
        return Affine(tf.ones(self.channels), bias)

    def _normalize_by_batch(self, inputs: Any, kernel: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """sigma / sigma_batch and C_batch; updates the moving statistics."""
        outputs = tf.cast(self._run(inputs, tf.convert_to_tensor(kernel)), tf.float32)
        mean, variance = tf.nn.moments(outputs, list(range(len(outputs.shape) - 1)))
        so_far, ratio = self._before_norms(), tf.ones(self.channels)
        for norm in self.norms:
            own = None
            if not isinstance(norm, ChannelAffine):
                own = Statistics(
                    so_far.factor * mean + so_far.offset, so_far.factor * so_far.factor * variance
                )
                ratio *= tf.sqrt(norm.moving_variance + norm.epsilon)
                ratio *= tf.math.rsqrt(own.variance + norm.epsilon)
                if norm.trainable:
                    _move(norm.moving_mean, own.mean, norm.momentum)
                    _move(norm.moving_variance, own.variance, norm.momentum)
            so_far = affine_of(norm, TENSORS, own).behind(so_far)
        return ratio, so_far.offset

    def _quantized_bias(self, bias: tf.Tensor) -> tf.Tensor:
        """`bias` on its grid, once there is one; the gradient passes straight through."""
        if self.bias_bits is None or self._source is None:
            return bias
        on_grid = self._bias_codes(bias).values()
        rounded = tf.where(self._source.is_ready, on_grid, bias)
        return bias + tf.stop_gradient(rounded - bias)

    def _bias_codes(self, bias: tf.Tensor) -> BiasCodes:
        (own,) = self.kernels
        grid = own.quantizer.grid_now(own.variables)
        unit = grid.scale * self._source.stored_grid()[0] / prescale(grid.qmin, grid.qmax)
        unit = tf.repeat(tf.reshape(unit, [-1]), self.channels // max(1, unit.shape.num_elements()))
        largest = (2.0 ** ((self.bias_bits or 0) - 1) - 1.0 + _ABOVE_LARGEST) * unit
        shift = tf.math.log(tf.reduce_max(tf.abs(bias) / largest)) / math.log(2.0)
        shift = tf.maximum(tf.math.ceil(shift), 0.0)
        return BiasCodes(tf.floor(bias / (unit * 2.0**shift) + 0.5), shift, unit)


def _move(moving: tf.Variable, value: tf.Tensor, momentum: float) -> None:
    moving.assign(moving * momentum + value * (1.0 - momentum))
