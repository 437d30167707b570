"""Activations on evenly spaced levels: grids that start from data."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.core.grid import Grid, check_bits, code_range, stored_zero_point
from tfbinreg.methods import lsq_functions
from tfbinreg.methods.trace_facts import exceeds
from tfbinreg.methods.uniform import Parameters, UniformQuantizer, Variables

# In steps: more than float32's error in an average, less than half of 1 / (window size).
_TIE_NUDGE = 2.0**-10


class UniformActivationQuantizer(UniformQuantizer):
    """A `UniformQuantizer` for an activation, started by calibration or by the first batch.

    The `initialized` variable records that it was started. It is saved with the model and works
    inside graphs and replicas. Inference never writes it. A first batch without any positive (or
    finite) value leaves it unset. An unsigned quantizer includes the ReLU before it.

    Args:
        bits: 2 to 8.
        signed: codes [-2^(b-1), 2^(b-1) - 1] if True, else [0, 2^b - 1].
        upper_limit: the largest level at the start, 6.0 after a ReLU6; the learned limit then
            replaces the fixed one.
        from_range: for model outputs: the grid starts from max|v|.
        fixed: for model inputs: the grid starts from max|v| of the first data and is not trained,
            so a device quantizes its images as the calibration data determines.
    """

    # The variables that the grid is made of.
    parameters: tuple[str, ...] = ()

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
        initialized = self.add_variable(
            layer, name, (), False, "zeros", "initialized", dtype=tf.int32
        )
        return {**self.add_parameters(layer, name), "initialized": initialized}

    def add_parameters(self, layer: Any, name: str) -> Variables:
        """Create the variables called `parameters`."""
        raise NotImplementedError

    def quantize(self, inputs: tf.Tensor, parameters: Parameters) -> tf.Tensor:
        """The inputs on the grid."""
        raise NotImplementedError

    def observe(self, inputs: tf.Tensor) -> tf.Tensor:
        """The scale that one batch suggests for the start; 0 or NaN if it suggests none.

        LSQ's start value 2 * mean|v| / sqrt(qmax) (section 2.1), or max|v| / qmax with
        `from_range`: the former suits few levels; at 8 bits it spans far more than the data.
        """
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

    def start(self, estimate: tf.Tensor) -> tuple[Parameters, tf.Tensor]:
        """The parameters' values from an estimate, and whether they can be used."""
        raise NotImplementedError

    def follow(self, inputs: tf.Tensor, weights: Variables, member: int) -> None:
        """Observe tensor number `member` of a training batch; does nothing by default."""

    def covered(self, parameters: Parameters) -> tf.Tensor:
        """The estimate that the current parameters come from."""
        raise NotImplementedError

    def spanning(self, low: Any, high: Any) -> Any:
        """The estimate for a grid from `low` to `high`; without an offset, `high` decides."""
        return high / self.qmax

    def stored_grid(self, variables: Variables) -> tuple[tf.Tensor, tf.Tensor]:
        """Scale, float32, and zero point, int32, of the int8 tensor in a file (`Grid`)."""
        now = self.grid_now(variables)
        return now.scale, tf.cast(stored_zero_point(now.qmax), tf.int32)

    def __call__(
        self,
        inputs: Any,
        training: Any,
        weights: Variables,
        member: int | None = 0,
        **kwargs: Any,
    ) -> tf.Tensor:
        """Quantize `inputs`, tensor number `member` of those on this grid; None for a tensor made
        from them, which adds nothing about the range.
        """
        variables = {name: weights[name] for name in self.parameters}
        parameters: Any = variables
        if training:
            if member is not None:
                self.follow(inputs, weights, member)
                self._initialize_once(inputs, weights, member)
        else:
            started = exceeds(weights["initialized"], 0)
            parameters = tf.nest.map_structure(tf.convert_to_tensor, variables)
            if started is not True:
                learned = parameters
                parameters = tf.cond(
                    started, lambda: learned, lambda: self._usable_estimate(inputs, variables)
                )
        return self.quantize(inputs, parameters)

    def start_from(self, estimate: Any, variables: Variables) -> None:
        """Set the variables from an estimate."""
        for name, value in self.start(tf.constant(estimate))[0].items():
            variables[name].assign(value)
        variables["initialized"].assign(1)

    def start_unseen(self, variables: Variables) -> None:
        """Start as if all values were 1, where data showed nothing but zeros: any grid holds them,
        and training can go on from it."""
        self.start_from(self.observe(tf.ones([1])), variables)

    def _usable_estimate(self, inputs: tf.Tensor, variables: Parameters) -> Any:
        start, usable = self.start(self.observe(inputs))
        return {name: tf.where(usable, start[name], variables[name]) for name in variables}

    def _initialize_once(self, inputs: tf.Tensor, weights: Variables, member: int) -> None:
        """In the first batch each tensor on the grid, in turn, widens it to its own range."""
        initialized = weights["initialized"]
        done = exceeds(initialized, member)
        if done is True:
            return

        def store(estimate: tf.Tensor) -> None:
            if member:  # the first has nothing to widen
                wider = widest(tf.stack([self.covered(weights), estimate]))
                estimate = tf.where(initialized > 0, wider, estimate)
            start, fresh = self.start(estimate)
            fresh = tf.logical_and(initialized <= member, fresh)
            for name, value in start.items():
                weights[name].assign(tf.where(fresh, value, weights[name]))
            initialized.assign(tf.where(fresh, member + 1, initialized))

        if not tf.distribute.has_strategy():
            tf.cond(done, lambda: None, lambda: store(self.observe(inputs)))
            return
        # Replicas may only meet outside a conditional, so only the estimate is conditional there.
        nothing = tf.zeros_like(self.covered(weights))
        estimate = tf.cond(done, lambda: nothing, lambda: self.observe(inputs))
        store(self.gathered(estimate))

    def gathered(self, estimate: tf.Tensor) -> tf.Tensor:
        """The combined estimate of the replicas of a strategy; `estimate` without a strategy."""
        replica = tf.distribute.get_replica_context()
        if replica is None or not tf.distribute.has_strategy():
            return estimate
        estimates = replica.all_gather(estimate[None], axis=0)
        return widest(estimates) if self.from_range else tf.reduce_mean(estimates, axis=0)

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


class Observer:
    """Collects what eager passes over some batches show about a grid; each pass sets it again.

    If several tensors of a batch are on one grid, the widest counts.

    Args:
        quantizer: of the grid.
        variables: the quantizer's.
    """

    def __init__(self, quantizer: UniformActivationQuantizer, variables: Variables) -> None:
        self._quantizer, self._variables = quantizer, variables
        self._estimates: list[np.ndarray] = []
        self._is_first = True  # of the tensors in this batch
        self.only_zeros = False  # whether all that was seen was that

    def begin_batch(self) -> None:
        """The next tensor is the first of another batch."""
        self._is_first = True

    def see(self, inputs: tf.Tensor) -> None:
        """Observe a tensor's values."""
        quantizer = self._quantizer
        estimate = quantizer.observe(inputs)
        if not np.all(np.isfinite(estimate)):
            return
        if not bool(quantizer.start(estimate)[1]):
            self.only_zeros = not self._estimates
            return
        if self._is_first:
            self._is_first = False
            self._estimates.append(estimate.numpy())
        else:
            self._estimates[-1] = widest(np.stack([self._estimates[-1], estimate])).numpy()
        self.only_zeros = False
        seen = np.stack(self._estimates)
        combined = widest(seen) if quantizer.from_range else np.mean(seen, axis=0)
        quantizer.start_from(combined, self._variables)


def break_ties(inputs: tf.Tensor, step: tf.Tensor, zero_point: tf.Tensor) -> tf.Tensor:
    """Move means of grid values that lie halfway between levels to the side that runtimes round to.

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


class StatisticActivationQuantizer(UniformActivationQuantizer):
    """A quantizer whose parameters are statistics of the data: variables that are not trained.

    `parameters` has "step", the scale.
    """

    def add_parameters(self, layer: Any, name: str) -> Variables:
        return {
            part: self.add_variable(layer, name, trainable=False, what=part)
            for part in self.parameters
        }

    def scale(self, parameters: Parameters) -> tf.Tensor:
        return tf.convert_to_tensor(parameters["step"])


def widest(estimates: Any) -> tf.Tensor:
    """The estimate that covers several, stacked along the first axis."""
    return tf.reduce_max(estimates, axis=0)
