"""Bin Regularization: a penalty that pulls every weight onto its quantization level.

Han et al., "Improving Low-Precision Network Quantization via Bin Regularization", ICCV 2021,
equations 5-7.
"""

from __future__ import annotations

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
    if not qmin <= 0 < qmax:
        raise ValueError(f"Expected qmin <= 0 < qmax, got qmin={qmin}, qmax={qmax}.")
    weights = tf.cast(tf.convert_to_tensor(weights), tf.float32)
    step = tf.cast(tf.convert_to_tensor(step), tf.float32)
    if axis is not None:  # channels first, so that one code path serves both
        order = [axis] + [d for d in range(len(weights.shape)) if d != axis]
        weights = tf.transpose(weights, order)
    channels = 1 if axis is None else weights.shape[0]
    rows = tf.reshape(weights, [channels, -1])
    return _penalty(rows, tf.reshape(step, [-1, 1]), qmin, qmax, detach_step, scale_free)


def _penalty(rows, step, qmin, qmax, detach_step, scale_free):
    """The penalty of `rows` (channels, elements), `step` (channels, 1), gradient written out."""
    channels, bins = rows.shape[0], qmax - qmin + 1

    @tf.custom_gradient
    def call(values, raw_step):
        scale = ops.effective_step(raw_step)
        codes = tf.floor(tf.clip_by_value(values / scale, qmin, qmax) + 0.5)
        offset = tf.range(channels, dtype=tf.float32)[:, None] * bins - qmin
        # NaN has no slot; kept in range, it makes the penalty NaN instead of stopping the graph.
        slots = tf.maximum(tf.cast(codes + offset, tf.int32), 0)
        counts = tf.raw_ops.Bincount(arr=slots, size=channels * bins, weights=tf.zeros([0]))
        factor = 1.0 / (tf.maximum(counts, 1.0) * channels)
        distance = values - codes * scale
        pull = distance * tf.gather(factor, slots)
        if scale_free:
            pull /= tf.square(scale)

        def grad(upstream):
            to_values = (2.0 * upstream) * pull
            if detach_step:
                return to_values, tf.zeros_like(raw_step)
            to_step = -tf.reduce_sum(to_values * codes, axis=1, keepdims=True)
            return to_values, tf.where(raw_step < 0, -to_step, to_step)

        return tf.reduce_sum(pull * distance), grad

    return call(rows, step)
