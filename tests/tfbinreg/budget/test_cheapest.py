"""The choice within a budget against all choices there are."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfbinreg.budget.cheapest import cheapest, cheapest_of_many

WIDTHS = (0, 1, 2, 4, 8)


def items(seed, count):
    """Costs that fall, and sizes that grow, with the width."""
    random = np.random.default_rng(seed)
    costs = np.sort(random.exponential(size=(count, len(WIDTHS))), axis=1)[:, ::-1]
    weights = random.integers(1, 40, count)
    return costs, weights[:, None] * np.array(WIDTHS, np.float64)


def best(costs, sizes, limit):
    """The least cost of all choices."""
    every = np.arange(len(costs))
    choices = map(np.array, itertools.product(range(costs.shape[1]), repeat=len(costs)))
    fitting = (c for c in choices if np.sum(sizes[every, c]) <= limit)
    return min(float(np.sum(costs[every, c])) for c in fitting)


OPTION = st.tuples(st.sampled_from((2, 3, 4, 8)), st.integers(0, 50), st.floats(0.0, 10.0))
LAYERS = st.lists(st.lists(OPTION, min_size=1, max_size=4), min_size=1, max_size=5)


@given(LAYERS, st.integers(0, 60))
def test_the_choice_is_the_cheapest_that_fits(layers, slack):
    limit = sum(min(size for _, size, _ in options) for options in layers) + slack
    every = [
        (sum(cost for _, _, cost in chosen), sum(size for _, size, _ in chosen))
        for chosen in itertools.product(*layers)
    ]
    best = min(cost for cost, size in every if size <= limit)
    bits = cheapest(layers, limit)
    # Several options of a layer may have the same width: the cheapest reading counts.
    readings = itertools.product(
        *(
            [o for o in options if o[0] == width]
            for options, width in zip(layers, bits, strict=True)
        )
    )
    assert any(
        sum(o[1] for o in chosen) <= limit
        and sum(o[2] for o in chosen) == pytest.approx(best, abs=1e-9)
        for chosen in readings
    )


@given(st.integers(0, 10**6), st.floats(0.0, 1.2))
def test_many_items_come_near_the_best(seed, part):
    costs, sizes = items(seed, 5)
    limit = part * np.sum(sizes[:, -1])
    choice, every = cheapest_of_many(costs, sizes, limit), np.arange(len(costs))
    assert np.sum(sizes[every, choice]) <= limit
    # What a price for bytes misses is at most what one item costs more.
    found = np.sum(costs[every, choice])
    assert found <= best(costs, sizes, limit) + np.max(costs[:, 0] - costs[:, -1]) + 1e-9


def test_what_is_not_allowed_is_not_chosen():
    costs = np.array([[np.inf, 0.5, 0.0], [9.0, 1.0, 0.0]])
    sizes = np.array([[0.0, 10.0, 20.0], [0.0, 10.0, 20.0]])
    np.testing.assert_array_equal(cheapest_of_many(costs, sizes, 10.0), [1, 0])
    np.testing.assert_array_equal(cheapest_of_many(costs, sizes, 20.0), [1, 1])
    np.testing.assert_array_equal(cheapest_of_many(costs, sizes, 40.0), [2, 2])


def test_what_is_left_is_spent():
    """A price alone would leave both items at nothing, or give the second all."""
    costs = np.array([[1.0, 0.0], [100.0, 0.0]])
    sizes = np.array([[0.0, 5.0], [0.0, 100.0]])
    np.testing.assert_array_equal(cheapest_of_many(costs, sizes, 50.0), [1, 0])
