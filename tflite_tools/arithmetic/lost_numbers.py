"""Numbers of very different size on one grid, of which the small ones are lost. NumPy only."""

from __future__ import annotations

import numpy as np

# Lost is what spans fewer levels than this, and a small part of the largest number on its grid.
FEW_LEVELS = 4.0
SMALL_PART = 1.0 / 16.0


def lost(spans: np.ndarray, step: float, largest: float) -> np.ndarray:
    """Which of the parts that share a grid are lost on it.

    A part that does not vary at all has nothing to lose.

    Args:
        spans: largest minus smallest value of each part.
        step: of the grid.
        largest: largest absolute value on the grid.

    Returns:
        bool, one per part.
    """
    spans = np.asarray(spans, np.float64)
    return (spans > 0) & (spans < FEW_LEVELS * step) & (spans <= SMALL_PART * largest)
