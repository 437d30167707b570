"""tfmot `Quantizer` objects: LSQ for weights and for activations.

A quantizer holds hyper-parameters only; its variables belong to the layer that builds it. After
training `settle` turns the variables into a `Grid`, the only thing the exporter knows.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat, ops
from tfbinreg.grid import Grid, check_bits, code_range, weight_code_range

Variables = dict[str, tf.Variable]

# In steps: more than float32's error in an average, less than half of 1 / (window size).
_TIE_NUDGE = 2.0**-10

Estimates = dict[int, list[float]]  # start values seen so far, by the id of the step variable

_calibration: contextvars.ContextVar[tuple[Estimates, set[int]] | None] = contextvars.ContextVar(
    "tfbinreg_calibration", default=None
)


@contextlib.contextmanager
def calibration(estimates: Estimates) -> Iterator[None]:
    """While active, an eager forward pass of one batch adds each activation's start value to
    `estimates` and sets its step to their mean (one that starts from the range to their maximum).

    Of several tensors on one grid only the first counts, as in training.
    """
    token = _calibration.set((estimates, set()))
    try:
        yield
    finally:
        _calibration.reset(token)


class _LSQQuantizer(_compat.Quantizer):
    """What both LSQ quantizers share: the range, serialisation and reading the step."""

    bits: int
    signed: bool
    axis: int | None
    qmin: int
    qmax: int

    def settle(self, variables: Variables, name: str) -> Grid:
        """The grid the tensor was trained on.

        Raises:
            ValueError: if the step is not finite, naming `name`.
        """
        step = np.asarray(ops.effective_step(variables["step"]))
        if not np.all(np.isfinite(step)):
            raise ValueError(f"The step of {name!r} is not finite ({step}): training diverged.")
        return Grid(self.bits, self.signed, step, self.qmin, self.qmax, self.axis)

    def _add_step(
        self,
        layer: Any,
        name: str,
        shape: tuple[int, ...] = (),
        trainable: bool = True,
        initializer: Any = "ones",
    ) -> tf.Variable:
        return layer.add_weight(
            name=f"{name}_step",
            shape=shape,
            dtype=tf.float32,
            initializer=initializer,
            trainable=trainable,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            experimental_autocast=False,
        )

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()  # type: ignore[attr-defined]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((type(self), tuple(sorted(self.get_config().items()))))


@_compat.register
class LSQWeightQuantizer(_LSQQuantizer):
    """Signed LSQ for a kernel, one step per tensor or per output channel.

    The step's gradient factor is 1 / sqrt(N * qmax) with N the number of weights that share it:
    the whole tensor, or one channel of it.

    Args:
        bits: 2 to 8.
        axis: channel axis of the kernel for a step per channel, None for one step.
        start: the kernel whose values the step variable starts from when it is built, None for a
            step of 1. tfmot tells a quantizer only the kernel's shape. No part of the config.
    """

    def __init__(self, bits: int, axis: int | None = None, start: Any = None) -> None:
        self.bits = check_bits(bits, "weight bits")
        self.signed = True
        self.axis = axis
        self._start = start
        self.qmin, self.qmax = weight_code_range(self.bits)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        shape = () if self.axis is None else (int(tensor_shape[self.axis]),)
        initializer = "ones" if self._start is None else self._initial_value
        return {"step": self._add_step(layer, name, shape, initializer=initializer)}

    def _initial_value(self, shape: Any, dtype: Any = None) -> tf.Tensor:
        step = self._initial_step(self._start)
        return tf.where(_is_usable(step), step, tf.ones_like(step))

    def _initial_step(self, kernel: Any) -> tf.Tensor:
        """The start value; an all-zero channel takes the mean of the others."""
        step = ops.initial_step(kernel, self.qmax, self.axis)
        mean = tf.reduce_sum(step) / tf.cast(tf.math.count_nonzero(step), step.dtype)
        return tf.where(step > 0, step, mean)

    def initialize(self, variables: Variables, kernel: np.ndarray) -> None:
        """Set the step from the actual weights; an all-zero channel takes the mean of the others.

        Raises:
            ValueError: if every weight is zero, or the step would not be finite.
        """
        step = self._initial_step(kernel)
        if not np.all(_is_usable(step)):
            raise ValueError("No step can be derived from weights that are all zero or not finite.")
        variables["step"].assign(step)

    def __call__(self, inputs: Any, training: Any, weights: Variables, **kwargs: Any) -> tf.Tensor:
        count = int(np.prod(inputs.shape))
        if self.axis is not None:
            count //= int(inputs.shape[self.axis])
        scale = ops.gradient_scale(count, self.qmax)
        return ops.lsq_quantize(inputs, weights["step"], self.qmin, self.qmax, scale, self.axis)

    def codes(self, kernel: Any, variables: Variables) -> np.ndarray:
        """The trained codes of `kernel`, int32, from the op the training graph runs."""
        quantized = np.asarray(self(tf.convert_to_tensor(kernel), False, variables))
        grid = self.settle(variables, "kernel")
        return np.rint(quantized / grid.broadcast_scale(quantized.ndim)).astype(np.int32)

    def get_config(self) -> dict[str, Any]:
        return {"bits": self.bits, "axis": self.axis}


@_compat.register
class LSQActivationQuantizer(_LSQQuantizer):
    """LSQ for an activation, one step per tensor, set by calibration or by the first batch.

    The step's gradient factor is 1 / sqrt(N * qmax) with N the features of one sample: the batch
    size does not change how fast a step learns. An unsigned quantizer contains the ReLU before it.

    The start value is the paper's 2 * mean|v| / sqrt(qmax); the `initialized` variable records that
    it was set, is saved with the model and works inside graphs and replicas. Inference never
    writes it. A first batch without any positive (or finite) value leaves it unset.

    Args:
        bits: 2 to 8.
        signed: codes [-2^(b-1), 2^(b-1) - 1] if True, else [0, 2^b - 1].
        upper_limit: the start value's largest level, 6.0 after a ReLU6; the learned step then
            takes the place of the fixed limit.
        from_range: for model outputs: the step starts at max|v| / qmax. The paper's start value
            serves few levels; at 8 bits it spans far more than the data, and outputs would tie.
        fixed: for model inputs: the step is max|v| / qmax of the first data seen and is not
            trained, so a device quantizes its images as the calibration data says.
    """

    def __init__(
        self,
        bits: int,
        signed: bool = False,
        upper_limit: float | None = None,
        from_range: bool = False,
        fixed: bool = False,
    ) -> None:
        self.bits = check_bits(bits, "activation bits")
        self.signed = bool(signed)
        self.axis = None
        self.upper_limit = upper_limit
        self.fixed = bool(fixed)
        self.from_range = bool(from_range) or self.fixed
        self.qmin, self.qmax = code_range(self.bits, self.signed)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        initialized = layer.add_weight(
            name=f"{name}_initialized",
            shape=(),
            dtype=tf.int32,
            initializer="zeros",
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            experimental_autocast=False,
        )
        step = self._add_step(layer, name, trainable=not self.fixed)
        return {"step": step, "initialized": initialized}

    def __call__(self, inputs: Any, training: Any, weights: Variables, **kwargs: Any) -> tf.Tensor:
        calibrating = _calibration.get()
        if calibrating is not None:
            estimates, seen = calibrating
            if id(weights["step"]) not in seen:
                seen.add(id(weights["step"]))
                self._calibrate(inputs, weights, estimates)
        step: Any = weights["step"]
        if training:
            self._initialize_once(inputs, weights)
        else:
            variable = step
            step = tf.cond(
                weights["initialized"] > 0,
                lambda: tf.convert_to_tensor(variable),
                lambda: self._usable_estimate(inputs, variable),
            )
        scale = self._gradient_scale(inputs)
        return ops.lsq_quantize(inputs, step, self.qmin, self.qmax, scale)

    def break_ties(self, inputs: tf.Tensor, weights: Variables) -> tf.Tensor:
        """Move means of grid values that lie half-way between levels to the side runtimes take.

        LiteRT and TFLM average the stored int8 values, code + zero point, and round halves away
        from zero; which way that is depends on the zero point. Nothing but exact halves changes
        its level, for windows of up to 500 numbers.
        """
        zero_point = 0 if self.signed else 127 - self.qmax
        step = ops.effective_step(weights["step"])
        values = tf.cast(inputs, tf.float32)
        nudge = tf.where(values + zero_point * step > 0.0, _TIE_NUDGE, -_TIE_NUDGE) * step
        return tf.cast(values + tf.stop_gradient(nudge), inputs.dtype)

    def _gradient_scale(self, inputs: tf.Tensor) -> Any:
        features = inputs.shape[1:]
        if features.is_fully_defined():
            return ops.gradient_scale(features.num_elements(), self.qmax)
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[1:]), tf.float32)
        return tf.math.rsqrt(count * self.qmax)

    def _estimate(self, inputs: tf.Tensor) -> tf.Tensor:
        """The start value from one batch; 0 or NaN if the batch does not determine one."""
        values = tf.cast(inputs, tf.float32)
        if not self.signed:
            values = tf.nn.relu(values)
        if self.from_range:
            return tf.reduce_max(tf.abs(values)) / self.qmax
        estimate = ops.initial_step(values, self.qmax)
        if self.upper_limit is None:
            return estimate
        return tf.minimum(estimate, self.upper_limit / self.qmax)

    def _usable_estimate(self, inputs: tf.Tensor, step: tf.Variable) -> tf.Tensor:
        estimate = self._estimate(inputs)
        return tf.where(_is_usable(estimate), estimate, tf.convert_to_tensor(step))

    def _initialize_once(self, inputs: tf.Tensor, weights: Variables) -> None:
        step, initialized = weights["step"], weights["initialized"]

        def store(estimate: tf.Tensor) -> None:
            fresh = tf.logical_and(initialized < 1, _is_usable(estimate))
            step.assign(tf.where(fresh, estimate, step))
            initialized.assign(tf.maximum(initialized, tf.cast(fresh, tf.int32)))

        if not tf.distribute.has_strategy():
            tf.cond(initialized > 0, lambda: None, lambda: store(self._estimate(inputs)))
            return
        # Replicas may only meet outside a conditional, so only the estimate is conditional there.
        estimate = tf.cond(
            initialized > 0, lambda: tf.constant(0.0), lambda: self._estimate(inputs)
        )
        replica = tf.distribute.get_replica_context()
        if replica is not None:
            estimates = replica.all_gather(estimate[None], axis=0)
            combine = tf.reduce_max if self.from_range else tf.reduce_mean
            estimate = combine(estimates)
        store(estimate)

    def _calibrate(self, inputs: tf.Tensor, weights: Variables, estimates: Estimates) -> None:
        estimate = float(self._estimate(inputs))
        if not math.isfinite(estimate) or estimate <= 0:
            return
        own = estimates.setdefault(id(weights["step"]), [])
        own.append(estimate)
        combine = max if self.from_range else np.mean
        weights["step"].assign(float(combine(own)))
        weights["initialized"].assign(1)

    def settle(self, variables: Variables, name: str) -> Grid:
        if not int(variables["initialized"]):
            raise ValueError(
                f"The activation step of {name!r} was never initialised: train the model, or pass "
                "calibration_data to quantize_apply."
            )
        return super().settle(variables, name)

    def get_config(self) -> dict[str, Any]:
        return {
            "bits": self.bits,
            "signed": self.signed,
            "upper_limit": self.upper_limit,
            "from_range": self.from_range,
            "fixed": self.fixed,
        }


def _is_usable(estimate: tf.Tensor) -> tf.Tensor:
    return tf.logical_and(tf.math.is_finite(estimate), estimate > 0.0)
