"""TSQ's grids as functions and tfmot `Quantizer` objects; for the source see `tsq`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import Grid
from tfbinreg.methods import lsq_functions
from tfbinreg.methods.contract import GridTensors
from tfbinreg.methods.lsq_quantizers import LSQWeightQuantizer
from tfbinreg.methods.uniform import Parameters, Variables, is_usable
from tfbinreg.methods.uniform_activations import StatisticActivationQuantizer

DATA, PAPER = "data", "paper"
HALF, FREE = "half", "free"
# Of normal numbers with mean 0 and variance 1: the dead zone, and the step at two bits.
PAPER_DEAD_ZONE, PAPER_STEP = 0.32, 0.6487

_SAMPLE = 2**15  # numbers of a batch that a step is looked for with
_CANDIDATES = 64  # steps tried, at equal ratios
_SMALLEST = 0.02  # of the step that covers all numbers
_REFINEMENTS = 4


def sparse_codes(ratio: tf.Tensor, zero_to: Any, qmax: int) -> tf.Tensor:
    """0 up to `zero_to`, above it the nearest code from 1 to `qmax`, halves up; float32."""
    codes = lsq_functions.nearest_codes(ratio, 0, qmax)
    return tf.where(ratio > zero_to, tf.maximum(codes, 1.0), 0.0)


def sparse_quantize(
    inputs: tf.Tensor, step: tf.Tensor, dead_zone: tf.Tensor | None, qmax: int
) -> tf.Tensor:
    """Quantize to a few levels, where most numbers become 0 (TSQ's step 1).

    With the step D and the dead zone eps, Q(x) = 0 for x <= eps, else D times the nearest code from
    1 to qmax. Without a dead zone of its own, eps is D / 2, and x = D / 2 gets the code 1: plain
    rounding. The gradient also passes where the output is 0:

        dQ/dx = 1 if 0 < x < qmax D else 0

    Args:
        inputs: any float tensor; computed in float32 and cast back.
        step: D, positive, float32, ().
        dead_zone: eps, or None.
        qmax: largest code.
    """
    inputs = tf.convert_to_tensor(inputs)
    step = tf.stop_gradient(step)

    @tf.custom_gradient
    def call(values: tf.Tensor) -> Any:
        def grad(upstream: tf.Tensor) -> tf.Tensor:
            inside = tf.logical_and(values > 0.0, values < qmax * step)
            return tf.where(inside, upstream, tf.zeros_like(upstream))

        ratio = values / step
        if dead_zone is None:
            return lsq_functions.nearest_codes(ratio, 0, qmax) * step, grad
        return sparse_codes(ratio, dead_zone / step, qmax) * step, grad

    return tf.cast(call(tf.cast(inputs, tf.float32)), inputs.dtype)


def sparse_start(values: tf.Tensor, sparsity: float, qmax: int) -> tf.Tensor:
    """The step D and the dead zone eps of numbers, float32, (2,); zeros if none is positive.

    eps is the `sparsity` quantile, at least 0, and D the step with the least squared error of the
    numbers from there on, which take the codes 1 to qmax: the best of 64 at equal ratios, then of
    64 around it, refined by D = sum x q / sum q^2 with their codes q. If there are more numbers,
    32,768 are drawn, always the same.
    """
    values = tf.reshape(tf.cast(values, tf.float32), [-1])
    size = tf.size(values)
    drawn = tf.random.stateless_uniform([_SAMPLE], (size, _SAMPLE), maxval=size, dtype=tf.int32)
    values = tf.cond(size > _SAMPLE, lambda: tf.gather(values, drawn), lambda: values)
    values = tf.sort(values)
    place = tf.cast(tf.round(sparsity * tf.cast(tf.size(values) - 1, tf.float32)), tf.int32)
    dead_zone = tf.maximum(values[place], 0.0)
    above = tf.cast(tf.logical_and(values >= dead_zone, values > 0.0), tf.float32)

    def codes(step: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(tf.floor(values / step + 0.5), 1.0, float(qmax))

    def error(step: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(above * tf.square(values - step * codes(step)))

    largest = tf.maximum(values[-1], np.finfo(np.float32).tiny) / qmax
    coarse = np.geomspace(_SMALLEST, 1.0, _CANDIDATES)
    near = np.geomspace(coarse[0], coarse[2], _CANDIDATES) / coarse[1]  # between the neighbours
    step = largest
    for ratios in (coarse, near):
        candidates = step * tf.constant(ratios, tf.float32)
        step = tf.gather(candidates, tf.argmin(tf.map_fn(error, candidates)))
    for _ in range(_REFINEMENTS):
        own = above * codes(step)
        better = tf.math.divide_no_nan(tf.reduce_sum(own * values), tf.reduce_sum(own * own))
        step = tf.where(better > 0.0, better, step)
    return tf.where(values[-1] > 0.0, tf.stack([step, dead_zone]), tf.zeros(2))


def coded_quantize(
    inputs: tf.Tensor, step: tf.Tensor, qmin: int, qmax: int, factor: float, axis: int | None
) -> tf.Tensor:
    """Quantize a kernel to code * s with s = max(|step|, 1e-9), for training after step 2.

    Gradients: 1 for every weight, also beyond the outermost level, where those of ternary kernels
    lie; with q the code, that of `step` is factor * sum(dL/dv q), the codes taken as fixed.

    Args:
        inputs: float32.
        step: (), or (channels,) with `axis`.
        qmin: smallest code.
        qmax: largest.
        factor: of the step's gradient, see `lsq_functions.gradient_scale`.
        axis: channel axis for a step per channel.
    """
    scale = lsq_functions.effective_step(step)
    others = lsq_functions.other_axes(axis, len(inputs.shape))

    @tf.custom_gradient
    def call(values: tf.Tensor, own: tf.Tensor) -> Any:
        grid = GridTensors(own, qmin, qmax, axis)
        codes = grid.codes(values)

        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return upstream, factor * tf.reduce_sum(upstream * codes, axis=others)

        return codes * grid.broadcast_scale(len(values.shape)), grad

    return call(inputs, scale)


@_compat.register
class TSQWeightQuantizer(LSQWeightQuantizer):
    """Float weights in step 1, then code * step with codes from -(2^(b-1) - 1) to 2^(b-1) - 1.

    The variable `solved`, saved with the model, says whether step 2 is over: `tsq.solve_kernels`
    sets it, with the codes and steps that it finds. At 2 bits the codes are -1, 0 and 1.

    Args:
        bits: 2 to 8.
        axis: channel axis of the kernel for a step per channel, None for one step.
        start: as of `LSQWeightQuantizer`.
    """

    def __init__(self, bits: int, axis: int | None = None, start: Any = None) -> None:
        super().__init__(bits, axis, start)
        self.qmin = -self.qmax

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        solved = self.add_variable(layer, name, (), False, "zeros", "solved", dtype=tf.int32)
        return {**super().build(tensor_shape, name, layer), "solved": solved}

    def __call__(self, inputs: Any, training: Any, weights: Variables, **kwargs: Any) -> tf.Tensor:
        inputs = tf.convert_to_tensor(inputs)
        count = int(np.prod(inputs.shape))
        if self.axis is not None:
            count //= int(inputs.shape[self.axis])
        factor = lsq_functions.gradient_scale(count, self.qmax)
        values = tf.cast(inputs, tf.float32)
        coded = coded_quantize(values, weights["step"], self.qmin, self.qmax, factor, self.axis)
        return tf.cast(tf.where(weights["solved"] > 0, coded, values), inputs.dtype)

    def settle(self, variables: Variables, name: str) -> Grid:
        """The grid.

        Raises:
            ValueError: if the weights are still float, or the step is not finite.
        """
        if not variables["solved"].numpy():
            raise ValueError(
                f"The weights of {name!r} are float, as in TSQ's step 1: tfbinreg.solve(model, "
                "data) is step 2."
            )
        return super().settle(variables, name)


@_compat.register
class TSQActivationQuantizer(StatisticActivationQuantizer):
    """TSQ for an activation: levels 0, D, 2 D, ..., set by calibration and not trained.

    An unsigned grid of few levels that includes the ReLU before it.

    Args:
        bits: 2 to 8.
        upper_limit: as of `UniformActivationQuantizer`.
        sparsity: target share of zeros, from which the dead zone and the step are computed
            (`sparse_start`).
        constants: "paper" uses the paper's D and eps instead.
        dead_zone: "half" sets eps to D / 2, which files hold exactly, "free" keeps it.
    """

    def __init__(
        self,
        bits: int,
        upper_limit: float | None = None,
        *,
        sparsity: float = 0.625,
        constants: str = DATA,
        dead_zone: str = HALF,
    ) -> None:
        super().__init__(bits, upper_limit=upper_limit)
        self.sparsity, self.constants, self.dead_zone = sparsity, constants, dead_zone
        self.parameters = ("step", "dead_zone") if dead_zone == FREE else ("step",)

    def observe(self, inputs: tf.Tensor) -> tf.Tensor:
        """D and eps of one batch, (2,)."""
        if self.constants == PAPER:
            return tf.constant([PAPER_STEP, PAPER_DEAD_ZONE])
        found = sparse_start(inputs, self.sparsity, self.qmax)
        if self.upper_limit is None:
            return found
        limited = tf.minimum(found[0], self.upper_limit / self.qmax)
        return tf.stack([limited, tf.minimum(found[1], limited)])

    def start(self, estimate: tf.Tensor) -> tuple[Parameters, tf.Tensor]:
        both = {"step": estimate[0], "dead_zone": estimate[1]}
        return {name: both[name] for name in self.parameters}, is_usable(estimate[0])

    def covered(self, parameters: Parameters) -> tf.Tensor:
        step = tf.convert_to_tensor(parameters["step"])
        return tf.stack([step, parameters.get("dead_zone", 0.5 * step)])

    def spanning(self, low: Any, high: Any) -> Any:
        step = high / self.qmax
        return np.stack([step, 0.5 * step])

    def grid_now(self, variables: Variables) -> GridTensors:
        plain = super().grid_now(variables)
        if self.dead_zone == HALF:
            return plain
        zero_to = variables["dead_zone"] / plain.scale
        return GridTensors(
            plain.scale, 0, self.qmax, None, lambda ratio: sparse_codes(ratio, zero_to, self.qmax)
        )

    def quantize(self, inputs: tf.Tensor, parameters: Parameters) -> tf.Tensor:
        return sparse_quantize(
            inputs, self.scale(parameters), parameters.get("dead_zone"), self.qmax
        )

    def settle(self, variables: Variables, name: str) -> Grid:
        """The grid.

        Raises:
            ValueError: if it was never started, or has a dead zone that no integer grid can have.
        """
        if self.dead_zone == FREE:
            step, zero_to = (float(variables[part].numpy()) for part in self.parameters)
            raise ValueError(
                f"The dead zone of {name!r} reaches to {zero_to:.4g}, which is not half of its "
                f"step {step:.4g}: no file can hold that; quantize with the option "
                "dead_zone='half' of tsq."
            )
        return super().settle(variables, name)

    def get_config(self) -> dict[str, Any]:
        return {
            "bits": self.bits,
            "upper_limit": self.upper_limit,
            "sparsity": self.sparsity,
            "constants": self.constants,
            "dead_zone": self.dead_zone,
        }
