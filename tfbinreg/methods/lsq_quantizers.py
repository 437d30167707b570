"""tfmot `Quantizer` objects of LSQ, for kernels and activations.

Esser et al., "Learned Step Size Quantization", ICLR 2020 (arXiv 1902.08153).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import (
    Grid,
    WeightBits,
    channel_range,
    check_bits,
    check_weight_bits,
    widest,
)
from tfbinreg.core.weight_starts import start_step_of_bits
from tfbinreg.methods import lsq_functions
from tfbinreg.methods.contract import GridTensors
from tfbinreg.methods.uniform import Parameters, UniformWeightQuantizer, Variables, is_usable
from tfbinreg.methods.uniform_activations import UniformActivationQuantizer


@_compat.register
class LSQWeightQuantizer(UniformWeightQuantizer):
    """Signed LSQ for a kernel, one step per tensor or per output channel.

    The step's gradient factor is 1 / sqrt(N * qmax) with N the number of weights that share it: the
    whole tensor, or one channel of it. Kernels of 1 bit and channels with their own bits are
    quantized by `lsq_functions.lsq_quantize_bits`.

    Args:
        bits: 1 to 8, or one number from 0 to 8 for each channel along `axis`; 0 prunes the channel.
        axis: channel axis of the kernel for a step per channel; None for one step; may be negative.
        start: the kernel whose values the step variable starts from when it is built; None for a
            step of 1. tfmot passes only the kernel's shape to a quantizer. It is not part of the
            config.

    Raises:
        ValueError: for other bits, or for bits per channel without an axis.
    """

    def __init__(self, bits: WeightBits, axis: int | None = None, start: Any = None) -> None:
        given = check_weight_bits(bits)
        if isinstance(given, tuple) and axis is None:
            raise ValueError(f"weight bits per channel need the channels' axis, got {given}.")
        self.channel_bits = given if isinstance(given, tuple) else None
        self.bits = check_bits(widest(given), "weight bits", 1)
        self.signed = True
        self.axis = axis
        self._start = start
        self.qmin, self.qmax = channel_range(self.bits)

    @property
    def _is_uniform(self) -> bool:
        """Whether every channel has all codes from qmin to qmax."""
        return self.channel_bits is None and self.bits > 1

    @property
    def _own_bits(self) -> WeightBits:
        return self.channel_bits or self.bits

    def scale(self, parameters: Parameters) -> tf.Tensor:
        return lsq_functions.effective_step(parameters["step"])

    def show_as_used(self, variables: Variables) -> None:
        variables["step"].assign(self.scale(variables))

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        shape = () if self.axis is None else (int(tensor_shape[self.axis]),)
        initializer = "ones" if self._start is None else self._initial_value
        return {"step": self.add_variable(layer, name, shape, initializer=initializer)}

    def _initial_value(self, shape: Any, dtype: Any = None) -> tf.Tensor:
        if self._is_uniform:
            step = lsq_functions.initial_step(self._start, self.qmax, self.axis)
        else:
            means = lsq_functions.initial_step(self._start, 4, self.axis)  # of |w|
            few = np.equal(self._own_bits, 1)
            step = means * np.where(few, 1.0, 2.0 / np.sqrt(self._largest_codes())).astype("f")
        return tf.where(is_usable(step), step, tf.ones_like(step))

    def start_step(self, kernel: np.ndarray, how: str) -> np.ndarray:
        if self._is_uniform:
            return super().start_step(kernel, how)
        return start_step_of_bits(kernel, self._own_bits, self.axis, how=how)

    def grid_now(self, variables: Variables) -> GridTensors:
        if self._is_uniform:
            return super().grid_now(variables)

        def nearest(ratio: tf.Tensor) -> tf.Tensor:
            return lsq_functions.nearest_by_bits(ratio, self._own_bits, self.axis)

        ends = self.qmin, self.qmax
        return GridTensors(self.scale(variables), *ends, self.axis, nearest, self._own_bits)

    def settle(self, variables: Variables, name: str) -> Grid:
        if self._is_uniform:
            return super().settle(variables, name)
        scale = self.settled_scale(variables, name)
        if self.channel_bits is None:
            return Grid.codebook((-1, 1), scale, self.axis)
        ends = self.qmin, self.qmax
        return Grid(self.bits, True, scale, *ends, self.axis, channel_bits=self.channel_bits)

    def start_from(self, variables: Variables, step: np.ndarray) -> None:
        variables["step"].assign(step)

    def __call__(self, inputs: Any, training: Any, weights: Variables, **kwargs: Any) -> tf.Tensor:
        count = int(np.prod(inputs.shape))
        if self.axis is not None:
            count //= int(inputs.shape[self.axis])
        if not self._is_uniform:
            factors = 1.0 / np.sqrt(count * self._largest_codes())
            return lsq_functions.lsq_quantize_bits(
                inputs, weights["step"], self._own_bits, factors.astype("f"), self.axis
            )
        scale = lsq_functions.gradient_scale(count, self.qmax)
        return lsq_functions.lsq_quantize(
            inputs, weights["step"], self.qmin, self.qmax, scale, self.axis
        )

    def _largest_codes(self) -> np.ndarray:
        """The largest code, per channel where they differ; 1 for a pruned channel."""
        if self.channel_bits is None:
            return np.array(self.qmax)
        return np.array([channel_range(max(1, bits))[1] for bits in self.channel_bits])

    def get_config(self) -> dict[str, Any]:
        return {"bits": self._own_bits, "axis": self.axis}


@_compat.register
class LSQActivationQuantizer(UniformActivationQuantizer):
    """LSQ for an activation, one step per tensor, set by calibration or by the first batch.

    The step's gradient factor is 1 / sqrt(N * qmax) with N the features of one sample: the batch
    size does not change how fast a step learns. Arguments as for `UniformActivationQuantizer`.
    """

    parameters: tuple[str, ...] = ("step",)

    def add_parameters(self, layer: Any, name: str) -> Variables:
        return {"step": self.add_variable(layer, name, trainable=not self.fixed)}

    def scale(self, parameters: Parameters) -> tf.Tensor:
        return lsq_functions.effective_step(parameters["step"])

    def show_as_used(self, variables: Variables) -> None:
        variables["step"].assign(self.scale(variables))

    def quantize(self, inputs: tf.Tensor, parameters: Parameters) -> tf.Tensor:
        factor = self.gradient_factor(inputs)
        return lsq_functions.lsq_quantize(inputs, parameters["step"], self.qmin, self.qmax, factor)

    def gradient_factor(self, inputs: tf.Tensor) -> Any:
        """1 / sqrt(N * qmax), N the features of one sample."""
        features = inputs.shape[1:]
        if features.is_fully_defined():
            return lsq_functions.gradient_scale(features.num_elements(), self.qmax)
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[1:]), tf.float32)
        return tf.math.rsqrt(count * self.qmax)

    def start(self, estimate: tf.Tensor) -> tuple[Parameters, tf.Tensor]:
        return {"step": estimate}, is_usable(estimate)

    def covered(self, parameters: Parameters) -> tf.Tensor:
        return tf.convert_to_tensor(parameters["step"])
