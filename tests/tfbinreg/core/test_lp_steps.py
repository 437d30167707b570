"""Steps with the least mean power of the error."""

import numpy as np
import pytest
from reference import least_power_step

from tfbinreg.core.lp_steps import lp_error, lp_steps

POWERS = [2.0, 2.9, 4.0]


def drawn(kind, count=60):
    random = np.random.default_rng(1)
    if kind == "relu":
        return np.maximum(random.normal(size=count), 0.0)
    return getattr(random, kind)(size=count)


@pytest.mark.parametrize(
    ("qmin", "qmax", "kind"),
    [(-2, 1, "normal"), (-8, 7, "laplace"), (0, 3, "relu"), (0, 15, "relu"), (-4, 3, "uniform")],
)
def test_they_are_the_least_of_all_steps(qmin, qmax, kind):
    values = drawn(kind)
    found = lp_steps(values, qmin, qmax, POWERS)
    for index, p in enumerate(POWERS):
        _, least = least_power_step(values.tolist(), qmin, qmax, p, 2001)
        error = lp_error(values[None], found[index : index + 1], qmin, qmax, np.array([p]))
        # Of as many levels as there are numbers each few steps are a valley.
        assert error.item() <= (1.05 if qmax == 15 else 1.01) * least


def test_a_step_above_the_range_can_be_the_best():
    values = np.array([-1.2] * 5 + [1.0, 0.3])  # 1.0 covers them, 1.2 has a level for five
    step, _ = least_power_step(values.tolist(), -2, 1, 2.0)
    assert step > 1.1
    assert lp_steps(values, -2, 1, [2.0]).item() == pytest.approx(step, rel=1e-3)


def test_larger_powers_clip_less():
    values = np.random.default_rng(0).normal(size=5000)
    assert np.all(np.diff(lp_steps(values, -8, 7, [2.0, 3.0, 4.0, 8.0])) > 0)


def test_a_step_per_channel_is_that_of_the_channel():
    values = np.random.default_rng(0).normal(size=(3, 3, 5, 4)) * [1.0, 2.0, 0.0, 1e-20]
    together = lp_steps(values, -2, 1, POWERS, axis=-1)
    assert together.shape == (3, 4) and np.all(together[:, 2] == 0.0)
    alone = np.stack([lp_steps(values[..., c], -2, 1, POWERS) for c in range(4)], axis=1)
    np.testing.assert_allclose(together, alone, rtol=1e-2)


def test_unsigned_grids_contain_the_relu_and_scale_does_not_matter():
    values = np.random.default_rng(0).normal(size=3000)
    steps = lp_steps(values, 0, 15, POWERS)
    np.testing.assert_array_equal(steps, lp_steps(np.maximum(values, 0), 0, 15, POWERS))
    np.testing.assert_allclose(lp_steps(values * 2.0**30, 0, 15, POWERS), steps * 2.0**30)


def test_of_many_numbers_some_are_looked_at():
    values = np.random.default_rng(0).normal(size=300_000)
    some = lp_steps(values[:50_000], -2, 1, [2.0])
    np.testing.assert_allclose(lp_steps(values, -2, 1, [2.0]), some, rtol=0.02)


def test_an_outlier_is_clipped_when_the_rest_weighs_more():
    values = np.concatenate([np.full(10**5, 0.5), [300.0]])  # it is in every sample
    assert lp_steps(values, 0, 1, [1.0]).item() == pytest.approx(0.5, rel=0.01)
    assert lp_steps(values, 0, 1, [4.0]).item() == pytest.approx(300.0, rel=0.01)


def test_numbers_that_say_nothing():
    np.testing.assert_array_equal(lp_steps(np.zeros((2, 3)), -2, 1, POWERS), np.zeros(3))
    for bad in ([], [1.0, np.nan], [np.inf]):
        with pytest.raises(ValueError, match="numbers are none or not finite"):
            lp_steps(np.array(bad), -2, 1, POWERS)
