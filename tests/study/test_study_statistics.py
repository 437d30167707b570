"""Means and paired differences, on made-up numbers with known answers."""

import math

import numpy as np
import pytest

from examples.study.statistics import mean_of, paired_difference

T_2, T_4 = 4.302652730, 2.776445105  # 97.5 % points of Student's t, from a printed table


def test_mean_and_interval():
    found = mean_of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.mean, found.n) == (3.0, 5)
    assert found.deviation == pytest.approx(math.sqrt(2.5))
    assert found.half_width == pytest.approx(T_4 * math.sqrt(2.5 / 5))
    assert found.excludes_zero


def test_other_levels():
    assert mean_of([0.0, 2.0], level=0.5).half_width == pytest.approx(1.0)  # t(0.75, 1) = 1


def test_one_value_has_no_interval():
    found = mean_of([7.0])
    assert found.mean == 7.0 and math.isnan(found.half_width) and not found.excludes_zero


@pytest.mark.parametrize(("values", "level"), [([], 0.95), ([1.0], 1.0), ([1.0], 0.0)])
def test_what_has_no_mean(values, level):
    with pytest.raises(ValueError, match="Expected values and a level"):
        mean_of(values, level)


def test_a_difference_is_taken_seed_by_seed():
    # Seeds differ by hundreds; the differences are 1, 2 and 3. Seeds 7 and 8 have no partner.
    found = paired_difference({0: 101, 1: 302, 2: 603, 7: 0}, {2: 600, 1: 300, 0: 100, 8: 5})
    assert (found.mean, found.deviation, found.n) == (2.0, 1.0, 3)
    assert found.half_width == pytest.approx(T_2 / math.sqrt(3))
    assert not found.excludes_zero  # 2 < 2.48


def test_no_common_seed_no_difference():
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_intervals_hold_the_truth_as_often_as_they_say():
    random = np.random.default_rng(0)
    truth, held = 0.3, 0
    for values in random.normal(truth, 2.0, (4000, 5)):
        found = mean_of(values)
        held += abs(found.mean - truth) <= found.half_width
    assert held / 4000 == pytest.approx(0.95, abs=0.012)
