"""TQT: learned clipping thresholds whose scales are powers of two.

Jain, Gural, Wu and Dick, "Trained Quantization Thresholds for Accurate and Efficient Fixed-Point
Inference of Deep Neural Networks" (arXiv 1903.08066), equations 4 to 8, as the authors' released
code has them. Our version differs in three points: halves round up, as everywhere in this package,
so that the file holds the trained codes; a threshold starts from the scale that the recipe's start
value gives, rounded to the nearest power of two, where the paper starts weights from three standard
deviations; and a kernel may have a threshold per channel.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import check_bits, weight_code_range
from tfbinreg.methods import lsq_functions
from tfbinreg.methods.contract import About, Method
from tfbinreg.methods.uniform import Parameters, UniformWeightQuantizer, Variables, is_usable
from tfbinreg.methods.uniform_activations import UniformActivationQuantizer

_THRESHOLD = "log2_threshold"
_EXPONENT_BIAS, _MANTISSA_BITS = 127, 23  # of float32
_LARGEST_EXPONENT = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class TqtOptions:
    """TQT has no options: learning rates belong to the optimizer."""


def power_of_two_scale(log2_threshold: tf.Tensor, qmax: int) -> tf.Tensor:
    """2^ceil(log2 t) / (qmax + 1), float32, exactly: qmax + 1 is 2^(b-1), or 2^b without a sign."""
    exponent = tf.math.ceil(tf.cast(log2_threshold, tf.float32)) - math.log2(qmax + 1)
    exponent = tf.clip_by_value(exponent, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    bits = tf.bitwise.left_shift(tf.cast(exponent, tf.int32) + _EXPONENT_BIAS, _MANTISSA_BITS)
    return tf.where(tf.math.is_finite(exponent), tf.bitcast(bits, tf.float32), exponent)


def tqt_quantize(
    inputs: tf.Tensor, log2_threshold: tf.Tensor, qmin: int, qmax: int, axis: int | None = None
) -> tf.Tensor:
    """Quantize to a grid with a scale s = 2^ceil(log2 t) / (qmax + 1).

    q(x) = clip(round(x / s), qmin, qmax) * s, halves rounded up. With r = round(x / s), and the
    ceil taken for the identity:

        dq/dx       = 1 if qmin <= r <= qmax else 0
        dq/d log2 t = s ln(2) * (r - x / s) inside, s ln(2) qmin below, s ln(2) qmax above

    Args:
        inputs: any float tensor; computed in float32 and cast back.
        log2_threshold: log2 t, shape (), or (channels,) with `axis`.
        qmin: smallest code, <= 0.
        qmax: largest code, 2^k - 1.
        axis: channel axis for a threshold per channel.

    Returns:
        A tensor of the shape and dtype of `inputs`.
    """
    inputs = tf.convert_to_tensor(inputs)
    rank = len(inputs.shape)
    others = lsq_functions.other_axes(axis, rank)
    shape = [] if others is None else [1 if d in others else -1 for d in range(rank)]

    @tf.custom_gradient
    def call(values: tf.Tensor, raw: tf.Tensor) -> Any:
        scale = tf.reshape(power_of_two_scale(raw, qmax), shape)
        ratio = values / scale
        rounded = tf.floor(ratio + 0.5)
        codes = tf.clip_by_value(rounded, qmin, qmax)

        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            inside = tf.equal(rounded, codes)
            to_values = tf.where(inside, upstream, tf.zeros_like(upstream))
            slope = tf.where(inside, rounded - ratio, codes) * scale * math.log(2.0)
            to_threshold = tf.reduce_sum(upstream * slope, axis=others)
            return to_values, tf.reshape(to_threshold, tf.shape(raw))

        return codes * scale, grad

    quantized = call(tf.cast(inputs, tf.float32), tf.convert_to_tensor(log2_threshold))
    return tf.cast(quantized, inputs.dtype)


def _log2_threshold(scale: Any, qmax: int) -> Any:
    """The log2 t with the power of two that is nearest to a scale, in the middle of its range."""
    exponent = tf.round(tf.math.log(tf.cast(scale, tf.float32)) / math.log(2.0))
    return exponent + math.log2(qmax + 1) - 0.5


@_compat.register
class TQTWeightQuantizer(UniformWeightQuantizer):
    """TQT for a kernel, one threshold per tensor or per output channel.

    Args:
        bits: 2 to 8.
        axis: channel axis of the kernel for a threshold per channel; None for one threshold.
    """

    def __init__(self, bits: int, axis: int | None = None) -> None:
        self.bits = check_bits(bits, "weight bits")
        self.signed, self.axis = True, axis
        self.qmin, self.qmax = weight_code_range(self.bits)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        shape = () if self.axis is None else (int(tensor_shape[self.axis]),)
        return {_THRESHOLD: self.add_variable(layer, name, shape, what=_THRESHOLD)}

    def start_from(self, variables: Variables, step: np.ndarray) -> None:
        variables[_THRESHOLD].assign(_log2_threshold(step, self.qmax))

    def scale(self, parameters: Parameters) -> tf.Tensor:
        return power_of_two_scale(parameters[_THRESHOLD], self.qmax)

    def __call__(self, inputs: Any, training: Any, weights: Variables, **kwargs: Any) -> tf.Tensor:
        return tqt_quantize(inputs, weights[_THRESHOLD], self.qmin, self.qmax, self.axis)

    def get_config(self) -> dict[str, Any]:
        return {"bits": self.bits, "axis": self.axis}


@_compat.register
class TQTActivationQuantizer(UniformActivationQuantizer):
    """TQT for an activation, one threshold per tensor; arguments as of its base class."""

    parameters = (_THRESHOLD,)

    def add_parameters(self, layer: Any, name: str) -> Variables:
        variable = self.add_variable(layer, name, (), not self.fixed, what=_THRESHOLD)
        return {_THRESHOLD: variable}

    def scale(self, parameters: Parameters) -> tf.Tensor:
        return power_of_two_scale(parameters[_THRESHOLD], self.qmax)

    def quantize(self, inputs: tf.Tensor, parameters: Parameters) -> tf.Tensor:
        return tqt_quantize(inputs, parameters[_THRESHOLD], self.qmin, self.qmax)

    def start(self, estimate: tf.Tensor) -> tuple[Parameters, tf.Tensor]:
        return {_THRESHOLD: _log2_threshold(estimate, self.qmax)}, is_usable(estimate)

    def covered(self, parameters: Parameters) -> tf.Tensor:
        return self.scale(parameters)


TQT = Method(
    name="tqt",
    options=TqtOptions,
    weights=lambda spec, options: TQTWeightQuantizer(spec.bits, spec.axis),
    activations=lambda spec, options: TQTActivationQuantizer(
        spec.bits, spec.signed, spec.upper_limit, spec.from_range, spec.fixed
    ),
    about=About(
        what="learned thresholds whose scales are powers of two (TQT); no offsets",
        trains="weights, thresholds",
        bits="2-8",
        granularity="tensor or channel",
        paper="Jain et al. 2020",
    ),
)
