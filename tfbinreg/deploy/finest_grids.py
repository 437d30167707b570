"""How close together an operation's outputs may lie, for LiteRT to compute them.

A step can come to be far smaller than what it is computed from allows: where a normalization has
nothing but a constant to stretch, or a few small numbers go through a hard swish.
"""

from __future__ import annotations

import math

import numpy as np

from tfbinreg.core.problems import Problem
from tfbinreg.deploy.frozen import FrozenGraph, FrozenOp
from tfbinreg.network.hard_swish import FINEST_HARD_SWISH

# XNNPACK's requantization takes factors below this.
_LARGEST_FACTOR = 256.0


def too_fine(graph: FrozenGraph) -> dict[int, float]:
    """Index of an operation -> the power of two by which the step of its outputs has to grow."""
    found = {}
    for index, op in enumerate(graph.ops):
        excess = _excess(graph, op)
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
        for index, factor in too_fine(graph).items()
    ]


def _excess(graph: FrozenGraph, op: FrozenOp) -> float:
    """An operation's largest factor from codes to codes, over the first that cannot be computed."""
    if op.grid is None or (op.kernel is None and op.kind != "HardSwish"):
        return 0.0
    ratio = float(graph.source_grid(op).scale / op.grid.scale)
    if op.kernel is None:
        return ratio / FINEST_HARD_SWISH
    return ratio * float(np.max(op.kernel.scale)) / op.kernel.prescale / _LARGEST_FACTOR
