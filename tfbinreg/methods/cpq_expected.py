"""CPQ's expected value over one grid, with gradients in closed form.

Lee et al., ICCV 2021 (arXiv 2109.02100); `cpq` says what of it could be read. The closed form is
our own. With r = x / a and t = a / s the probabilities are those of a logistic distribution around
r that is cut off at the grid's outer edges l and h, half a step beyond its outermost levels. The
expected value counts the edges e between levels that lie below, so

    sum_i i pi_i = qmin + sum_e A_e (1 - C_e F_e),        F_e = S((e - r) t)
    A_e = (1 - exp(-(h - e) t)) / (1 - exp(-(h - l) t)),  C_e = 1 - exp(-(e - l) t)

of which A and C are the same for all numbers. Each edge costs one logistic function, nothing
cancels however far a number is from the grid, and with B = A C

    d/dr     = t sum_e B_e F_e (1 - F_e)
    d/dlog s = sum_e (t B'_e F_e + B_e (e - r) t F_e (1 - F_e) - t A'_e)

where the prime is the derivative for t.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfbinreg.methods.lsq_functions import (
    STEP_FLOOR,
    effective_step,
    lsq_quantize,
    other_axes,
    signed_like,
)

# The levels that count lie within so many widths of the nearest one, at least and at most so many
# to either side.
WIDTHS, _FEWEST_LEVELS, MOST_LEVELS = 12.0, 2, 8


def expected_quantize(
    inputs: tf.Tensor,
    step: tf.Tensor,
    log_width: tf.Tensor,
    qmin: int,
    qmax: int,
    *,
    grad_scale: Any = 1.0,
    axis: int | None = None,
) -> tf.Tensor:
    """`cpq_functions.cpq_quantize` by "expected_value" and without gates.

    Args:
        inputs: float32.
        step, log_width, grad_scale, axis: as there.
        qmin: smallest code, <= 0.
        qmax: largest code, > 0.

    Returns:
        A tensor of the shape of `inputs`.
    """
    others = other_axes(axis, len(inputs.shape))
    shape = [] if others is None else [1 if d in others else -1 for d in range(len(inputs.shape))]

    @tf.custom_gradient
    def call(values: tf.Tensor, raw_step: tf.Tensor, width: tf.Tensor) -> Any:
        quantized = lsq_quantize(values, raw_step, qmin, qmax, axis=axis)

        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            scale = effective_step(raw_step)
            sharpness = scale / tf.maximum(tf.exp(width), STEP_FLOOR)
            ratio = values / tf.reshape(scale, shape)
            to_values, by_width = _slopes(upstream, ratio, sharpness, (qmin, qmax), shape, others)
            # What is learned depends on x / a and s / a alone.
            by_value = tf.reduce_sum(upstream * quantized - to_values * values, axis=others)
            to_step = grad_scale * (by_value / scale - by_width)
            return to_values, signed_like(to_step, raw_step), grad_scale * scale * by_width

        return quantized, grad

    return call(inputs, step, log_width)


def _slopes(
    upstream: tf.Tensor,
    ratio: tf.Tensor,
    sharpness: tf.Tensor,
    codes: tuple[int, int],
    shape: Sequence[int],
    others: Sequence[int] | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """G d/dr of each number, and of each channel the sum of G d/dlog s.

    Args:
        upstream: G.
        ratio: r.
        sharpness: t, () or (channels,).
        codes: smallest and largest.
        shape: makes t broadcast against r.
        others: the axes that a channel is summed over, None for all.
    """
    middle, half = _window(ratio, tf.reduce_min(sharpness), *codes)
    turn = tf.reshape(sharpness, shape)
    turned = (ratio - middle) * turn
    total = tf.reduce_sum(upstream, axis=others)

    def add(index: Any, to_ratio: tf.Tensor, by_width: tf.Tensor) -> tuple[Any, ...]:
        place = tf.cast(index, tf.float32)
        edge = _edge(place + 1.0, 2.0 * half - place, sharpness)
        at = (place + 0.5 - half) * turn - turned
        below = tf.sigmoid(at)
        density = tf.raw_ops.SigmoidGrad(y=below, dy=upstream)
        to_ratio += tf.reshape(edge.both * sharpness, shape) * density
        by_width += edge.both_by_width * tf.reduce_sum(upstream * below, axis=others)
        by_width += edge.both * tf.reduce_sum(at * density, axis=others)
        return index + 1, to_ratio, by_width - edge.above_by_width * total

    # A loop, for a graph of all edges takes long to build and its memory.
    count = tf.cast(2.0 * half, tf.int32)
    start = tf.constant(0), tf.zeros_like(upstream), tf.zeros_like(total)
    _, to_ratio, by_width = tf.while_loop(
        lambda index, *_: index < count, add, start, parallel_iterations=1
    )
    return to_ratio, by_width


def _window(
    ratio: tf.Tensor, sharpness: tf.Tensor, qmin: int, qmax: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The middle of the levels that count, and how far they reach to either side, in steps.

    They are as many for all numbers, and all of them are in the grid.
    """
    half = tf.constant((qmax - qmin) / 2.0)
    if qmax - qmin <= 2 * _FEWEST_LEVELS:
        return qmin + half, half
    reach = tf.math.ceil(WIDTHS / sharpness)
    half = tf.minimum(half, tf.clip_by_value(reach, _FEWEST_LEVELS, MOST_LEVELS))
    return tf.clip_by_value(tf.floor(ratio + 0.5), qmin + half, qmax - half), half


class _Edge(NamedTuple):
    """What the numbers have in common at an edge, () or (channels,).

    Attributes:
        both: B.
        both_by_width: t B'.
        above_by_width: t A'.
    """

    both: tf.Tensor
    both_by_width: tf.Tensor
    above_by_width: tf.Tensor


def _edge(low: tf.Tensor, high: tf.Tensor, sharpness: tf.Tensor) -> _Edge:
    """Of the edge that lies so many steps above the lowest one and below the highest one."""
    to_low, to_high, whole = low * sharpness, high * sharpness, (low + high) * sharpness

    def share(turned: tf.Tensor) -> tf.Tensor:
        return -tf.math.expm1(-turned)

    def growth(turned: tf.Tensor) -> tf.Tensor:
        """t times the derivative of the logarithm of `share`."""
        return turned / tf.math.expm1(turned)

    above = share(to_high) / share(whole)
    both = above * share(to_low)
    above_growth = growth(to_high) - growth(whole)
    return _Edge(both, both * (above_growth + growth(to_low)), above * above_growth)
