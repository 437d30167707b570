"""ALQ's multi-bit weights as functions of tensors; for the source see `alq`.

The weights of a group, one output channel, are sums of its coordinates with signs, w = sum_i
a_i b_i with a_i > 0 and b_i of -1 or 1. A pruned coordinate is 0. Weights are rows here, (groups,
weights), and coordinates (groups, count). Which signs a weight has is a row of `sign_table`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

# Every int8 weight the runtimes accept lies in [-127, 127].
LARGEST_CODE = 127
# A coordinate that is not pruned is never smaller.
SMALLEST = 1e-9
# Of the mean diagonal: how firmly a solution holds on to the coordinates there were, so that bases
# that are nearly the same do not make one huge and another as huge with the other sign.
_RIDGE = 1e-4


class Levels(NamedTuple):
    """The sums of a group's coordinates.

    Attributes:
        values: float32, (groups, 2^count), ascending.
        signs: int32, in their shape: the row of `sign_table` that gives each level.
    """

    values: tf.Tensor
    signs: tf.Tensor


def sign_table(count: int) -> np.ndarray:
    """All sign combinations of `count` coordinates, float32, (2^count, count)."""
    rows = np.arange(2**count)[:, None]
    return (1.0 - 2.0 * (rows >> np.arange(count) & 1)).astype(np.float32)


def levels_of(parts: tf.Tensor) -> Levels:
    """The levels of coordinates, float32, (groups, count)."""
    sums = tf.matmul(parts, sign_table(parts.shape[1]), transpose_b=True)
    order = tf.argsort(sums, axis=1, stable=True)
    return Levels(tf.gather(sums, order, batch_dims=1), order)


def snapped(coordinates: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Coordinates as whole multiples of a scale that fit int8, a_i = m_i s.

    s = sum(a) / 127. The m_i are a_i / s, rounded down but for those with the largest remainders,
    so that they sum to 127: the outermost level is kept, and no level moves by more than
    count * s / 2.

    Args:
        coordinates: float32, (groups, count), not negative.

    Returns:
        s, float32, (groups,), positive: the largest of the others for a group that is pruned. The
        m_i, whole numbers in float32, (groups, count).
    """
    total = tf.reduce_sum(coordinates, axis=1)
    live = total != 0.0  # also of a group that is not finite
    scale = total / LARGEST_CODE
    largest = tf.reduce_max(scale)
    scale = tf.where(live, scale, tf.where(largest > 0.0, largest, 1.0))
    ratio = coordinates / scale[:, None]
    whole = tf.floor(ratio)
    missing = LARGEST_CODE - tf.reduce_sum(whole, axis=1, keepdims=True)
    order = tf.argsort(whole - ratio, axis=1, stable=True)
    rank = tf.cast(tf.argsort(order, axis=1, stable=True), tf.float32)
    multiples = whole + tf.cast(rank < missing, tf.float32)
    return scale, tf.where(live[:, None], multiples, 0.0)


def nearest(rows: tf.Tensor, levels: Levels) -> tf.Tensor:
    """For each weight the index of the nearest level, int32; the upper one of two equally near."""
    middles = (levels.values[:, 1:] + levels.values[:, :-1]) / 2.0
    return tf.searchsorted(middles, rows, side="right")


def signs_of(rows: tf.Tensor, coordinates: tf.Tensor) -> tf.Tensor:
    """For each weight the row of `sign_table` of the nearest level, int32."""
    levels = levels_of(coordinates)
    return tf.gather(levels.signs, nearest(rows, levels), batch_dims=1)


def sums(coordinates: tf.Tensor, signs: tf.Tensor) -> tf.Tensor:
    """The weights sum_i a_i b_i, float32; coordinates of any sign."""
    table = sign_table(coordinates.shape[1])
    return tf.gather(tf.matmul(coordinates, table, transpose_b=True), signs, batch_dims=1)


def by_signs(numbers: tf.Tensor, signs: tf.Tensor, count: int) -> tf.Tensor:
    """Numbers, (groups, weights), summed over the weights of the same signs, (groups, 2^count)."""
    groups = numbers.shape[0]
    places = signs + 2**count * tf.range(groups)[:, None]
    added = tf.math.unsorted_segment_sum(
        tf.reshape(numbers, [-1]), tf.reshape(places, [-1]), groups * 2**count
    )
    return tf.reshape(added, (groups, 2**count))


def alq_quantize(rows: tf.Tensor, coordinates: tf.Tensor) -> tf.Tensor:
    """The nearest levels of the snapped coordinates.

    With the signs b of the level that a weight takes, v_j = s sum_i m_i b_ij, and a_i about s m_i:

        dv_j/dw_j = 1, 0 in a group that is pruned
        dv_j/da_i = b_ij, 0 for a coordinate that is pruned

    Args:
        rows: float32, (groups, weights).
        coordinates: float32, (groups, count), not negative.
    """
    count = coordinates.shape[1]

    @tf.custom_gradient
    def call(values: tf.Tensor, own: tf.Tensor) -> Any:
        scale, multiples = snapped(own)
        levels = levels_of(multiples)
        places = nearest(values / scale[:, None], levels)

        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            signs = tf.gather(levels.signs, places, batch_dims=1)
            to_own = tf.matmul(by_signs(upstream, signs, count), sign_table(count))
            live = own != 0.0
            to_values = tf.where(tf.reduce_any(live, axis=1, keepdims=True), upstream, 0.0)
            return to_values, tf.where(live, to_own, 0.0)

        return tf.gather(levels.values, places, batch_dims=1) * scale[:, None], grad

    return call(rows, coordinates)


def solved(
    targets: tf.Tensor, curvature: tf.Tensor, coordinates: tf.Tensor, signs: tf.Tensor
) -> tf.Tensor:
    """The coordinates with the least sum_j H_j (t_j - w_j)^2 for the bases as they are.

    With t = w - g / H that is the paper's a = -(B H B^T)^-1 B (g - H w). A ten-thousandth of the
    mean diagonal holds on to the coordinates there were, which never raises the sum. Pruned
    coordinates stay pruned. A solution may be negative.

    Args:
        targets: t, float32, (groups, weights).
        curvature: H, likewise, not negative.
        coordinates: float32, (groups, count).
        signs: of the weights, int32, (groups, weights).
    """
    count = coordinates.shape[1]
    live = tf.cast(coordinates != 0.0, tf.float64)
    table = tf.constant(sign_table(count), tf.float64) * live[:, None, :]
    missing = curvature * (targets - sums(coordinates, signs))
    weights, wanted = (
        tf.cast(by_signs(numbers, signs, count), tf.float64) for numbers in (curvature, missing)
    )
    total = tf.reduce_sum(weights, axis=1, keepdims=True)
    # Without any curvature there is nothing to solve.
    held = tf.where(live * total > 0.0, _RIDGE * total, 1.0)
    gram = tf.linalg.set_diag(
        matrix := tf.matmul(table, weights[:, :, None] * table, transpose_a=True),
        tf.linalg.diag_part(matrix) + held,
    )
    change = tf.linalg.solve(gram, tf.matmul(table, wanted[:, :, None], transpose_a=True))
    return coordinates + tf.cast(change[:, :, 0] * live, tf.float32)


def absorbed(coordinates: tf.Tensor, live: tf.Tensor) -> tf.Tensor:
    """Coordinates without their signs, which move into their bases: the weights do not change.

    Args:
        coordinates: float32, of any sign.
        live: bool, likewise: which are not pruned. Others are 0.
    """
    return tf.where(live, tf.maximum(tf.abs(coordinates), SMALLEST), 0.0)


def step_bases(
    targets: tf.Tensor, curvature: tf.Tensor, coordinates: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """One step on the bases, then the coordinates solved for them: neither raises the quadratic
    model sum_j H_j (t_j - w_j)^2.

    Args:
        targets: t = w - g / H, float32, (groups, weights).
        curvature: H, likewise.
        coordinates: float32, (groups, count), not negative.

    Returns:
        The coordinates and the weights, with the signs that negative solutions have reversed.
    """
    signs = signs_of(targets, coordinates)
    own = solved(targets, curvature, coordinates, signs)
    return absorbed(own, coordinates != 0.0), sums(own, signs)


def step_coordinates(
    rows: tf.Tensor, moved: tf.Tensor, coordinates: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Coordinates that an optimizer has moved, and the weights with the previous bases.

    Args:
        rows: the weights before, float32, (groups, weights).
        moved: the coordinates after the step, float32, (groups, count), of any sign.
        coordinates: those before it, not negative.

    Returns:
        As for `step_bases`.
    """
    live = coordinates != 0.0
    own = tf.where(live, moved, 0.0)
    return absorbed(own, live), sums(own, signs_of(rows, coordinates))
