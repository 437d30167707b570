"""CPQ's categorical distribution over a grid, as one differentiable function.

Lee, Yun, Hwang and Yang, "Cluster-Promoting Quantization with Bit-Drop for Minimizing Network
Quantization Loss", ICCV 2021 (arXiv 2109.02100); `cpq` states what of it could be read.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfbinreg.methods.cpq_expected import MOST_LEVELS, WIDTHS, expected_quantize
from tfbinreg.methods.lsq_functions import (
    STEP_FLOOR,
    effective_step,
    nearest_codes,
    other_axes,
    signed_like,
)

MULTICLASS_STE, EXPECTED_VALUE = "multiclass_ste", "expected_value"
_MOST_LOG_MASS = 60.0  # only of levels that are dropped is it more

Ranges = Sequence[tuple[int, int]]  # smallest and largest code of nested grids, innermost first


def cpq_quantize(
    inputs: tf.Tensor,
    step: tf.Tensor,
    log_width: tf.Tensor,
    ranges: Ranges,
    *,
    backward: str,
    grad_scale: Any = 1.0,
    axis: int | None = None,
    gates: tf.Tensor | None = None,
) -> tf.Tensor:
    """Quantize to the mode of a categorical distribution over the levels.

    With the step a, the width s and S the sigmoid, level i of the codes qmin to qmax has

        N_i  = S((a (i + 1/2) - x) / s) - S((a (i - 1/2) - x) / s)
        pi_i = Z_i N_i / sum_j Z_j N_j,    Z_i = 1 without gates
        q(x) = a m,  m the code of the largest pi_i

    which without gates is the nearest level, halves up; beyond the grid it is the outermost one.
    Z_i is the gate of the innermost range that has the code i, 1 in the first; a level with Z = 0
    is never chosen. One with 0 < Z < 1 competes with Z times its probability, so the choice is
    always a whole code.

    Gradients, with G that of q(x):

        "multiclass_ste": y = a m' pi_m;  only the chosen level's pi gets a gradient
        "expected_value": y = a sum_i i pi_i, over the levels within 12 s of the chosen one, at most
            8 to either side
        dL/dx = G dy/dx,  dL/dlog s = G dy/dlog s,  dL/dZ = G dy/dZ
        dL/da = G (m + dy/da with the a before the sum held)

    where m' is m held constant. By "multiclass_ste" a weight is drawn to its level if G m < 0 and
    driven from it if G m > 0, whatever side it is on, and gets no gradient on level 0. By either a
    weight beyond the grid gets a gradient that falls as exp(-distance / s).

    Args:
        inputs: any float tensor; computed in float32 and cast back.
        step: its absolute value is a, at least 1e-9; shape (), or (channels,) with `axis`.
        log_width: log s, in the step's shape; s is at least 1e-9.
        ranges: smallest and largest code of the nested grids, innermost first; the last is the
            whole grid.
        backward: "multiclass_ste" or "expected_value".
        grad_scale: factor of the gradients of `step` and `log_width`.
        axis: channel axis of `inputs` for a step per channel.
        gates: Z of all ranges except the first, float32, 0 to 1 and never rising, (ranges - 1,), or
            (ranges - 1, channels) with `axis`; None for ones.

    Returns:
        A tensor of the shape and dtype of `inputs`.
    """
    inputs = tf.convert_to_tensor(inputs)
    others = other_axes(axis, len(inputs.shape))
    shape = [] if others is None else [1 if d in others else -1 for d in range(len(inputs.shape))]
    if gates is None:
        ranges, gates = ranges[-1:], tf.zeros([0])
    variables = tf.convert_to_tensor(step), tf.convert_to_tensor(log_width)
    if len(ranges) == 1 and backward == EXPECTED_VALUE:
        quantized = expected_quantize(
            tf.cast(inputs, tf.float32), *variables, *ranges[0], grad_scale=grad_scale, axis=axis
        )
        return tf.cast(quantized, inputs.dtype)
    slopes_of = {MULTICLASS_STE: _of_chosen, EXPECTED_VALUE: _of_expected}[backward]

    @tf.custom_gradient
    def call(values: tf.Tensor, raw_step: tf.Tensor, width: tf.Tensor, gates: tf.Tensor) -> Any:
        own_scale = tf.reshape(effective_step(raw_step), shape)
        sharpness = own_scale / tf.maximum(tf.exp(tf.reshape(width, shape)), STEP_FLOOR)
        by_channel = len(gates.shape) > 1
        nested = [tf.reshape(gate, shape if by_channel else []) for gate in tf.unstack(gates)]
        chosen = _choose(values / own_scale, sharpness, ranges, nested)

        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            slopes = slopes_of(chosen)
            # y / a depends on x / a and s / a alone.
            by_step = -chosen.ratio * slopes.ratio - slopes.width
            to_scale = tf.reduce_sum(upstream * (chosen.codes + by_step), axis=others)
            to_width = tf.reduce_sum(upstream * own_scale * slopes.width, axis=others)
            kept = others if by_channel else None
            to_gates = [
                tf.reduce_sum(upstream * own_scale * slope, axis=kept) for slope in slopes.gates
            ]
            return (
                upstream * slopes.ratio,
                signed_like(grad_scale * to_scale, raw_step),
                grad_scale * to_width,
                tf.stack(to_gates) if to_gates else tf.zeros_like(gates),
            )

        return chosen.codes * own_scale, grad

    quantized = call(tf.cast(inputs, tf.float32), *variables, gates)
    return tf.cast(quantized, inputs.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class _Chosen:
    """The chosen levels, and what they were chosen from.

    Attributes:
        ratio: r = x / a.
        sharpness: t = a / s, broadcastable.
        codes: the chosen ones, whole numbers in float32.
        gate: Z of the chosen ones, broadcastable.
        ranges: innermost first.
        gates: Z of each range but the first, broadcastable.
    """

    ratio: tf.Tensor
    sharpness: tf.Tensor
    codes: tf.Tensor
    gate: Any
    ranges: Ranges
    gates: Sequence[tf.Tensor]

    def gate_of(self, levels: tf.Tensor) -> Any:
        """Z of other codes."""
        *inner, found = zip(self.ranges, [1.0, *self.gates], strict=True)
        gate: Any = found[1]
        for codes, own in reversed(inner):
            gate = tf.where(_within(levels, codes), own, gate)
        return gate


@dataclasses.dataclass(frozen=True, eq=False)
class _Slopes:
    """Derivatives of y / a, in the inputs' shape.

    Attributes:
        ratio: for r = x / a.
        width: for log s with r held.
        gates: for Z of each range but the first.
    """

    ratio: tf.Tensor
    width: tf.Tensor
    gates: Sequence[tf.Tensor]


class _Edge(NamedTuple):
    """The logistic distribution around x on both sides of an edge.

    Nothing cancels in these numbers, however far x is.

    Attributes:
        at: e = (edge - r) t.
        below: S(e), the share below it.
        log_below: log S(e).
        log_above: log S(-e).
    """

    at: tf.Tensor
    below: tf.Tensor
    log_below: tf.Tensor
    log_above: tf.Tensor


def _edge(steps: Any, chosen: _Chosen) -> _Edge:
    """The edge so many steps from 0."""
    at = (steps - chosen.ratio) * chosen.sharpness
    small = tf.exp(-tf.abs(at))
    correction = tf.math.log1p(small)
    return _Edge(
        at,
        tf.where(at > 0.0, 1.0, small) / (1.0 + small),
        tf.minimum(at, 0.0) - correction,
        tf.minimum(-at, 0.0) - correction,
    )


class _Interval:
    """The logistic distribution around x between two edges, of a length in steps.

    With b = (high - r) t and a = (low - r) t its mass is S(b) - S(a) = S(b) S(-a) (1 - e^(a - b)).
    Of the logarithm of the mass

        d/dr     = t (S(a) + S(b) - 1)
        d/dlog s = -(b S(-b) - a S(a) + (b - a) / (e^(b - a) - 1))

    of which `slope` is S(a) + S(b), for t and -1 are the same for all intervals and go when they
    are compared, and `spread` is the second without the minus.
    """

    def __init__(self, low: _Edge, high: _Edge, length: int, chosen: _Chosen) -> None:
        turned = length * chosen.sharpness
        self.log_mass = high.log_below + low.log_above + tf.math.log(-tf.math.expm1(-turned))
        self.slope = low.below + high.below
        self.spread = high.at * (1.0 - high.below) - low.at * low.below
        self.spread += turned / tf.math.expm1(turned)


def _interval(low: Any, high: Any, chosen: _Chosen, length: int) -> _Interval:
    """From the lower edge of one code's cell to the upper edge of another's."""
    return _Interval(_edge(low - 0.5, chosen), _edge(high + 0.5, chosen), length, chosen)


def _within(codes: tf.Tensor, own: tuple[int, int]) -> tf.Tensor:
    return tf.logical_and(codes >= own[0], codes <= own[1])


def _choose(ratio: Any, sharpness: Any, ranges: Ranges, gates: Sequence[tf.Tensor]) -> _Chosen:
    """The mode: of each range the nearest level, if its gate lets it win over those within."""

    def log_mass(codes: tf.Tensor) -> tf.Tensor:
        below, above = (codes - 0.5 - ratio) * sharpness, (codes + 0.5 - ratio) * sharpness
        return tf.math.log_sigmoid(above) + tf.math.log_sigmoid(-below)

    codes, own_gate = nearest_codes(ratio, *ranges[0]), tf.ones_like(ratio)
    for own, gate in zip(ranges[1:], gates, strict=True):
        outer = nearest_codes(ratio, *own)
        gain = log_mass(outer) - log_mass(codes)
        # Equal gates leave it to the distance, which rounding cannot turn round.
        wins = tf.logical_or(gate >= own_gate, tf.math.log(gate) - tf.math.log(own_gate) >= -gain)
        wins = tf.logical_and(tf.logical_and(wins, gate > 0.0), tf.not_equal(outer, codes))
        codes, own_gate = tf.where(wins, outer, codes), tf.where(wins, gate, own_gate)
    return _Chosen(ratio, sharpness, codes, own_gate, ranges, gates)


def _of_chosen(chosen: _Chosen) -> _Slopes:
    """Of m' pi_m: log pi_m is the mass of its cell against that of all ranges.

    sum_j Z_j N_j is the sum over the ranges of (Z - Z of the next) times the mass of the range.
    """
    codes, ranges = chosen.codes, chosen.ranges
    own = _interval(codes, codes, chosen, 1)
    gates = [1.0, *chosen.gates]
    shares = [inner - outer for inner, outer in zip(gates, [*gates[1:], 0.0], strict=True)]
    wholes = [_interval(low, high, chosen, high - low + 1) for low, high in ranges]
    masses = [tf.exp(tf.minimum(w.log_mass - own.log_mass, _MOST_LOG_MASS)) for w in wholes]
    parts = [share * mass for share, mass in zip(shares, masses, strict=True)]
    total = tf.add_n(parts)
    value = codes * chosen.gate / total
    slope, spread = own.slope, own.spread
    for part, whole in zip(parts, wholes, strict=True):
        slope -= part / total * whole.slope
        spread -= part / total * whole.spread
    to_gates = []
    for index, gate in enumerate(chosen.gates, 1):
        is_own = _within(codes, ranges[index]) & ~_within(codes, ranges[index - 1])
        own_part = tf.where(is_own, 1.0 / chosen.gate, 0.0)
        to_gate = value * (own_part - (masses[index] - masses[index - 1]) / total)
        to_gates.append(tf.where(gate > 0.0, to_gate, 0.0))
    return _Slopes(value * chosen.sharpness * slope, -value * spread, to_gates)


class _Sums(NamedTuple):
    """Sums over levels, each weighed by its probability against that of the chosen one.

    Attributes:
        mass: of the weights alone.
        slope: of `_Interval.slope`.
        spread: of `_Interval.spread`.
        gates: of the weights of the levels that each range adds.
    """

    mass: tf.Tensor
    slope: tf.Tensor
    spread: tf.Tensor
    gates: tuple[tf.Tensor, ...]


def _of_expected(chosen: _Chosen) -> _Slopes:
    """Of sum_i i pi_i with gates: covariances of the codes with the derivatives of log pi."""
    codes, whole = chosen.codes, chosen.ranges[-1]
    most = float(min(whole[1] - whole[0], MOST_LEVELS))
    reach = tf.minimum(tf.math.ceil(WIDTHS / tf.reduce_min(chosen.sharpness)), most)
    first, count = codes - reach, 2 * tf.cast(reach, tf.int32) + 1
    own = _interval(codes, codes, chosen, 1).log_mass
    zero = tf.zeros_like(codes)
    nothing = _Sums(zero, zero, zero, tuple(zero for _ in chosen.gates))

    def add(index: tf.Tensor, left: _Edge, sums: _Sums, moments: _Sums) -> Any:
        level = first + tf.cast(index, tf.float32)
        right = _edge(level + 0.5, chosen)
        cell = _Interval(left, right, 1, chosen)
        weight = tf.exp(tf.minimum(cell.log_mass - own, _MOST_LOG_MASS))
        weight *= chosen.gate_of(level) / chosen.gate
        weight = tf.where(_within(level, whole), weight, 0.0)
        by_gate = tuple(
            tf.where(_within(level, outer) & ~_within(level, inner), weight, 0.0)
            for inner, outer in itertools.pairwise(chosen.ranges)
        )
        new = _Sums(weight, weight * cell.slope, weight * cell.spread, by_gate)
        moved = tf.nest.map_structure(lambda part: part * (level - codes), new)
        add_to = functools.partial(tf.nest.map_structure, tf.add)
        return index + 1, right, add_to(sums, new), add_to(moments, moved)

    # A loop, for a graph of all levels takes long to build and its memory.
    start = tf.constant(0), _edge(first - 0.5, chosen), nothing, nothing
    *_, sums, moments = tf.while_loop(
        lambda index, *_: index < count, add, start, parallel_iterations=1
    )
    mean = moments.mass / sums.mass

    def covariance(moment: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        return (moment - mean * total) / sums.mass

    return _Slopes(
        chosen.sharpness * covariance(moments.slope, sums.slope),
        -covariance(moments.spread, sums.spread),
        [
            tf.math.divide_no_nan(covariance(moment, total), gate)
            for moment, total, gate in zip(moments.gates, sums.gates, chosen.gates, strict=True)
        ],
    )
