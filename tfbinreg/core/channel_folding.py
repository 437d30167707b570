"""Folding factors per channel into integer codes: codes stay, scales change. NumPy only."""

from __future__ import annotations

import numpy as np

from tfbinreg.core.grid import Grid

# A channel that can move its output by less than this part of a level counts as constant.
_NEGLIGIBLE = 2.0**-12
# By less than this part, if its bias would not fit 32 bits otherwise.
_SMALL = 2.0**-5
_LARGEST_BIAS = 2.0**31
# The part of a level that the bias counts in if every channel is pruned.
_FINE = 2.0**-16
# What a coarser scale leaves of the 32 bits, so that rounding cannot overflow them.
_ROOMY_BIAS = 2.0**30


def channels_last(kind: str, codes: np.ndarray) -> np.ndarray:
    """Codes as (weights per output channel, output channels)."""
    if kind == "Conv2DTranspose":  # (h, w, out, in)
        codes = np.swapaxes(codes, 2, 3)
    channels = codes.shape[-1]
    if codes.ndim == 4 and kind not in ("Conv2D", "Conv2DTranspose"):
        channels *= codes.shape[2]  # depthwise: (h, w, in, multiplier)
    return codes.reshape(-1, channels)


def original_layout(kind: str, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `channels_last`."""
    if kind != "Conv2DTranspose":
        return rows.reshape(shape)
    height, width, filters, inputs = shape
    return np.swapaxes(rows.reshape(height, width, inputs, filters), 2, 3)


def fold(
    rows: np.ndarray,
    grid: Grid,
    factor: np.ndarray,
    offset: np.ndarray,
    source: Grid,
    target: Grid,
) -> tuple[np.ndarray, np.ndarray]:
    """Multiply each channel's scale by |factor| and its codes by the sign of factor.

    If a channel's weights cannot move the output by a noticeable part of a level, and its factor or
    offset would otherwise need an enormous bias, it gets codes of zero and a coarser scale. A
    pruned channel gets that scale too, because the scale that a method has left there can be
    anything.

    Args:
        rows: codes, (weights per channel, output channels).
        grid: the kernel's grid.
        factor: k, float64, (output channels,).
        offset: c, float64, (output channels,), times the pre-scale: the bias in real numbers.
        source: grid of the inputs.
        target: grid of the outputs.

    Returns:
        The folded codes, and the float32 scale: () if all channels share it, else per channel.
    """
    repeats = rows.shape[1] // grid.scale.size
    step = np.repeat(grid.scale.astype(np.float64), repeats)
    folded = step * np.abs(factor)
    # How many levels of the output each channel's weights can move at the very most.
    reach = np.abs(rows).sum(axis=0) * folded * source.qmax_abs
    reach *= float(source.scale) / float(target.scale)
    bias = np.abs(offset) / float(source.scale)  # times 1 / scale: in int32 units
    overflows = bias >= _LARGEST_BIAS * folded
    constant = (reach < _NEGLIGIBLE) & (factor != 1.0) | (reach < _SMALL) & overflows
    if grid.widths is not None:
        pruned = np.repeat(np.equal(grid.widths, 0), repeats)
        step[pruned] = _FINE * float(target.scale) / float(source.scale)
        constant |= pruned
    if np.any(constant):
        # A scale near zero would need an enormous bias; without weights any scale will do.
        coarse = step[constant] if np.all(constant) else folded[~constant].max()
        folded[constant] = np.maximum(coarse, bias[constant] / _ROOMY_BIAS)
    rows = np.where(constant, 0, rows * np.where(factor < 0, -1, 1))
    scale = folded.astype(np.float32)
    return rows, np.asarray(scale[0]) if np.all(scale == scale[0]) else scale
