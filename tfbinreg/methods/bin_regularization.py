"""Bin Regularization: a penalty that pulls every weight onto its quantization level.

Han et al., "Improving Low-Precision Network Quantization via Bin Regularization", ICCV 2021,
equations 5-7.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.methods import lsq_functions
from tfbinreg.methods.contract import About, GridTensors, KernelView, Method


def bin_regularization(
    weights: tf.Tensor,
    step: tf.Tensor,
    qmin: int,
    qmax: int,
    axis: int | None = None,
    *,
    detach_step: bool = True,
    scale_free: bool = False,
    damping: Any = 0.0,
    nearest: Callable[[tf.Tensor], tf.Tensor] | None = None,
    min_count: int = 1,
    normalization: str = "bin",
) -> tf.Tensor:
    """Sum over bins of the mean squared distance between a bin's weights and its level.

    Bin i holds the V_i weights whose code is q_i (clipped weights belong to the outer bins). By the
    bias-variance identity, the paper's sum of (mean - q_i s)^2 and the (biased) variance of each
    bin is sum_i mean_{w in bin i} (w - q_i s)^2, which one pass with a count per bin gives:

        L      = sum_i (1 / V_i) sum_{w in bin i} (w - q_i s)^2
        dL/dw  = 2 (w - q_i s) / V_i
        dL/ds  = -2 sum_i (q_i / V_i) sum_{w in bin i} (w - q_i s),  0 with `detach_step`

    Empty bins add nothing; a bin of one weight adds (w - q_i s)^2. Computed in float32.

    At a strength lambda, the curvature for a weight of bin i is 2 lambda / V_i. With a learning
    rate eta, plain gradient descent overshoots where V_i < 2 lambda eta and diverges where
    V_i < lambda eta. `damping` is added to each V_i. With damping = 2 lambda eta the penalty is the
    Moreau envelope of the paper's, whose parameter is the learning rate: the step

        w - eta lambda dL/dw = (V_i w + 2 lambda eta q_i s) / (V_i + 2 lambda eta)

    is the proximal (implicit) step of the paper's penalty. It ends between the weight and its
    level, regardless of the strength. The curvature is below 1 / eta, at which momentum, including
    Nesterov's, is stable too. At the paper's strength of 0.5 and rate of 0.01 the damping is a
    hundredth of a weight. Source: Parikh and Boyd, Proximal Algorithms (2014), sections 3.1 and
    4.1.

    Args:
        weights: latent (unquantized) weights, any shape and float dtype.
        step: shape (), or (channels,) with `axis`; used as max(|step|, 1e-9).
        qmin: smallest code.
        qmax: largest code.
        axis: channel axis, which may be negative, for a step per channel. Bins are then formed per
            channel, and L is the mean over channels, so that a weight is pulled about as strongly
            as with one step.
        detach_step: whether the step gets no gradient from the penalty. In the paper it gets one;
            at low strength that shrinks the step until weights clip.
        scale_free: divide by step^2 (no gradient through the divisor), so that scaling weights and
            step together does not change the penalty. The pull on a single weight in a bin then has
            the curvature 2 / step^2: plain SGD without damping diverges unless
            strength * learning_rate < step^2. With damping the pull is bounded, as without this
            option. The value is not: weights that a shrinking step leaves beyond the outermost
            level add the square of their distance in steps.
        damping: scalar >= 0 added to the number of weights in each bin: 0, the paper's formula, or
            twice strength times learning rate. With `axis` it is divided among the channels, with
            `scale_free` it is divided by step^2, so that the same number bounds the curvature. The
            gradient of an attached step is divided by 1 + damping * d2L/ds2 / 2.
        nearest: weights / step -> their codes, if not all codes from `qmin` to `qmax` are levels
            (`GridTensors.nearest`).
        min_count: bins with fewer weights have no variance part: they add only (mean - q_i s)^2,
            and move as one. The variance of one weight is 0, so 1 and 2 are the same. The paper's
            number is not known to us.
        normalization: "bin", as in the paper, or "global": all weights count equally, and L is
            divided by their number instead of the V_i. That is the mean squared quantization error
            (`msqe`).

    Returns:
        float32 scalar.

    Raises:
        ValueError: if the range does not satisfy qmin <= 0 < qmax, if there is no such axis or
            normalization, or if min_count is below 1.
    """
    options = _Options(detach_step, scale_free, damping, min_count, normalization)
    weights, step = (tf.cast(tf.convert_to_tensor(v), tf.float32) for v in (weights, step))

    @tf.custom_gradient
    def penalty(values: tf.Tensor, raw_step: tf.Tensor) -> Any:
        value, pulls = _bin_pulls(values, raw_step, qmin, qmax, axis, options, nearest)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return tuple(2.0 * upstream * pull for pull in pulls)

        return value, gradient

    return penalty(weights, step)


def _bin_pulls(
    weights: tf.Tensor,
    step: tf.Tensor,
    qmin: int,
    qmax: int,
    axis: int | None,
    options: _Options,
    nearest: Callable[[tf.Tensor], tf.Tensor] | None,
) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
    """`bin_regularization` of float32 tensors, and half its gradients: weights, then step."""
    if not qmin <= 0 < qmax:
        raise ValueError(f"Expected qmin <= 0 < qmax, got qmin={qmin}, qmax={qmax}.")
    if axis is not None:
        axis = lsq_functions.channel_axis(axis, len(weights.shape))
    codes = GridTensors(lsq_functions.effective_step(step), qmin, qmax, axis, nearest).codes(
        weights
    )
    if axis is None:
        return _pulls(weights, codes, step, qmin, qmax, 1, -float(qmin), options)
    # Channels first, each with slots of its own.
    order = [axis] + [d for d in range(len(weights.shape)) if d != axis]
    channels = weights.shape[axis]
    rows, codes = (
        tf.reshape(tf.transpose(tensor, order), [channels, -1]) for tensor in (weights, codes)
    )
    own = tf.range(channels, dtype=tf.float32)[:, None] * (qmax - qmin + 1) - qmin
    value, (pull, to_step) = _pulls(rows, codes, step[:, None], qmin, qmax, channels, own, options)
    pull = tf.reshape(pull, [weights.shape[d] for d in order])
    return value, (tf.transpose(pull, np.argsort(order)), to_step[:, 0])


@dataclasses.dataclass(frozen=True)
class _Options:
    """As the arguments of `bin_regularization`."""

    detach_step: bool
    scale_free: bool
    damping: Any
    min_count: int
    normalization: str

    def __post_init__(self) -> None:
        check_bins(self.min_count, self.normalization)


def check_bins(min_count: int, normalization: str) -> None:
    """Raise ValueError if `bin_regularization` does not know these options."""
    if not min_count >= 1:
        raise ValueError(f"min_count must be at least 1, got {min_count!r}.")
    if normalization not in ("bin", "global"):
        raise ValueError(f'normalization must be "bin" or "global", got {normalization!r}.')


def _pulls(
    values: tf.Tensor,
    codes: tf.Tensor,
    raw_step: tf.Tensor,
    qmin: int,
    qmax: int,
    channels: int,
    first_slots: Any,
    options: _Options,
) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
    """`_bin_pulls` of values whose code c falls into the slot c + `first_slots`."""
    scale = lsq_functions.effective_step(raw_step)
    # NaN has no slot; kept in range, it makes the penalty NaN instead of stopping the graph.
    slots = tf.maximum(tf.cast(codes + first_slots, tf.int32), 0)
    levels = qmax - qmin + 1
    counts = tf.raw_ops.Bincount(
        arr=tf.reshape(slots, [-1]), size=channels * levels, weights=tf.zeros([0])
    )
    counts = tf.reshape(counts, [channels, levels])
    damping = options.damping
    if options.scale_free:
        damping /= tf.square(scale)
    sizes = tf.maximum(counts, 1.0)
    distance = values - codes * scale
    if options.min_count > 2:  # for then the whole is the mean part
        sums = tf.math.unsorted_segment_sum(distance, slots, channels * levels)
        means = sums / tf.reshape(sizes, [-1])
        small = tf.reshape(counts < options.min_count, [-1])
        distance = tf.where(tf.gather(small, slots), tf.gather(means, slots), distance)
    if options.normalization == "global":
        sizes = tf.reduce_sum(counts, axis=1, keepdims=True) + tf.zeros_like(counts)
    factor = 1.0 / (sizes * channels + damping)
    pull = distance * tf.gather(tf.reshape(factor, [-1]), slots)
    if options.scale_free:
        pull /= tf.square(scale)
    to_step = tf.zeros_like(raw_step)
    if not options.detach_step:
        per_channel = raw_step.shape.rank > 0
        along = 1 if per_channel else None
        to_step = -tf.reduce_sum(pull * codes, axis=along, keepdims=per_channel)
        # The step moves all weights of a bin: half its curvature is the sum of their squared codes.
        squares = tf.square(tf.range(qmin, qmax + 1, dtype=tf.float32))
        curvature = tf.reduce_sum(counts * factor * squares, axis=along, keepdims=per_channel)
        to_step /= 1.0 + damping * curvature
        to_step = tf.where(raw_step < 0, -to_step, to_step)
    return tf.reduce_sum(pull * distance), (pull, to_step)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinOptions:
    """How the bin regularization of a model is computed.

    Attributes:
        detach_step: whether the steps get no gradient from the penalty (`bin_regularization`).
        scale_free: whether the penalty is divided by the step squared (`bin_regularization`).
        bounded_pull: whether to prevent any strength from making a weight overshoot its level: the
            damping of `bin_regularization` follows the strength and the learning rate of the
            optimizer that the model is compiled with. The factor of a folded normalization then
            gets no gradient, because it sums the pulls of a whole channel. False is the paper's
            formula.
        min_count: smallest number of weights for which a bin has a variance part
            (`bin_regularization`).
        normalization: "bin" or "global" (`bin_regularization`).
    """

    detach_step: bool = True
    scale_free: bool = False
    bounded_pull: bool = True
    min_count: int = 1
    normalization: str = "bin"

    def __post_init__(self) -> None:
        check_bins(self.min_count, self.normalization)


def _penalty(view: KernelView, options: BinOptions) -> tf.Tensor:
    damping: Any = 0.0
    if options.bounded_pull:
        # An attached step and the weights share what may move at once.
        damping = (2.0 if options.detach_step else 4.0) * view.reach
    grid = view.grid
    # The mean is over the channels that are left: 1 / (share * sizes + damping) is what a weight
    # is multiplied by.
    share = grid.share()
    value = bin_regularization(
        view.latent,
        grid.scale,
        grid.qmin,
        grid.qmax,
        grid.axis,
        detach_step=options.detach_step,
        scale_free=options.scale_free,
        damping=tf.math.divide_no_nan(damping, share),
        nearest=grid.nearest,
        min_count=options.min_count,
        normalization=options.normalization,
    )
    return tf.math.divide_no_nan(value, share)


BIN_REGULARIZATION = Method(
    name="bin_regularization",
    options=BinOptions,
    penalty=_penalty,
    trains_norms=lambda options: not options.bounded_pull,
    about=About(
        what="the mean squared distance from the level in each bin (BR)",
        trains="latent weights",
        bits="2-8",
        granularity="bin",
        paper="Han et al. 2021",
    ),
)
