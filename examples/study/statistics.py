"""Means, and differences of paired runs with intervals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean and how sure it is.

    Attributes:
        mean: of the values.
        deviation: their standard deviation (n - 1 in the denominator), NaN for one value.
        half_width: of the interval mean +- half_width that holds the true mean in 95 of 100
            studies, if the values are normal: Student's t with n - 1 degrees of freedom. NaN for
            one value.
        n: how many values.
    """

    mean: float
    deviation: float
    half_width: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return abs(self.mean) > self.half_width


def mean_of(values: Sequence[float], level: float = LEVEL) -> Mean:
    """The mean of independent values, with the t-interval of this level.

        half width = t(1 - (1 - level) / 2, n - 1) * deviation / sqrt(n)

    Raises:
        ValueError: for no values, or a level that is not between 0 and 1.
    """
    if not len(values) or not 0 < level < 1:
        raise ValueError(
            f"Expected values and a level between 0 and 1, got {len(values)} values and {level}."
        )
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Mean(mean, math.nan, math.nan, 1)
    deviation = float(np.std(values, ddof=1))
    factor = float(stats.t.ppf(0.5 + level / 2, n - 1))
    return Mean(mean, deviation, factor * deviation / math.sqrt(n), n)


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float], level: float = LEVEL
) -> Mean | None:
    """The mean of values - baseline over the seeds that both have; None if there are none.

    What a seed does to both (the order of the images, the same first weights) cancels out.
    """
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return None
    return mean_of([values[seed] - baseline[seed] for seed in seeds], level)
