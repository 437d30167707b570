"""The choice of widths with the lowest cost within a budget of bytes. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_FRONTIER = 4096  # partial choices that are kept; more would decide about single bytes
_HALVINGS = 100
_HIGHEST_PRICE = 1e200


def cheapest(options: Sequence[Sequence[tuple[int, int, float]]], limit: int) -> tuple[int, ...]:
    """One (width, bytes, cost) per item with the lowest total cost within `limit` bytes.

    Keeps a frontier of partial choices, none of which is better than another in both bytes and
    cost. The frontier is thinned out where it grows beyond what matters; the smallest choice always
    stays. Suitable for a few dozen items.

    Returns:
        the width of each item.
    """
    frontier: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]
    for item in options:
        grown = sorted(
            (size + own, cost + more, (*widths, width))
            for size, cost, widths in frontier
            for width, own, more in item
        )
        frontier = []
        for entry in grown:
            if not frontier or entry[1] < frontier[-1][1]:
                frontier.append(entry)
        if len(frontier) > _FRONTIER:
            kept = np.linspace(0, len(frontier) - 1, _FRONTIER).astype(int)
            frontier = [frontier[index] for index in kept]
    fitting = [entry for entry in frontier if entry[0] <= limit]
    return min(fitting, key=lambda entry: entry[1])[2]


def cheapest_of_many(costs: np.ndarray, sizes: np.ndarray, limit: float) -> np.ndarray:
    """The same for hundreds of items, within one item's bytes of the best.

    Takes the least cost + price * size for each item, at the lowest price per byte at which
    everything fits. The remaining bytes are then spent on the items that gain most per byte.

    Args:
        costs: float64, (items, options); inf for options that an item cannot have.
        sizes: the same shape.
        limit: limit of the sum of sizes; the smallest options fit.

    Returns:
        the option of each item, int, (items,).
    """
    every = np.arange(len(costs))
    low, high = 0.0, 1.0

    def chosen(price: float) -> np.ndarray:
        return np.argmin(costs + price * sizes, axis=1)

    def size(choice: np.ndarray) -> float:
        return float(np.sum(sizes[every, choice]))

    while size(chosen(high)) > limit and high < _HIGHEST_PRICE:
        high *= 4.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if size(chosen(middle)) <= limit else (middle, high)
    return _spend(costs, sizes, chosen(high), limit)


def _spend(costs: np.ndarray, sizes: np.ndarray, choice: np.ndarray, limit: float) -> np.ndarray:
    """Improve single items while they fit, the largest gain per byte first."""
    every, choice = np.arange(len(costs)), choice.copy()
    left = limit - float(np.sum(sizes[every, choice]))
    while True:
        gain = costs[every, choice][:, None] - costs
        more = sizes - sizes[every, choice][:, None]
        fits = (gain > 0.0) & (more <= left)
        if not np.any(fits):
            return choice
        worth = np.where(fits, gain / np.maximum(more, 1e-9), -np.inf)
        item, option = np.unravel_index(np.argmax(worth), worth.shape)
        left -= float(more[item, option])
        choice[item] = option
