"""DropBits: random gates on the bit levels of a grid, which can learn how many bits it needs.

Lee et al., ICCV 2021 (arXiv 2109.02100); the gates are the hard-concrete ones of Louizos, Welling
and Kingma, "Learning Sparse Neural Networks through L0 Regularization", ICLR 2018 (arXiv
1712.01312), equations 10 to 13, with their constants.

The grids of 2 bits to all bits are nested, at the same step, and each except the first has a gate.
The levels of a grid are available as far as its own gate and those of all inner grids are open, so
no grid has holes: gates are multiplied from the innermost on.
"""

from __future__ import annotations

import math

import tensorflow as tf

from tfbinreg.core.grid import MIN_BITS, weight_code_range

_LOWEST, _HIGHEST, _TEMPERATURE = -0.1, 1.1, 2.0 / 3.0
_CLOSED = _TEMPERATURE * math.log(-_LOWEST / _HIGHEST)
_SMALLEST_UNIFORM = 1e-6


def nested_ranges(bits: int) -> list[tuple[int, int]]:
    """Smallest and largest code of the grids of 2 bits to `bits`."""
    return [weight_code_range(own) for own in range(MIN_BITS, bits + 1)]


def start_of(open_probability: float) -> float:
    """The log alpha of a gate that is open with this probability, above 0 and below 1."""
    return math.log(open_probability / (1.0 - open_probability)) + _CLOSED


def open_probability(log_alpha: tf.Tensor) -> tf.Tensor:
    """P(z > 0) = S(log alpha - T log(-l / h)) with l = -0.1, h = 1.1 and T = 2/3 (equation 12)."""
    return tf.sigmoid(log_alpha - _CLOSED)


def random_gates(log_alpha: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Gates of a training pass, multiplied from the innermost on; 0 to 1, and never rising.

        z = clip(S((log u - log(1 - u) + log alpha) / T) (h - l) + l, 0, 1),  u uniform

    Args:
        log_alpha: float32, (gates,) or (gates, channels), the innermost first.
        seed: two int32 numbers, which decide all of u.
    """
    u = tf.random.stateless_uniform(
        tf.shape(log_alpha), seed, _SMALLEST_UNIFORM, 1.0 - _SMALLEST_UNIFORM
    )
    noise = tf.math.log(u) - tf.math.log1p(-u)
    return tf.math.cumprod(_stretched((noise + log_alpha) / _TEMPERATURE))


def settled_gates(log_alpha: tf.Tensor) -> tf.Tensor:
    """Gates at inference: 1 where clip(S(log alpha) (h - l) + l, 0, 1) is not 0 (equation 13) of a
    gate and all within it, else 0."""
    return tf.math.cumprod(tf.cast(_stretched(log_alpha) > 0.0, tf.float32))


def settled_bits(log_alpha: tf.Tensor) -> tf.Tensor:
    """The bits that `settled_gates` leave, int32, () or (channels,)."""
    return MIN_BITS + tf.cast(tf.reduce_sum(settled_gates(log_alpha), axis=0), tf.int32)


def _stretched(logits: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(tf.sigmoid(logits) * (_HIGHEST - _LOWEST) + _LOWEST, 0.0, 1.0)
