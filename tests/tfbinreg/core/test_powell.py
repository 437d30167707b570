"""A parabola's vertex, and Powell's method."""

import itertools

import numpy as np
import pytest

from tfbinreg.core.powell import Vertex, parabola_vertex, powell

SEARCH = {"bound": 2.0, "width": 0.2, "iterations": 30, "most_evaluations": 10**5}


def test_the_vertex_of_points_on_a_parabola():
    places = np.linspace(2, 4, 10)
    found = parabola_vertex(places, 3.0 * (places - 2.7) ** 2 + 1.0)
    assert found.place == pytest.approx(2.7) and found.problem == ""
    values = 1e-9 * (places - 3.2) ** 2
    values[4] = np.nan
    assert parabola_vertex(places, values).place == pytest.approx(3.2)


def test_a_vertex_outside_is_clipped():
    places = np.linspace(2, 4, 10)
    assert parabola_vertex(places, (places - 7.0) ** 2) == Vertex(4.0)
    assert parabola_vertex(places, (places + 7.0) ** 2) == Vertex(2.0)


def test_without_a_convex_parabola_it_is_the_best_place():
    places = [2.0, 3.0, 4.0]
    assert parabola_vertex(places, [2.0, 3.0, 1.0]) == Vertex(4.0, "the parabola is not convex")
    assert parabola_vertex(places, [1.0, 2.0, 3.0]).problem == "the parabola is not convex"
    assert parabola_vertex(places, [1.0, 1.0, 1.0]).problem == "the parabola is not convex"
    few = parabola_vertex(places, [np.inf, 2.0, 3.0])
    assert few == Vertex(3.0, "fewer than three values are finite")
    with pytest.raises(ValueError, match="none of the values is finite"):
        parabola_vertex(places, [np.nan] * 3)


def test_a_quadratic_function_of_dependent_variables():
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    matrix, place = turned @ np.diag([1, 3, 10, 30, 100]) @ turned.T, np.linspace(-0.5, 0.7, 5)
    found = powell(lambda x: (x - place) @ matrix @ (x - place), np.zeros(5), **SEARCH)
    np.testing.assert_allclose(found.point, place, atol=1e-3)
    assert not found.spent and found.iterations < 30


def test_a_bent_valley_is_followed_along_new_directions():
    def rosenbrock(x):
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

    found = powell(rosenbrock, np.array([-1.2, 1.0]), **SEARCH)
    np.testing.assert_allclose(found.point, 1.0, atol=1e-3)
    assert found.value == rosenbrock(found.point)


def test_no_iteration_ends_higher_although_the_function_jumps():
    def rough(x):
        return float(np.sum(np.floor(20 * np.abs(x - 0.3)) + np.sin(50 * x) ** 2))

    values = [powell(rough, np.zeros(3), **{**SEARCH, "iterations": n}).value for n in range(4)]
    assert values[0] == rough(np.zeros(3)) and values[-1] < values[0]
    assert all(later <= earlier for earlier, later in itertools.pairwise(values))


def test_it_stays_in_the_cube_and_accepts_its_corner():
    seen = []

    def slope(x):
        seen.append(np.max(np.abs(x)))
        return float(np.sum(x))

    found = powell(slope, np.zeros(3), **SEARCH)
    np.testing.assert_array_equal(found.point, -2.0)
    assert max(seen) == 2.0


def test_evaluations_are_counted_and_end():
    calls = []
    found = powell(
        lambda x: calls.append(x) or x @ x, np.ones(4), **{**SEARCH, "most_evaluations": 7}
    )
    assert found.evaluations == len(calls) == 7 and found.spent and found.iterations == 0
    assert found.value == min(x @ x for x in calls)
    found = powell(lambda x: 1.0, np.ones(4), **SEARCH)
    assert found.iterations == 1  # it gained nothing
    np.testing.assert_array_equal(found.point, 1.0)


def test_numbers_that_are_none_count_as_infinite():
    found = powell(lambda x: np.nan if x[0] > 0.3 else (x[0] - 1.0) ** 2, np.zeros(1), **SEARCH)
    assert 0.2 <= found.point[0] <= 0.3 and np.isfinite(found.value)
    nowhere = powell(lambda x: np.nan, np.zeros(2), **SEARCH)
    assert nowhere.value == np.inf
    np.testing.assert_array_equal(nowhere.point, 0.0)
