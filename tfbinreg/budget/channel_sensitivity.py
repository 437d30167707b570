"""How far a model's outputs move when one kernel channel at a time has fewer bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.core.grid import Grid, channel_range
from tfbinreg.core.recipe import Recipe, RecipeData
from tfbinreg.core.weight_starts import start_step_of_bits
from tfbinreg.layers.sites import Site, kernel_sites
from tfbinreg.training.calibrate import sample_batches
from tfbinreg.training.quantize import quantize_apply
from tflite_tools.system.progress import Advance, quietly

CHANNEL_WIDTHS = (0, 1, 2, 3, 4, 8)
_SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ChannelSensitivity:
    """The effect of fewer bits for one channel.

    Attributes:
        layer: name of the layer.
        parameters: size of its kernel.
        channels: how many channels have their own bits.
        outputs: output channels; for a depthwise layer, channels times multiplier.
        moved: by width, how far the outputs move when this channel alone has that width, float64,
            (channels,): mean squared difference over the variance of the outputs, as estimated from
            the gradient.
        fixed: the bits that a rule of the recipe sets for the layer; None if they can be chosen.
    """

    layer: str
    parameters: int
    channels: int
    outputs: int
    moved: Mapping[int, np.ndarray]
    fixed: Any = None


def channel_sensitivities(
    model: Any,
    calibration_data: Any,
    *,
    recipe: RecipeData = None,
    widths: Sequence[int] = CHANNEL_WIDTHS,
    projections: int = 8,
    advance: Advance = quietly,
) -> tuple[ChannelSensitivity, ...]:
    """Estimate every channel of every kernel at each of some widths, from gradients.

    Let J be the derivative of the outputs with respect to a channel's weights, at 8 bits
    everywhere, and d the change of the weights when they are quantized with the step of least
    squared error. Then the outputs change by J d, and for random signs r

        |J d|^2 = E_r (d . J^T r)^2

    which one backward pass gives for all channels and widths at once. It is accurate for small d.
    For a pruned channel it only ranks importance.

    Args:
        model: as for `quantize_apply`; it is not changed.
        calibration_data: as for `quantize_apply`.
        recipe: as for `sensitivities`; its method must support channels of these bits.
        widths: bits to estimate, from 0 to 8.
        projections: random signs for each batch. The relative error of a channel is about
            sqrt(2 / (batches * projections)).
        advance: is called for each batch.

    Raises:
        ValueError: as for `quantize_apply`.
    """
    recipe = Recipe.from_data(recipe)
    eight = dataclasses.replace(recipe, weight_bits=8, first_last_bits=None, per_channel=True)
    batches = sample_batches(calibration_data)
    quantized = quantize_apply(model, eight, calibration_data=batches)
    sites = kernel_sites(quantized)
    changes = [_changes(site, widths) for site in sites]
    squares, count, variance = _projected(quantized, batches, sites, changes, projections, advance)
    found = []
    for site, own in zip(sites, squares, strict=True):
        rows = _rows(site, np.asarray(site.latent))
        bits = recipe.settings((site.name, type(site.layer.layer).__name__)).weight_bits
        found.append(
            ChannelSensitivity(
                layer=site.name,
                parameters=site.size,
                channels=len(rows),
                outputs=site.layer.channels,
                moved={
                    width: own[index] / (projections * count * variance)
                    for index, width in enumerate(widths)
                },
                fixed=bits,
            )
        )
    return tuple(found)


def _rows(site: Site, kernel: np.ndarray) -> np.ndarray:
    """The numbers of each channel, (channels, weights)."""
    axis = site.quantizer.axis
    return np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)


def _changes(site: Site, widths: Sequence[int]) -> np.ndarray:
    """How each width changes the kernel, (widths, channels, weights): the latent kernel is
    quantized, and a factor between both is divided out.
    """
    latent = np.asarray(site.latent)
    axis = site.quantizer.axis % latent.ndim
    factor = np.broadcast_to(np.asarray(site.layer.latent_factor()), latent.shape)
    found = []
    for width in widths:
        change = _quantized(latent, width, axis) - latent
        found.append(_rows(site, np.divide(change, factor, out=change * 0.0, where=factor != 0.0)))
    return np.stack(found)


def _quantized(latent: np.ndarray, width: int, axis: int) -> np.ndarray:
    if not np.any(latent):
        return np.zeros_like(latent)
    bits = (width,) * latent.shape[axis]
    step = start_step_of_bits(latent, bits, axis, how="mse")
    low, high = channel_range(width) if width else (0, 1)
    grid = Grid(max(1, width), True, step, low, high, axis, channel_bits=bits)
    return grid.values(grid.codes(latent))


def _projected(
    model: Any,
    batches: Sequence[Any],
    sites: Sequence[Site],
    changes: Sequence[np.ndarray],
    projections: int,
    advance: Advance,
) -> tuple[list[np.ndarray], int, float]:
    """Sums of squares of d . J^T r, (widths, channels) for each kernel; also the number of outputs
    and their variance.
    """
    signs = np.random.default_rng(_SEED)
    squares = [np.zeros(change.shape[:2]) for change in changes]
    kernels = [site.kernel for site in sites]
    seen = []
    for done, batch in enumerate(batches):
        advance(done / len(batches), "estimating what fewer bits of each channel do")
        inputs = tf.nest.map_structure(tf.convert_to_tensor, batch)
        with tf.GradientTape(persistent=True) as tape:
            flat = tf.nest.flatten(model(inputs, training=False))
            outputs = tf.concat([tf.reshape(part, (tf.shape(part)[0], -1)) for part in flat], 1)
        seen.append(outputs.numpy().astype(np.float64))
        for _ in range(projections):
            drawn = signs.choice(np.array([-1.0, 1.0], np.float32), outputs.shape)
            gradients = tape.gradient(outputs, kernels, output_gradients=tf.constant(drawn))
            for index, (site, gradient) in enumerate(zip(sites, gradients, strict=True)):
                rows = _rows(site, np.asarray(gradient, np.float64))
                squares[index] += np.square(np.einsum("cw,bcw->bc", rows, changes[index]))
    everything = np.concatenate(seen)
    spread = float(np.var(everything - everything.mean(axis=0))) or 1.0
    return squares, everything.size, spread
