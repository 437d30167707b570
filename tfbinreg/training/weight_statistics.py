"""How far a model's latent weights are from their levels."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.layers.sites import Site, kernel_sites, require_quantized

NEAR = 0.1
EDGE = 0.05
FAR = 10.0  # in steps: only weights beyond the outermost level are


@dataclasses.dataclass(frozen=True)
class BinStatistics:
    """Distances of latent weights from their quantization levels, in steps.

    Attributes:
        error: mean squared distance, in steps squared; clipped weights count with theirs.
        near: share of weights within 0.1 step of their level.
        beyond: the kernels whose weights are more than ten steps from their levels, as the root of
            the mean square: they lie beyond the outermost ones.
    """

    error: float
    near: float
    beyond: tuple[str, ...] = ()


def scaled_weights(site: Site) -> np.ndarray:
    """A kernel divided by its step, flat: levels are its codes. float32, (weights,)."""
    latent = site.latent
    if latent is None:
        raise ValueError(f"{site.name!r} is an activation: it has no weights.")
    grid = site.quantizer.grid_now(site.variables)
    return (latent.numpy() / grid.broadcast_scale(latent.shape.rank).numpy()).ravel()


def bin_statistics(model: Any) -> BinStatistics:
    """`BinStatistics` over all quantized kernels of `model`, every weight counting once.

    Raises:
        ValueError: if the model is not quantized.
    """
    require_quantized(model)
    squares = near = count = 0.0
    beyond = []
    for site in kernel_sites(model):
        scaled = scaled_weights(site)
        codes = site.quantizer.grid_now(site.variables).codes(tf.convert_to_tensor(site.latent))
        distance = np.abs(scaled - codes.numpy().ravel())
        own = float(np.sum(np.square(distance, dtype=np.float64)))
        if own > FAR**2 * distance.size:
            beyond.append(site.name)
        squares += own
        near += float(np.count_nonzero(distance <= NEAR))
        count += distance.size
    return BinStatistics(squares / count, near / count, tuple(beyond))


def shares_near_edges(model: Any) -> dict[str, float]:
    """For each kernel the share of weights within 5 % of a step of the edge between two bins."""
    shares = {}
    for site in kernel_sites(model):
        latent, grid = tf.convert_to_tensor(site.latent), site.quantizer.grid_now(site.variables)
        scaled = latent / grid.broadcast_scale(len(latent.shape))
        near = tf.not_equal(grid.rounded(scaled - EDGE), grid.rounded(scaled + EDGE))
        shares[site.name] = float(np.mean(near))
    return shares
