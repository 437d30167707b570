"""tfmot `Quantizer` objects for activations: LSQ, LSQ+ and grids that the runtime prescribes."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import Grid, check_bits, code_range
from tfbinreg.methods import lsq_functions
from tfbinreg.methods.weight_quantizers import LSQQuantizer, Variables, is_usable

# In steps: more than float32's error in an average, less than half of 1 / (window size).
_TIE_NUDGE = 2.0**-10

# Start values seen so far, one for each batch, by the id of the step variable; none of a tensor in
# which only zeros were seen.
Estimates = dict[int, list[np.ndarray]]

_calibration: contextvars.ContextVar[tuple[Estimates, set[int]] | None] = contextvars.ContextVar(
    "tfbinreg_calibration", default=None
)


@contextlib.contextmanager
def calibration(estimates: Estimates) -> Iterator[None]:
    """While active, an eager forward pass of one batch adds each activation's start value to
    `estimates` and sets its step to their mean (one that starts from the range to their maximum).

    Of several tensors on one grid the largest counts.
    """
    token = _calibration.set((estimates, set()))
    try:
        yield
    finally:
        _calibration.reset(token)


def break_ties(inputs: tf.Tensor, step: tf.Tensor, zero_point: tf.Tensor) -> tf.Tensor:
    """Move means of grid values that lie half-way between levels to the side runtimes take.

    LiteRT and TFLM average the stored int8 values, code + zero point, and round halves away from
    zero; which way that is depends on the zero point. Nothing but exact halves changes its level,
    for windows of up to 500 numbers.

    Args:
        inputs: the means.
        step: of the grid, float32, shape ().
        zero_point: of the int8 tensor in a file, int32, shape ().
    """
    values = tf.cast(inputs, tf.float32)
    stored = values + tf.cast(zero_point, tf.float32) * step
    nudge = tf.where(stored > 0.0, _TIE_NUDGE, -_TIE_NUDGE) * step
    return tf.cast(values + tf.stop_gradient(nudge), inputs.dtype)


@_compat.register
class LSQActivationQuantizer(LSQQuantizer):
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

    _parameters: tuple[str, ...] = ("step",)

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
        step = self.add_step(layer, name, trainable=not self.fixed)
        return {"step": step, "initialized": initialized}

    def __call__(
        self,
        inputs: Any,
        training: Any,
        weights: Variables,
        member: int | None = 0,
        **kwargs: Any,
    ) -> tf.Tensor:
        """Quantize `inputs`, the tensor number `member` of those on this grid; None for a tensor
        made from them, which says nothing new about the range."""
        if member is not None:
            self._calibrate(inputs, weights)
        variables = {name: weights[name] for name in self._parameters}
        parameters: Any = variables
        if training:
            if member is not None:
                self._initialize_once(inputs, weights, member)
        else:
            parameters = tf.cond(
                weights["initialized"] > 0,
                lambda: tf.nest.map_structure(tf.convert_to_tensor, variables),
                lambda: self._usable_estimate(inputs, variables),
            )
        return self._quantize(inputs, parameters, self._gradient_scale(inputs))

    def _quantize(self, inputs: tf.Tensor, parameters: Any, scale: Any) -> tf.Tensor:
        return lsq_functions.lsq_quantize(inputs, parameters["step"], self.qmin, self.qmax, scale)

    def stored_grid(self, weights: Variables) -> tuple[tf.Tensor, tf.Tensor]:
        """Scale, float32, and zero point, int32, of the int8 tensor in a file (`Grid`)."""
        return lsq_functions.effective_step(weights["step"]), tf.constant(127 - self.qmax)

    def _gradient_scale(self, inputs: tf.Tensor) -> Any:
        features = inputs.shape[1:]
        if features.is_fully_defined():
            return lsq_functions.gradient_scale(features.num_elements(), self.qmax)
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[1:]), tf.float32)
        return tf.math.rsqrt(count * self.qmax)

    def _estimate(self, inputs: tf.Tensor) -> tf.Tensor:
        """What one batch says: the start value, a scalar; 0 or NaN if it does not say one."""
        values = tf.cast(inputs, tf.float32)
        if not self.signed:
            values = tf.nn.relu(values)
        if self.from_range:
            estimate = tf.reduce_max(tf.abs(values)) / self.qmax
        else:
            estimate = lsq_functions.initial_step(values, self.qmax)
        if self.upper_limit is not None:
            estimate = tf.minimum(estimate, self.upper_limit / self.qmax)
        return estimate

    def _start(self, estimate: tf.Tensor) -> Any:
        """The variables' start values from an estimate, and whether they can be used."""
        return {"step": estimate}, is_usable(estimate)

    def _widest(self, estimates: tf.Tensor) -> tf.Tensor:
        """The estimate that covers several, stacked along the first axis."""
        return tf.reduce_max(estimates, axis=0)

    def _covered(self, variables: Variables) -> tf.Tensor:
        """The estimate that the present variables come from."""
        return tf.convert_to_tensor(variables["step"])

    def _usable_estimate(self, inputs: tf.Tensor, variables: Variables) -> Any:
        start, usable = self._start(self._estimate(inputs))
        return {name: tf.where(usable, start[name], variables[name]) for name in variables}

    def _initialize_once(self, inputs: tf.Tensor, weights: Variables, member: int) -> None:
        """In the first batch each tensor on the grid, in turn, widens it to its own range."""
        initialized = weights["initialized"]

        def store(estimate: tf.Tensor) -> None:
            if member:  # the first has nothing to widen
                wider = self._widest(tf.stack([self._covered(weights), estimate]))
                estimate = tf.where(initialized > 0, wider, estimate)
            start, fresh = self._start(estimate)
            fresh = tf.logical_and(initialized <= member, fresh)
            for name, value in start.items():
                weights[name].assign(tf.where(fresh, value, weights[name]))
            initialized.assign(tf.where(fresh, member + 1, initialized))

        done = initialized > member
        if not tf.distribute.has_strategy():
            tf.cond(done, lambda: None, lambda: store(self._estimate(inputs)))
            return
        # Replicas may only meet outside a conditional, so only the estimate is conditional there.
        nothing = tf.zeros_like(self._covered(weights))
        estimate = tf.cond(done, lambda: nothing, lambda: self._estimate(inputs))
        replica = tf.distribute.get_replica_context()
        if replica is not None:
            estimates = replica.all_gather(estimate[None], axis=0)
            mean = tf.reduce_mean(estimates, axis=0)
            estimate = self._widest(estimates) if self.from_range else mean
        store(estimate)

    def _calibrate(self, inputs: tf.Tensor, weights: Variables) -> None:
        calibrating = _calibration.get()
        if calibrating is None:
            return
        estimates, seen = calibrating
        estimate = self._estimate(inputs)
        if not np.all(np.isfinite(estimate)):
            return
        key = id(weights["step"])
        own = estimates.setdefault(key, [])
        if not bool(self._start(estimate)[1]):
            return
        if key in seen:
            own[-1] = self._widest(tf.stack([own[-1], estimate])).numpy()
        else:
            seen.add(key)
            own.append(estimate.numpy())
        combined = self._widest(np.stack(own)) if self.from_range else np.mean(own, axis=0)
        self._set(tf.constant(combined), weights)

    def start_unseen(self, weights: Variables) -> None:
        """Start as if all values were 1, where data showed nothing but zeros: any grid holds them,
        and training can go on from it."""
        self._set(self._estimate(tf.ones([1])), weights)

    def _set(self, estimate: tf.Tensor, weights: Variables) -> None:
        for name, value in self._start(estimate)[0].items():
            weights[name].assign(value)
        weights["initialized"].assign(1)

    def settle(self, variables: Variables, name: str) -> Grid:
        if not variables["initialized"].numpy():
            raise ValueError(
                f"The activation step of {name!r} was never initialised: train the model, or pass "
                "calibration_data to quantize_apply. If it was trained, all data gave zeros there: "
                "calibrate, or remove what is dead."
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


@_compat.register
class LSQPlusActivationQuantizer(LSQActivationQuantizer):
    """LSQ+ for an activation: a learned offset as well, for swish-like outputs.

    Starts from the range of the data (arXiv 2004.09576, section 3.3, min-max): the step is
    (max - min) / (2^b - 1) and the offset the minimum, both with zero inside the range.

    Args:
        bits: 2 to 8.
    """

    _parameters = ("step", "offset")

    def __init__(self, bits: int) -> None:
        super().__init__(bits, signed=True, from_range=True)
        self.qmin, self.qmax = 0, 2**self.bits - 1  # before the zero point is taken off

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        variables = super().build(tensor_shape, name, layer)
        offset = self.add_step(layer, name, what="offset", initializer="zeros")
        return {**variables, "offset": offset}

    def _quantize(self, inputs: tf.Tensor, parameters: Any, scale: Any) -> tf.Tensor:
        step, offset = parameters["step"], parameters["offset"]
        return lsq_functions.lsq_plus_quantize(inputs, step, offset, self.bits, scale)

    def stored_grid(self, weights: Variables) -> tuple[tf.Tensor, tf.Tensor]:
        step = lsq_functions.effective_step(weights["step"])
        zero_point = lsq_functions.effective_zero_point(step, weights["offset"], self.bits)
        return step, 127 - self.qmax + tf.cast(zero_point, tf.int32)

    def _estimate(self, inputs: tf.Tensor) -> tf.Tensor:
        """How far one batch reaches below and above zero, shape (2,)."""
        values = tf.cast(inputs, tf.float32)
        reach = [-tf.reduce_min(values), tf.reduce_max(values)]
        return tf.maximum(tf.stack(reach), 0.0)

    def _start(self, estimate: tf.Tensor) -> Any:
        step = (estimate[0] + estimate[1]) / self.qmax
        return {"step": step, "offset": -estimate[0]}, is_usable(step)

    def _covered(self, variables: Variables) -> tf.Tensor:
        below = -tf.convert_to_tensor(variables["offset"])
        span = tf.convert_to_tensor(variables["step"]) * self.qmax
        return tf.stack([below, span - below])

    def settle(self, variables: Variables, name: str) -> Grid:
        grid = super().settle(variables, name)
        offset = variables["offset"]
        if not np.isfinite(offset.numpy()):
            raise ValueError(f"The offset of {name!r} is not finite: training diverged.")
        zero_point = int(lsq_functions.effective_zero_point(grid.scale, offset, self.bits))
        return dataclasses.replace(grid, qmin=-zero_point, qmax=self.qmax - zero_point)

    def get_config(self) -> dict[str, Any]:
        return {"bits": self.bits}


@_compat.register
class PrescribedQuantizer(_compat.Quantizer):
    """A grid the runtime prescribes (1/256 for a sigmoid); nothing is learned.

    Args:
        scale: the step.
        qmin: smallest code.
        qmax: largest code.
    """

    def __init__(self, scale: float, qmin: int, qmax: int) -> None:
        self.scale, self.qmin, self.qmax = float(scale), int(qmin), int(qmax)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        return {}

    def __call__(self, inputs: Any, training: Any, weights: Variables, **kwargs: Any) -> tf.Tensor:
        return lsq_functions.lsq_quantize(inputs, tf.constant(self.scale), self.qmin, self.qmax)

    def stored_grid(self, weights: Variables) -> tuple[tf.Tensor, tf.Tensor]:
        """As of the learned grids."""
        return tf.constant(self.scale), tf.constant(127 - self.qmax)

    def settle(self, variables: Variables, name: str) -> Grid:
        return Grid(8, self.qmin < 0, np.array(self.scale), self.qmin, self.qmax)

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale, "qmin": self.qmin, "qmax": self.qmax}
