"""How far a model's latent weights are from their levels."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.core.grid import MAX_BITS
from tfbinreg.layers.sites import Site, kernel_sites, require_quantized
from tfbinreg.methods.contract import GridTensors

NEAR = 0.1
EDGE = 0.05
FEW_BITS = 4
FAR = 10.0  # in steps: only weights beyond the outermost level are


@dataclasses.dataclass(frozen=True)
class BinStatistics:
    """Distances of latent weights from their quantization levels, in steps.

    Weights of pruned channels do not count.

    Attributes:
        error: mean squared distance, in steps squared; clipped weights are included.
        near: share of weights within 0.1 step of their level.
        beyond: the kernels whose root mean square distance from the levels is more than ten steps:
            their weights lie beyond the outermost levels.
    """

    error: float
    near: float
    beyond: tuple[str, ...] = ()


def scaled_weights(site: Site) -> np.ndarray:
    """A kernel divided by its step, flat, so that levels are codes. float32, (weights,); without
    the weights of pruned channels.
    """
    latent = site.latent
    if latent is None:
        raise ValueError(f"{site.name!r} is an activation: it has no weights.")
    grid = site.quantizer.grid_now(site.variables)
    latent = tf.convert_to_tensor(latent)
    rank = len(latent.shape)
    left = tf.broadcast_to(grid.broadcast_bits(rank) > 0.0, latent.shape)
    return tf.boolean_mask(latent / grid.broadcast_scale(rank), left).numpy()


def bin_statistics(model: Any) -> BinStatistics:
    """`BinStatistics` over all quantized kernels of `model`, every weight counting once.

    Raises:
        ValueError: if the model is not quantized.
    """
    require_quantized(model)
    squares = near = count = 0.0
    beyond = []
    for site in kernel_sites(model):
        latent, grid = tf.convert_to_tensor(site.latent), site.quantizer.grid_now(site.variables)
        scaled = latent / grid.broadcast_scale(len(latent.shape))
        distance = tf.abs(scaled - site.quantizer.codes_now(latent, site.variables))
        live = float(grid.share()) * site.size
        error = float(grid.mean(tf.square(distance)))
        if error > FAR**2:
            beyond.append(site.name)
        squares += live * error
        near += live * float(grid.mean(tf.cast(distance <= NEAR, tf.float32)))
        count += live
    return BinStatistics(squares / count, near / count, tuple(beyond))


def shares_near_edges(model: Any, most_bits: int = MAX_BITS) -> dict[str, float]:
    """For each kernel, the share of weights within 5 % of a step of the edge between two bins.

    Args:
        model: quantized.
        most_bits: weights of more bits do not count if there are others; weights of pruned channels
            never do.
    """
    shares = {}
    for site in kernel_sites(model):
        latent, grid = tf.convert_to_tensor(site.latent), site.quantizer.grid_now(site.variables)
        way = EDGE * grid.broadcast_scale(len(latent.shape))
        low, high = (site.quantizer.codes_now(latent + d, site.variables) for d in (-way, way))
        shares[site.name] = float(share_of_few_bits(grid, tf.not_equal(low, high), most_bits))
    return shares


def share_of_few_bits(grid: GridTensors, flags: tf.Tensor, most_bits: int = FEW_BITS) -> tf.Tensor:
    """The share of flagged weights among those of up to 4 bits, float32, (); among all that are not
    pruned if none has so few.

    Args:
        grid: grid of the kernel.
        flags: bool, one for each weight.
        most_bits: limit in place of 4.
    """
    values = tf.cast(flags, tf.float32)
    return tf.where(grid.share(most_bits) > 0.0, grid.mean(values, most_bits), grid.mean(values))
