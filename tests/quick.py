"""Which of many combinations run in `make test`; `make test-slow` runs them all."""

import itertools

import pytest


def slow(*values):
    """Values of a parametrized test that run in `make test-slow` only."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def combinations(chosen, **values):
    """Parametrizes a test with the product of the values, slow where `chosen` says no to a case."""
    cases = itertools.product(*values.values())
    marked = [
        pytest.param(*case, marks=() if chosen(*case) else pytest.mark.slow) for case in cases
    ]
    return pytest.mark.parametrize(list(values), marked)
