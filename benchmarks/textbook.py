"""Bin regularization as the paper writes it: a loop over bins, the baseline of the benchmark."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfbinreg.layers.sites import kernel_sites
from tfbinreg.methods.lsq_functions import effective_step


def textbook_bin_regularization(
    weights: tf.Tensor, step: tf.Tensor, qmin: int, qmax: int
) -> tf.Tensor:
    """Sum over bins of (mean - level)^2 + variance (Han et al. 2021, equations 5 to 7).

    Equal to `tfbinreg.bin_regularization`, with gradients from autodiff and none for the step.
    Empty bins add nothing.

    Args:
        weights: latent weights, float32, any shape.
        step: shape ().
        qmin: smallest code.
        qmax: largest code.

    Returns:
        float32 scalar.
    """
    scale = tf.stop_gradient(effective_step(step))
    codes = tf.floor(tf.clip_by_value(weights / scale, qmin, qmax) + 0.5)
    total = tf.constant(0.0)
    for code in range(qmin, qmax + 1):
        members = tf.boolean_mask(weights, tf.equal(codes, float(code)))
        count = tf.cast(tf.size(members), tf.float32)
        mean = tf.math.divide_no_nan(tf.reduce_sum(members), count)
        squares = tf.reduce_sum(tf.square(members - mean))
        variance = tf.math.divide_no_nan(squares, count)
        occupied = tf.cast(count > 0.0, tf.float32)
        total += occupied * tf.square(mean - code * scale) + variance
    return total


def attach_textbook(model: Any, bits: int, strength: float) -> None:
    """Add strength * the textbook penalty of the kernels of at most `bits` bits to the loss.

    Kernels with more bits, the first and the last one, are left out: their hundreds of bins would
    only make the baseline slower.
    """
    chosen = [site for site in kernel_sites(model) if site.quantizer.bits <= bits]

    def penalty() -> tf.Tensor:
        terms = [
            textbook_bin_regularization(
                site.latent, site.step, site.quantizer.qmin, site.quantizer.qmax
            )
            for site in chosen
        ]
        return strength * tf.add_n(terms)

    model.add_loss(penalty)
