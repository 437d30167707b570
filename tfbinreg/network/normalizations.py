"""A normalization as a factor and an offset per channel, and several in a row as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.network.added_layers import ChannelAffine


@dataclasses.dataclass(frozen=True, eq=False)
class Affine:
    """x -> factor * x + offset with a factor and an offset per channel, (channels,)."""

    factor: Any
    offset: Any

    def behind(self, before: Affine) -> Affine:
        """Both as one: first `before`, then this."""
        return Affine(self.factor * before.factor, self.factor * before.offset + self.offset)


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """What a batch normalization normalizes by, per channel: tensors, variables or arrays."""

    mean: Any
    variance: Any


@dataclasses.dataclass(frozen=True)
class Numbers:
    """How numbers are read and computed.

    Attributes:
        read: of a variable.
        over_root: x, y -> x / sqrt(y).
    """

    read: Callable[[tf.Variable], Any]
    over_root: Callable[[Any, Any], Any]


# With gradients, for training, and float64, for a file.
TENSORS = Numbers(tf.convert_to_tensor, lambda x, y: tf.math.rsqrt(y) * x)
ARRAYS = Numbers(lambda variable: variable.numpy().astype(np.float64), lambda x, y: x / np.sqrt(y))


def affine_of(norm: Any, numbers: Numbers, statistics: Statistics | None = None) -> Affine:
    """What a normalization does to its inputs: for a BatchNormalization

        factor = gamma / sqrt(variance + epsilon),  offset = beta - factor * mean.

    Args:
        norm: a built BatchNormalization or ChannelAffine.
        numbers: TENSORS or ARRAYS.
        statistics: those to normalize by; None for the moving ones.
    """
    if isinstance(norm, ChannelAffine):
        return Affine(numbers.read(norm.scale), numbers.read(norm.offset))
    if statistics is None:
        moving = norm.moving_mean, norm.moving_variance
        statistics = Statistics(*map(numbers.read, moving))
    gamma = numbers.read(norm.gamma) if norm.scale else 1.0
    beta = numbers.read(norm.beta) if norm.center else 0.0
    factor = numbers.over_root(gamma, statistics.variance + norm.epsilon)
    return Affine(factor, beta - factor * statistics.mean)


def fold_norms(start: Affine, norms: Sequence[Any], numbers: Numbers) -> Affine:
    """`start` and the normalizations behind it, at their moving statistics, as one."""
    for norm in norms:
        start = affine_of(norm, numbers).behind(start)
    return start
