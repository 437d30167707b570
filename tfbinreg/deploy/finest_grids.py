"""How fine the grid of an operation's outputs can be for LiteRT to compute them.

A step can become far smaller than its inputs allow: if a normalization only scales a constant, if a
few small numbers go through a hard swish, or if equal tensors are subtracted.
"""

from __future__ import annotations

import math

import numpy as np

from tfbinreg.core.problems import Problem
from tfbinreg.core.target import LITERT
from tfbinreg.deploy.frozen import FrozenGraph, FrozenOp
from tfbinreg.network.hard_swish import FINEST_HARD_SWISH

# The ratios of scales, input to output, for which XNNPACK takes an addition (xnnpack_delegate.cc).
ADD_RATIOS = (2.0**-10, 2.0**8)
# From here on LiteRT's own addition, which takes the others, follows no known rule.
LARGEST_OWN_ADD = 2.0**7
_LARGEST_FACTOR = 2.0**8  # XNNPACK's requantization takes smaller ones


def too_fine(graph: FrozenGraph, target: str) -> dict[int, float]:
    """Index of an operation -> the power of two by which the step of its outputs has to grow."""
    found = {}
    for index, op in enumerate(graph.ops):
        excess = _excess(graph, op, target)
        if excess >= 1.0:
            # A power of two, which also methods with steps of powers of two can take.
            found[index] = 2.0 ** (math.floor(math.log2(excess)) + 1)
    return found


def finest_grid_problems(graph: FrozenGraph) -> list[Problem]:
    """A `Problem` for each operation whose outputs LiteRT does not compute."""
    return [
        Problem(
            graph.ops[index].name,
            f"the step of its outputs is too small for what they are computed from, by {factor:g}",
            "call finalize(model), which makes it larger",
        )
        for index, factor in too_fine(graph, graph.target).items()
    ]


def _excess(graph: FrozenGraph, op: FrozenOp, target: str) -> float:
    """An operation's largest factor from codes to codes, over the first that cannot be computed."""
    grids = [graph.ops[index].grid for index in op.inputs]
    if op.grid is None or None in grids:
        return 0.0
    ratios = [float(grid.scale / op.grid.scale) for grid in grids if grid is not None]
    if op.kernel is not None:
        return max(ratios) * float(np.max(op.kernel.scale)) / op.kernel.prescale / _LARGEST_FACTOR
    if op.kind == "HardSwish":
        return max(ratios) / FINEST_HARD_SWISH
    if op.kind in ("Add", "Subtract") and target == LITERT:
        low, high = ADD_RATIOS
        return max(ratios) / (high if min(ratios) >= low else LARGEST_OWN_ADD)
    return 0.0
