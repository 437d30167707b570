"""Where ALQ's coordinates start from, and which of them are pruned. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Of the squared weights: what is left out when no further coordinate is worth it.
_ENOUGH = 1e-6


def sketch(rows: np.ndarray, counts: Any) -> np.ndarray:
    """Coordinates by structured sketching, float64, (groups, the largest of `counts`).

    Repeatedly, the signs of the residual become one more basis, and all coordinates are refitted by
    least squares, so the squared error falls with each basis. A group that is matched exactly needs
    no more, and keeps zeros for the rest; so does a group of zeros.

    Args:
        rows: weights, (groups, weights).
        counts: most coordinates of a group, a number or one for each.
    """
    rows = np.asarray(rows, np.float64)
    counts = np.broadcast_to(counts, len(rows))
    count = int(counts.max())
    bases = np.zeros((len(rows), count, rows.shape[1]))
    found = np.zeros((len(rows), count))
    for number in range(count):
        missing = rows - np.einsum("gi,gin->gn", found, bases)
        open_ = np.sum(missing**2, axis=1) > _ENOUGH * np.sum(rows**2, axis=1)
        open_ &= number < counts
        bases[open_, number] = np.where(missing[open_] >= 0.0, 1.0, -1.0)
        own = bases[open_, : number + 1]
        gram = np.linalg.pinv(own @ np.swapaxes(own, 1, 2), hermitian=True)
        found[open_, : number + 1] = np.einsum("gij,gjn,gn->gi", gram, own, rows[open_])
    return np.abs(found)  # the bases take the signs


def importance(coordinates: np.ndarray, pull: np.ndarray, stiffness: np.ndarray) -> np.ndarray:
    """The expected increase of the loss without each coordinate, -g a + H a^2 / 2.

    Args:
        coordinates: a, (groups, count).
        pull: g, the gradient for them times the learning rate, likewise.
        stiffness: H, the curvature for them, (groups,).
    """
    return -pull * coordinates + 0.5 * stiffness[:, None] * coordinates**2


def least_important(
    importances: Sequence[np.ndarray], live: Sequence[np.ndarray], count: int, shortlist: float
) -> list[np.ndarray]:
    """Which `count` coordinates of several layers matter least, as masks.

    Each layer proposes the least important `shortlist` of its remaining coordinates, rounded down.
    Of all proposed coordinates the least important are taken, or fewer if not enough are proposed.

    Args:
        importances: of each layer's coordinates, (groups, coordinates).
        live: likewise: which are left.
        count: how many are taken.
        shortlist: from 0 to 1.
    """
    named = []
    for layer, (own, left) in enumerate(zip(importances, live, strict=True)):
        places = np.flatnonzero(left)
        worth = own.reshape(-1)[places]
        least = np.argsort(worth, kind="stable")[: int(shortlist * len(places))]
        named += [(worth[i], layer, places[i]) for i in least]
    masks = [np.zeros(np.shape(own), bool) for own in importances]
    for _, layer, place in sorted(named)[: max(0, count)]:
        masks[layer].reshape(-1)[place] = True
    return masks
