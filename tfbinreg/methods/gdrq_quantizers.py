"""GDRQ's Scale-Clip as functions and tfmot `Quantizer` objects; for the source see `gdrq`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import check_bits, weight_code_range
from tfbinreg.methods.contract import KernelStep
from tfbinreg.methods.lsq_functions import channel_axis, nearest_codes
from tfbinreg.methods.uniform import Parameters, UniformWeightQuantizer, Variables, is_usable
from tfbinreg.methods.uniform_activations import StatisticActivationQuantizer, widest

SCALE_CLIP, LEAST_LOSS = "scale_clip", "least_loss"
FORWARD, LATENT = "forward", "latent"
_CANDIDATES = 64  # thresholds tried, at equal ratios
_SMALLEST = 0.5  # of mean|w|


def clip_quantize(
    inputs: tf.Tensor, scale: tf.Tensor, qmin: int, qmax: int, reach: float, masked: bool
) -> tf.Tensor:
    """Quantize to code * scale with a scale that is a statistic and gets no gradient.

    q(x) = clip(round(x / s), qmin, qmax) * s, halves rounded up. With the threshold T = reach * s:

        dq/dx = 1, or, if masked: 1 where |x| <= T, else 0

    Args:
        inputs: any float tensor; computed in float32 and cast back.
        scale: s, positive, float32, broadcastable to `inputs`.
        qmin: smallest code.
        qmax: largest code.
        reach: the threshold in steps.
        masked: whether numbers beyond the threshold get no gradient.
    """
    inputs = tf.convert_to_tensor(inputs)
    scale = tf.stop_gradient(scale)

    @tf.custom_gradient
    def call(values: tf.Tensor) -> Any:
        def grad(upstream: tf.Tensor) -> tf.Tensor:
            if not masked:
                return upstream
            return tf.where(tf.abs(values) <= reach * scale, upstream, tf.zeros_like(upstream))

        return nearest_codes(values / scale, qmin, qmax) * scale, grad

    return tf.cast(call(tf.cast(inputs, tf.float32)), inputs.dtype)


def least_loss_threshold(rows: tf.Tensor, qmin: int, qmax: int) -> tf.Tensor:
    """The thresholds of the least quantized loss sum|w - q(w)| / sum|w| (p = 1), one per row.

    It tries 64 thresholds at equal ratios from half the mean of |w| to its maximum.

    Args:
        rows: float32, (groups, weights).
        qmin: smallest code.
        qmax: largest code; the step is T / (qmax + 1).

    Returns:
        float32, (groups,); 0 of a row of zeros.
    """
    sizes = tf.abs(rows)
    least = _SMALLEST * tf.reduce_mean(sizes, axis=1)
    span = tf.math.divide_no_nan(tf.reduce_max(sizes, axis=1), least)
    powers = tf.constant(np.linspace(0.0, 1.0, _CANDIDATES), tf.float32)
    candidates = least * tf.pow(span, powers[:, None])

    def loss(thresholds: tf.Tensor) -> tf.Tensor:
        scale = thresholds[:, None] / (qmax + 1)
        codes = nearest_codes(tf.math.divide_no_nan(rows, scale), qmin, qmax)
        return tf.reduce_sum(tf.abs(rows - codes * scale), axis=1)

    best = tf.argmin(tf.map_fn(loss, candidates), axis=0)
    return tf.gather(tf.transpose(candidates), best, axis=1, batch_dims=1)


def group_problem(channels: int, groups: int | None, group_size: int | None) -> str | None:
    """What is wrong with grouping so many output channels; None if nothing is."""
    for name, number in {"groups": groups, "group_size": group_size}.items():
        if number is not None and channels % number:
            return f"its {channels} output channels cannot be divided by {name}={number} of gdrq"
    return None


@_compat.register
class GDRQWeightQuantizer(UniformWeightQuantizer):
    """GDRQ for a kernel, one threshold per tensor or per group of output channels.

    Each training pass recomputes the threshold from the weights that it quantizes, and stores the
    step in a variable that inference, `grid_now` and `settle` use. A group of zeros keeps its step.

    Args:
        bits: 2 to 8.
        axis: channel axis of the kernel for a step per channel, None for one step.
        group_size: consecutive channels that share a step.
        groups: instead of it, the number of groups; 1 channel per group without either.
        k, alpha, search_every, clip, masked: as for `GdrqOptions`.
    """

    def __init__(
        self,
        bits: int,
        axis: int | None = None,
        *,
        groups: int | None = None,
        group_size: int | None = None,
        k: float = 2.0,
        alpha: str = SCALE_CLIP,
        search_every: int = 100,
        clip: str = FORWARD,
        masked: bool = False,
    ) -> None:
        self.bits = check_bits(bits, "weight bits")
        self.signed, self.axis = True, axis
        self.groups, self.group_size, self.k, self.alpha = groups, group_size, k, alpha
        self.search_every, self.clip, self.masked = search_every, clip, masked
        self.qmin, self.qmax = weight_code_range(self.bits)
        self.reach = self.qmax + 1  # the threshold in steps
        self.acts_after_steps = clip == LATENT

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        shape = () if self.axis is None else (int(tensor_shape[self.axis]),)
        problem = group_problem(*shape, self.groups, self.group_size) if shape else None
        if problem is not None:
            raise ValueError(f"Cannot quantize {layer.name!r}: {problem}.")
        variables = {"step": self.add_variable(layer, name, shape, trainable=False)}
        if self.alpha == LEAST_LOSS:
            variables["passes"] = self.add_variable(
                layer, name, (), False, "zeros", "passes", dtype=tf.int32
            )
        return variables

    def scale(self, parameters: Parameters) -> tf.Tensor:
        return tf.convert_to_tensor(parameters["step"])

    def start_from(self, variables: Variables, step: np.ndarray) -> None:
        variables["step"].assign(step)

    def initialize(self, variables: Variables, kernel: np.ndarray, start: str = "mse") -> None:
        """Set the step to that of the kernel; `start` has no effect.

        Raises:
            ValueError: if every weight is zero, or the step would not be finite.
        """
        # Groups of zeros take what `start_step` says; those that are not, their own.
        super().initialize(variables, kernel, start)
        variables["step"].assign(self._latest(tf.constant(kernel), variables["step"]))

    def __call__(self, inputs: Any, training: Any, weights: Variables, **kwargs: Any) -> tf.Tensor:
        inputs = tf.convert_to_tensor(inputs)
        step = tf.convert_to_tensor(weights["step"])
        if training:
            step = self._after_pass(tf.cast(inputs, tf.float32), step, weights)
            weights["step"].assign(step)
        grid = self.grid_now({"step": step})
        scale = grid.broadcast_scale(len(inputs.shape))
        return clip_quantize(inputs, scale, self.qmin, self.qmax, self.reach, self.masked)

    def after_step(self, step: KernelStep) -> tf.Tensor:
        """The kernel with its latent weights clipped to the threshold of the last pass."""
        threshold = step.grid.broadcast_scale(len(step.kernel.shape)) * self.reach
        latent = tf.clip_by_value(step.kernel * step.factor, -threshold, threshold)
        # A factor of 0 hides the kernel: any number will do.
        clipped = tf.math.divide_no_nan(latent, step.factor)
        return tf.where(tf.abs(step.kernel * step.factor) > threshold, clipped, step.kernel)

    def get_config(self) -> dict[str, Any]:
        return {
            "bits": self.bits,
            "axis": self.axis,
            "groups": self.groups,
            "group_size": self.group_size,
            "k": self.k,
            "alpha": self.alpha,
            "search_every": self.search_every,
            "clip": self.clip,
            "masked": self.masked,
        }

    def _after_pass(self, latent: tf.Tensor, step: tf.Tensor, weights: Variables) -> tf.Tensor:
        if self.alpha == SCALE_CLIP:
            return self._latest(latent, step)
        passes = tf.convert_to_tensor(weights["passes"])
        weights["passes"].assign((passes + 1) % self.search_every)
        return tf.cond(passes > 0, lambda: step, lambda: self._latest(latent, step))

    def _latest(self, latent: tf.Tensor, step: Any) -> tf.Tensor:
        """The step of these weights; that of a group of zeros stays."""
        rows = self._rows(tf.stop_gradient(latent))
        if self.alpha == SCALE_CLIP:
            threshold = self.k * tf.reduce_mean(tf.abs(rows), axis=1)
        else:
            threshold = least_loss_threshold(rows, self.qmin, self.qmax)
        own = threshold / self.reach
        own = (
            own[0] if self.axis is None else tf.repeat(own, latent.shape[self.axis] // own.shape[0])
        )
        return tf.where(is_usable(own), own, step)

    def _rows(self, latent: tf.Tensor) -> tf.Tensor:
        """The weights, a row for each group."""
        if self.axis is None:
            return tf.reshape(latent, (1, -1))
        rank = len(latent.shape)
        axis = channel_axis(self.axis, rank)
        channels = latent.shape[axis]
        groups = self.groups or channels // (self.group_size or 1)
        first = tf.transpose(latent, [axis, *(d for d in range(rank) if d != axis)])
        return tf.reshape(first, (groups, -1))


@_compat.register
class GDRQActivationQuantizer(StatisticActivationQuantizer):
    """GDRQ for an activation: T is a moving average over batches, a <- a + m (T - a).

    T = k mean|a| of a batch. Grids that start from the range of the data, with more than 4 bits or
    for model outputs, follow max|a| instead: with enough levels, a few means would clip numbers
    that cost nothing to keep. Model inputs stay where they started. The largest level of an
    unsigned grid is T, so its step is T / (2^b - 1); that of a signed grid is T / 2^(b-1). An
    unsigned grid includes the ReLU before it.

    Args:
        bits, signed, upper_limit, from_range, fixed: as of `UniformActivationQuantizer`.
        k: see above.
        momentum: m.
    """

    # `seen` is the widest step that the tensors of the present batch asked for.
    parameters = ("step", "seen")

    def __init__(
        self,
        bits: int,
        signed: bool = False,
        upper_limit: float | None = None,
        from_range: bool = False,
        fixed: bool = False,
        *,
        k: float = 6.0,
        momentum: float = 0.01,
    ) -> None:
        super().__init__(bits, signed, upper_limit, from_range, fixed)
        self.k, self.momentum = k, momentum
        self.reach = self.qmax + 1 if self.signed else self.qmax

    def observe(self, inputs: tf.Tensor) -> tf.Tensor:
        if self.from_range:
            return super().observe(inputs)
        values = tf.cast(inputs, tf.float32)
        sizes = tf.abs(values) if self.signed else tf.nn.relu(values)
        threshold = self.k * tf.reduce_mean(sizes)
        if self.upper_limit is not None:
            threshold = tf.minimum(threshold, self.upper_limit)
        return threshold / self.reach

    def start(self, estimate: tf.Tensor) -> tuple[Parameters, tf.Tensor]:
        return {"step": estimate, "seen": estimate}, is_usable(estimate)

    def covered(self, parameters: Parameters) -> tf.Tensor:
        return tf.convert_to_tensor(parameters["step"])

    def quantize(self, inputs: tf.Tensor, parameters: Parameters) -> tf.Tensor:
        values = inputs if self.signed else tf.nn.relu(inputs)
        scale = tf.convert_to_tensor(parameters["step"])
        return clip_quantize(values, scale, self.qmin, self.qmax, self.reach, True)

    def follow(self, inputs: tf.Tensor, weights: Variables, member: int) -> None:
        """Observe a tensor; the first of a batch moves the step towards the previous batch."""
        if self.fixed:
            return
        step, seen = (tf.convert_to_tensor(weights[name]) for name in self.parameters)
        estimate = self.gathered(self.observe(inputs))
        estimate = tf.where(is_usable(estimate), estimate, seen)
        if member:
            estimate = widest(tf.stack([estimate, seen]))
        else:
            weights["step"].assign(step + self.momentum * (seen - step))
        started = weights["initialized"] > member
        weights["seen"].assign(tf.where(started, estimate, seen))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k, "momentum": self.momentum}
