"""tfmot `Quantizer` objects of LSQ, for kernels and activations.

Esser et al., "Learned Step Size Quantization", ICLR 2020 (arXiv 1902.08153).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import check_bits, weight_code_range
from tfbinreg.methods import lsq_functions
from tfbinreg.methods.uniform import Parameters, UniformWeightQuantizer, Variables, is_usable
from tfbinreg.methods.uniform_activations import UniformActivationQuantizer


@_compat.register
class LSQWeightQuantizer(UniformWeightQuantizer):
    """Signed LSQ for a kernel, one step per tensor or per output channel.

    The step's gradient factor is 1 / sqrt(N * qmax) with N the number of weights that share it:
    the whole tensor, or one channel of it.

    Args:
        bits: 2 to 8.
        axis: channel axis of the kernel for a step per channel, None for one step; may be
            negative.
        start: the kernel whose values the step variable starts from when it is built, None for a
            step of 1. tfmot tells a quantizer only the kernel's shape. No part of the config.
    """

    def __init__(self, bits: int, axis: int | None = None, start: Any = None) -> None:
        self.bits = check_bits(bits, "weight bits")
        self.signed = True
        self.axis = axis
        self._start = start
        self.qmin, self.qmax = weight_code_range(self.bits)

    def scale(self, parameters: Parameters) -> tf.Tensor:
        return lsq_functions.effective_step(parameters["step"])

    def show_as_used(self, variables: Variables) -> None:
        variables["step"].assign(self.scale(variables))

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        shape = () if self.axis is None else (int(tensor_shape[self.axis]),)
        initializer = "ones" if self._start is None else self._initial_value
        return {"step": self.add_variable(layer, name, shape, initializer=initializer)}

    def _initial_value(self, shape: Any, dtype: Any = None) -> tf.Tensor:
        step = lsq_functions.initial_step(self._start, self.qmax, self.axis)
        return tf.where(is_usable(step), step, tf.ones_like(step))

    def start_from(self, variables: Variables, step: np.ndarray) -> None:
        variables["step"].assign(step)

    def __call__(self, inputs: Any, training: Any, weights: Variables, **kwargs: Any) -> tf.Tensor:
        count = int(np.prod(inputs.shape))
        if self.axis is not None:
            count //= int(inputs.shape[self.axis])
        scale = lsq_functions.gradient_scale(count, self.qmax)
        return lsq_functions.lsq_quantize(
            inputs, weights["step"], self.qmin, self.qmax, scale, self.axis
        )

    def get_config(self) -> dict[str, Any]:
        return {"bits": self.bits, "axis": self.axis}


@_compat.register
class LSQActivationQuantizer(UniformActivationQuantizer):
    """LSQ for an activation, one step per tensor, set by calibration or by the first batch.

    The step's gradient factor is 1 / sqrt(N * qmax) with N the features of one sample: the batch
    size does not change how fast a step learns. Arguments as of `UniformActivationQuantizer`.
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
