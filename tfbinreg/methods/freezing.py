"""Iterative freezing: weights that keep oscillating between two levels are held on one of them.

Nagel et al., "Overcoming Oscillations in Quantization-Aware Training", ICML 2022, section 4.2, as
in the authors' code, from which the constants and the start of the averages also come.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

from tfbinreg.methods.contract import About, KernelStep, Method, State


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreezingOptions:
    """When a weight is frozen.

    Attributes:
        momentum: share of the newest step in the moving averages of oscillations and codes. A
            single oscillation contributes this much, so it has to be well below the thresholds.
        first_threshold: frequency of oscillations, in changes per step, above which a weight is
            frozen when freezing begins.
        last_threshold: the same at the end of training; in between it falls as a cosine.
        begin: fraction of the training before which nothing is frozen.
        most_bits: kernels, and channels, with more bits are left alone: their weights change codes
            all the time.

    Raises:
        ValueError: for a number outside its range.
    """

    momentum: float = 0.001
    first_threshold: float = 0.1
    last_threshold: float = 0.01
    begin: float = 0.25
    most_bits: int = 4

    def __post_init__(self) -> None:
        if not 0.0 < self.momentum < 1.0:
            raise ValueError(f"momentum must be between 0 and 1, got {self.momentum!r}.")
        if not 0.0 < self.last_threshold <= self.first_threshold:
            raise ValueError(
                "thresholds must be positive, and the last not above the first, got "
                f"{self.first_threshold!r} and {self.last_threshold!r}."
            )
        if not 0.0 <= self.begin < 1.0:
            raise ValueError(f"begin must be at least 0 and below 1, got {self.begin!r}.")
        if not 2 <= self.most_bits <= 8:
            raise ValueError(f"most_bits must be from 2 to 8, got {self.most_bits!r}.")


def freeze(step: KernelStep, state: State, options: FreezingOptions) -> tuple[tf.Tensor, State]:
    """Hold weights that oscillate too often on the level where they have been most often.

    With q the code of a weight after the step, q' before it, d the direction of its last change, m
    the momentum and T the threshold:

        o  = 1 if q != q' and sign(q - q') = -d, else 0
        f <- m o + (1 - m) f            frequency of oscillations
        a <- m q + (1 - m) a            average code, from the first q' on
        f > T:  the code is the one nearest to a from now on

    A weight without a change so far has no direction, so its first change is no oscillation. A
    frozen weight is code * scale after each step, regardless of how the step of its grid changes.

    Args:
        step: what the optimizer did.
        state: `frequency` and `average`, float32, `direction`, int8, and `frozen`, int8, with the
            code of a frozen weight in `code`, int8; all of the kernel's shape.
        options: see `FreezingOptions`.
    """
    codes = step.codes
    moved = codes - step.codes_before
    changes = tf.not_equal(moved, 0.0)
    new_direction = tf.cast(tf.sign(moved), tf.int8)
    back = tf.logical_and(changes, tf.equal(new_direction, -state["direction"]))
    m = options.momentum
    frequency = m * tf.cast(back, tf.float32) + (1.0 - m) * state["frequency"]
    average = tf.where(tf.math.is_nan(state["average"]), step.codes_before, state["average"])
    average = m * codes + (1.0 - m) * average
    already = tf.cast(state["frozen"], tf.bool)
    freezes = tf.logical_and(frequency > _threshold(step, options), tf.logical_not(already))
    code = tf.where(freezes, tf.cast(step.grid.rounded(average), tf.int8), state["code"])
    frozen = tf.logical_or(already, freezes)
    level = tf.cast(code, tf.float32) * step.grid.broadcast_scale(len(step.kernel.shape))
    # A factor of 0 hides the kernel: any number will do.
    kernel = tf.where(frozen, tf.math.divide_no_nan(level, step.factor), step.kernel)
    return kernel, {
        "frequency": frequency,
        "average": average,
        "direction": tf.where(changes, new_direction, state["direction"]),
        "frozen": tf.cast(frozen, tf.int8),
        "code": code,
    }


def _threshold(step: KernelStep, options: FreezingOptions) -> tf.Tensor:
    """The frequency above which weights are frozen now, broadcastable; infinite where none are."""
    part = tf.maximum(step.progress - options.begin, 0.0) / (1.0 - options.begin)
    fall = 0.5 * (1.0 + tf.cos(math.pi * part))
    now = options.last_threshold + (options.first_threshold - options.last_threshold) * fall
    acts = tf.logical_and(step.progress >= options.begin, step.bits <= options.most_bits)
    return tf.where(acts, now, math.inf)


def _state(shape: tuple[int, ...], options: FreezingOptions) -> State:
    return {
        "frequency": np.zeros(shape, np.float32),
        "average": np.full(shape, np.nan, np.float32),
        "direction": np.zeros(shape, np.int8),
        "frozen": np.zeros(shape, np.int8),
        "code": np.zeros(shape, np.int8),
    }


FREEZING = Method(
    name="freezing",
    options=FreezingOptions,
    update=freeze,
    state=_state,
    about=About(
        what="weights that oscillate between two levels are held on one (iterative freezing)",
        trains="latent weights",
        bits="2-4",
        granularity="weight",
        paper="Nagel et al. 2022",
    ),
)
