"""The deployed kernel of an operation: codes, scales and bias, with later layers folded in."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfbinreg.core.channel_folding import channels_last, fold, original_layout
from tfbinreg.core.grid import Grid, prescale
from tfbinreg.core.problems import Problem
from tfbinreg.deploy.frozen import FrozenKernel
from tfbinreg.deploy.operations import Operation
from tfbinreg.deploy.shortening import shortened
from tfbinreg.layers.folded_kernel import FoldedKernel
from tfbinreg.layers.kernel import QuantizedKernel
from tfbinreg.layers.sites import sites_of

# A normalization without a kernel before it multiplies by 64 codes of 1/64: a power of two keeps
# its factors exact, and large codes keep the rounding of the runtimes' multipliers small.
_UNIT_CODE = 64
_UNIT_GRID = Grid(8, True, np.array(1.0 / _UNIT_CODE), -127, 127)


def frozen_kernel(
    operation: Operation, source: Grid, target: Grid, stored_bits: int, *, short: bool = False
) -> FrozenKernel | Problem:
    """The kernel of an operation that has one, or why it has no exact integer form.

    Args:
        operation: with a layer of its own.
        source: the grid of its inputs.
        target: the grid of its outputs.
        stored_bits: see `Recipe`.
        short: whether scale and bias are those of `shortening`, where they can be.
    """
    op, layer = operation.op, operation.layer
    trained = isinstance(layer, QuantizedKernel)
    if trained:
        (site,) = sites_of(layer)
        grid, codes = site.grid(), site.codes()
    else:
        grid = _UNIT_GRID
        codes = np.full((1, 1, int(op.shape[-1] or 0), 1), _UNIT_CODE, np.int32)
    rows = channels_last(op.kind, codes)
    channels = rows.shape[1]
    folded = operation.offsets.folded(channels)
    factor, offset = folded.factor, folded.offset
    if not np.all(np.isfinite(factor)) or not np.all(np.isfinite(offset)):
        what = "its bias or batch normalization has NaN or infinite values"
        return Problem(op.name, what, "training diverged: train again at a lower rate")
    if isinstance(layer, FoldedKernel):
        factor = np.ones(channels)  # the codes are those of the folded kernel
    own_bias = isinstance(layer, FoldedKernel) and layer.bias_bits is not None
    # A grid whose bits are learned may have fewer codes than the biases were trained beside.
    ends = site.quantizer.grid_now(site.variables) if own_bias else grid
    multiple = prescale(ends.qmin, ends.qmax, stored_bits)
    # Biases of few bits were trained in the units of the channels' own scales.
    plain = Grid(8, True, grid.scale, grid.qmin, grid.qmax, grid.axis) if own_bias else grid
    rows, scale = fold(rows, plain, factor, offset * multiple, source, target)
    bias = np.floor(offset * multiple / (float(source.scale) * scale) + 0.5)
    if own_bias:
        bias = layer.integer_bias()
    elif short:
        in_units = offset * multiple / float(source.scale)
        constants = shortened(op, codes.shape, rows, scale, in_units, multiple, source, target)
        if constants is not None:
            scale, bias = constants.scale, constants.bias
    if np.any(np.abs(bias) >= 2**31):
        worst = int(np.argmax(np.abs(bias)))
        what = f"the bias of output channel {worst} does not fit 32 bits"
        return Problem(
            op.name,
            f"{what} (its BatchNormalization multiplies by {factor[worst]:.3g})",
            "set that channel's gamma to 0, or remove the channel",
        )
    return FrozenKernel(
        original_layout(op.kind, rows, codes.shape).astype(np.int8),
        scale,
        bias.astype(np.int32),
        grid.bits,
        multiple,
        trained,
        grid.levels,
        _by_channel(grid.channel_bits, channels),
        _by_channel(grid.channel_levels, channels),
    )


def _by_channel(parts: tuple[Any, ...] | None, channels: int) -> tuple[Any, ...] | None:
    """What each output channel has; a depthwise kernel's grid counts input channels."""
    if parts is None:
        return None
    return tuple(part for part in parts for _ in range(channels // len(parts)))
