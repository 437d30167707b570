"""Bin Regularization: a penalty that pulls every weight onto its quantization level.

Han et al., "Improving Low-Precision Network Quantization via Bin Regularization", ICCV 2021,
equations 5-7.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import ops


def bin_regularization(
    weights: tf.Tensor,
    step: tf.Tensor,
    qmin: int,
    qmax: int,
    axis: int | None = None,
    *,
    detach_step: bool = True,
    scale_free: bool = False,
) -> tf.Tensor:
    """Sum over bins of the mean squared distance between a bin's weights and its level.

    Bin i holds the V_i weights whose code is q_i (clipped weights belong to the outer bins). The
    paper's sum of (mean - q_i s)^2 and the (biased) variance of each bin is, by the bias-variance
    identity, sum_i mean_{w in bin i} (w - q_i s)^2, which one pass with a count per bin gives:

        L      = sum_i (1 / V_i) sum_{w in bin i} (w - q_i s)^2
        dL/dw  = 2 (w - q_i s) / V_i
        dL/ds  = -2 sum_i (q_i / V_i) sum_{w in bin i} (w - q_i s),  0 with `detach_step`

    Empty bins add nothing; a bin of one weight adds (w - q_i s)^2. Computed in float32.

    Args:
        weights: latent (unquantized) weights, any shape and float dtype.
        step: shape (), or (channels,) with `axis`; used as max(|step|, 1e-9).
        qmin: smallest code.
        qmax: largest code.
        axis: channel axis for a step per channel. Bins are then formed per channel, and L is the
            mean over channels, so that a weight is pulled about as hard as with one step.
        detach_step: whether the step gets no gradient from the penalty. The paper lets it have one;
            at low strength that shrinks the step until weights clip.
        scale_free: divide by step^2 (no gradient through the divisor), so that scaling weights and
            step together leaves the penalty alone. The pull on a lone weight of a bin then has the
            curvature 2 / step^2: plain SGD diverges unless strength * learning_rate < step^2.

    Returns:
        float32 scalar.

    Raises:
        ValueError: if the range does not satisfy qmin <= 0 < qmax.
    """
    weights, step = (tf.cast(tf.convert_to_tensor(v), tf.float32) for v in (weights, step))

    @tf.custom_gradient
    def penalty(values: tf.Tensor, raw_step: tf.Tensor) -> Any:
        value, pulls = bin_pulls(
            values, raw_step, qmin, qmax, axis, detach_step=detach_step, scale_free=scale_free
        )

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return tuple(2.0 * upstream * pull for pull in pulls)

        return value, gradient

    return penalty(weights, step)


def bin_pulls(
    weights: tf.Tensor,
    step: tf.Tensor,
    qmin: int,
    qmax: int,
    axis: int | None,
    *,
    detach_step: bool,
    scale_free: bool,
) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
    """`bin_regularization` of float32 tensors, and half its gradients for the weights and the step.

    For callers that put a conditional around many penalties: a gradient taken through the
    conditional would cost them another one.
    """
    if not qmin <= 0 < qmax:
        raise ValueError(f"Expected qmin <= 0 < qmax, got qmin={qmin}, qmax={qmax}.")
    if axis is None:
        return _pulls(weights, step, qmin, qmax, 1, -float(qmin), detach_step, scale_free)
    # Channels first, each with slots of its own.
    order = [axis] + [d for d in range(len(weights.shape)) if d != axis]
    channels = weights.shape[axis]
    rows = tf.reshape(tf.transpose(weights, order), [channels, -1])
    own = tf.range(channels, dtype=tf.float32)[:, None] * (qmax - qmin + 1) - qmin
    value, (pull, to_step) = _pulls(
        rows, step[:, None], qmin, qmax, channels, own, detach_step, scale_free
    )
    pull = tf.reshape(pull, [weights.shape[d] for d in order])
    return value, (tf.transpose(pull, np.argsort(order)), to_step[:, 0])


def _pulls(
    values: tf.Tensor,
    raw_step: tf.Tensor,
    qmin: int,
    qmax: int,
    channels: int,
    first_slots: Any,
    detach_step: bool,
    scale_free: bool,
) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
    """`bin_pulls` of values whose code c falls into the slot c + `first_slots`."""
    scale = ops.effective_step(raw_step)
    codes = tf.floor(tf.clip_by_value(values / scale, qmin, qmax) + 0.5)
    # NaN has no slot; kept in range, it makes the penalty NaN instead of stopping the graph.
    slots = tf.maximum(tf.cast(codes + first_slots, tf.int32), 0)
    size = channels * (qmax - qmin + 1)
    counts = tf.raw_ops.Bincount(arr=slots, size=size, weights=tf.zeros([0]))
    factor = 1.0 / (tf.maximum(counts, 1.0) * channels)
    distance = values - codes * scale
    pull = distance * tf.gather(factor, slots)
    if scale_free:
        pull /= tf.square(scale)
    to_step = tf.zeros_like(raw_step)
    if not detach_step:
        per_channel = raw_step.shape.rank > 0
        along = 1 if per_channel else None
        to_step = -tf.reduce_sum(pull * codes, axis=along, keepdims=per_channel)
        to_step = tf.where(raw_step < 0, -to_step, to_step)
    return tf.reduce_sum(pull * distance), (pull, to_step)
