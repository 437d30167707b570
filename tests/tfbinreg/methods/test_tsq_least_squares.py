"""TSQ's second step: starts, half-steps and their objective."""

import dataclasses

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from tfbinreg.methods.tsq_least_squares import (
    Coded,
    LayerSolver,
    LayerTask,
    coded_start,
    relaxed_targets,
    ternary_start,
    within_bins,
)


def squared_error(weights, coded):
    return np.sum((weights - coded.weights) ** 2)


@pytest.mark.parametrize("seed", range(12))
def test_the_ternary_start_is_the_best_of_all_codes(seed):
    random = np.random.default_rng(seed)
    weights = random.normal(size=8) * random.choice([0.1, 1.0, 3.0], 8)
    if seed % 3 == 0:
        weights = np.round(weights, 1)  # with ties
    coded = ternary_start(weights.reshape(1, 8, 1))
    assert squared_error(weights, Coded(coded.codes.ravel(), coded.scale.ravel())) == pytest.approx(
        reference.best_ternary(weights), abs=1e-12
    )


def test_weights_as_large_as_the_smallest_that_is_kept_are_kept():
    coded = ternary_start(np.array([1.0, -1.0, 1.0, 0.1, 1.0, 0.0]).reshape(1, 6, 1))
    np.testing.assert_array_equal(coded.codes.ravel(), [1, -1, 1, 0, 1, 0])
    assert coded.scale.ravel() == [1.0]


@given(st.floats(1e-6, 1e6), st.integers(0, 20))
def test_starts_scale_with_the_weights(factor, seed):
    weights = np.random.default_rng(seed).normal(size=(2, 9, 3))
    for shared in (False, True):
        one, two = ternary_start(weights, shared), ternary_start(factor * weights, shared)
        np.testing.assert_array_equal(one.codes, two.codes)
        np.testing.assert_allclose(two.scale, factor * one.scale)


def test_normal_weights_keep_54_percent_and_lose_19():
    """As the optimal ternary approximation has it for normal weights: above 0.765 mean|w|."""
    weights = np.random.default_rng(0).normal(size=(1, 200000, 1))
    coded = ternary_start(weights)
    assert np.mean(coded.codes != 0) == pytest.approx(0.542, abs=0.01)
    assert coded.scale.item() == pytest.approx(1.224, abs=0.01)
    assert squared_error(weights, coded) / np.sum(weights**2) == pytest.approx(0.190, abs=0.002)


@pytest.mark.parametrize("qmax", [1, 3])
@pytest.mark.parametrize("shared", [False, True])
def test_zeros_have_codes_and_scale_0(qmax, shared):
    weights = np.random.default_rng(0).normal(size=(3, 9, 2))
    weights[1] = 0.0
    if not shared:
        weights[2, :, 1] = 0.0
    coded = coded_start(weights, qmax, shared)
    assert coded.scale.shape == ((3, 1, 1) if shared else (3, 1, 2))
    assert np.all(coded.codes[1] == 0) and np.all(coded.scale[1] == 0)
    assert np.all(np.isfinite(coded.scale)) and np.all(np.abs(coded.codes) <= qmax)
    live = coded.codes[0]
    assert np.any(live) and (shared or coded.scale[2, 0, 1] == 0.0)


def test_a_shared_start_is_that_of_all_weights_of_a_group():
    weights = np.random.default_rng(1).normal(size=(2, 9, 2))
    together = ternary_start(weights.reshape(2, 18, 1))
    coded = ternary_start(weights, shared=True)
    np.testing.assert_array_equal(coded.codes, together.codes.reshape(2, 9, 2))
    np.testing.assert_allclose(coded.scale, together.scale)


@pytest.mark.parametrize("qmax", [1, 7])
def test_weights_are_moved_into_the_bins_of_their_codes(qmax):
    random = np.random.default_rng(0)
    weights = random.normal(size=(2, 40, 3)) * qmax
    coded = Coded(
        random.integers(-qmax, qmax + 1, weights.shape).astype(float), np.full((2, 1, 3), 0.7)
    )
    found = within_bins(weights, coded, qmax)
    ratio = found / coded.scale
    np.testing.assert_array_equal(np.floor(np.clip(ratio, -qmax, qmax) + 0.5), coded.codes)
    was = np.floor(np.clip(weights / coded.scale, -qmax, qmax) + 0.5)
    distance = np.abs(weights / coded.scale - coded.codes)
    stays = (was == coded.codes) & ((distance < 0.48) | (np.abs(weights) > qmax * coded.scale))
    assert 0.03 < np.mean(stays) < 0.9
    np.testing.assert_array_equal(found[stays], weights[stays])
    moved = np.abs(ratio - coded.codes)[was != coded.codes]
    np.testing.assert_allclose(moved, 0.48, rtol=1e-9)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.5), (-1.0, 0.75), (-np.inf, np.inf)])
@pytest.mark.parametrize("eta", [0.05, 1.0, 20.0])
def test_relaxed_targets_are_the_best(low, high, eta):
    random = np.random.default_rng(0)
    ends = np.nan_to_num([low, high], neginf=-2.0, posinf=2.0)
    targets = np.concatenate([ends, random.uniform(*ends, 40)])
    outputs = np.concatenate([[-3.0, 3.0], random.normal(size=40) * 2])
    found = relaxed_targets(targets, outputs, eta, low, high)

    def cost(z):
        return (targets - np.clip(z, low, high)) ** 2 + eta * (z - outputs) ** 2

    finite = np.nan_to_num([low, high], neginf=-50.0, posinf=50.0)
    wanted = [
        reference.tsq_target(y, v, eta, *finite) for y, v in zip(targets, outputs, strict=True)
    ]
    assert np.all(cost(found) <= cost(np.array(wanted)) + 1e-9)
    np.testing.assert_allclose(cost(found), cost(np.array(wanted)), atol=1e-5)


def task(seed=0, *, groups=1, inputs=9, outputs=4, qmax=1, linear=False, shared=False, rows=300):
    """A layer of random weights whose inputs are not quite the ones it was made for."""
    random = np.random.default_rng(seed)
    first = np.maximum(random.normal(size=(groups, rows, inputs)), 0.0)
    weights = random.normal(size=(groups, inputs, outputs))
    factor = random.uniform(0.5, 2.0, (groups, outputs)) * random.choice([-1, 1], (groups, outputs))
    offset = random.normal(size=(groups, outputs))
    low, high = (-np.inf, np.inf) if linear else (0.0, 6.0)
    targets = factor[:, None] * (first @ weights) + offset[:, None]
    if not linear:
        targets = np.clip(np.floor(targets / 2.0 + 0.5), 0, 3) * 2.0
    return LayerTask(
        inputs=first + 0.1 * random.normal(size=first.shape),
        targets=targets,
        weights=weights,
        factor=factor,
        offset=offset,
        low=low,
        high=high,
        qmax=qmax,
        shared=shared,
    )


KINDS = {
    "conv": {},
    "four bits": {"qmax": 7},
    "linear": {"linear": True},
    "depthwise": {"groups": 5, "outputs": 1},
    "shared": {"groups": 5, "outputs": 2, "shared": True},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [0.1, 3.0])
def test_no_half_step_raises_the_objective(kind, eta):
    own = task(**KINDS[kind])
    solver = LayerSolver(own)
    coded = coded_start(own.weights, own.qmax, own.shared)
    relaxed = solver.outputs(coded)

    def objective():
        return np.sum(solver.objective(coded, relaxed, eta))

    values = [objective()]
    for _ in range(6):
        relaxed = solver.relaxed(coded, eta)
        values.append(objective())
        correlations = solver.correlations(relaxed)
        coded = solver.scaled(coded, correlations)
        values.append(objective())
        coded = solver.recoded(coded, correlations)
        values.append(objective())
        assert np.all(np.abs(coded.codes) <= own.qmax) and np.all(coded.scale > 0)
        np.testing.assert_array_equal(coded.codes, np.rint(coded.codes))
    assert np.all(np.diff(values) <= 1e-9 * values[0])
    assert values[-1] < 0.8 * values[0]


@pytest.mark.parametrize("kind", ["conv", "four bits", "depthwise"])
def test_a_sweep_is_that_of_the_twin(kind):
    own = task(**KINDS[kind])
    solver = LayerSolver(own)
    coded = coded_start(own.weights, own.qmax)
    relaxed = solver.relaxed(coded, 0.5)
    found = solver.recoded(coded, solver.correlations(relaxed))
    for g in range(coded.codes.shape[0]):
        for n in range(coded.codes.shape[2]):
            wanted = (relaxed[g, :, n] - own.offset[g, n]) / own.factor[g, n]
            codes = reference.tsq_sweep(
                own.inputs[g], wanted, coded.codes[g, :, n], coded.scale[g, 0, n], own.qmax
            )
            np.testing.assert_array_equal(found.codes[g, :, n], codes)


def test_with_linear_outputs_and_an_infinite_eta_it_is_plain_least_squares():
    """Then Z = V, or with the smallest eta Z = Y: ||Y - V||^2 over alpha and t."""
    own = task(linear=True)
    solver = LayerSolver(own)
    coded = coded_start(own.weights, 1)
    np.testing.assert_allclose(solver.relaxed(coded, 1e12), solver.outputs(coded), atol=1e-9)
    np.testing.assert_allclose(solver.relaxed(coded, 1e-12), own.targets, atol=1e-9)
    best = solver.scaled(coded, solver.correlations(own.targets))
    for n in range(4):
        column = own.factor[0, n] * own.inputs[0] @ best.codes[0, :, n]
        wanted = np.linalg.lstsq(column[:, None], own.targets[0, :, n] - own.offset[0, n])[0]
        assert best.scale[0, 0, n] == pytest.approx(wanted.item())
    np.testing.assert_allclose(
        solver.objective(best, solver.outputs(best), 1e12), solver.error(best)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_found_is_better_than_the_start(kind):
    own = task(**KINDS[kind])
    solver = LayerSolver(own)
    start = coded_start(own.weights, own.qmax, own.shared)
    found = solver.solve(np.geomspace(0.1, 10.0, 4), 3)
    assert np.all(np.sum(solver.error(found)) <= np.sum(solver.error(start)))
    assert np.sum(solver.error(found)) < 0.99 * np.sum(solver.error(start))
    assert found.scale.shape == start.scale.shape


def test_a_kernel_of_ternary_weights_is_found_again():
    random = np.random.default_rng(5)
    own = task(linear=True)
    codes = random.integers(-1, 2, (1, 9, 4)).astype(float)
    true = Coded(codes, np.array([[[0.5, 1.0, 0.3, 2.0]]]))
    outputs = LayerSolver(own).outputs(true)
    weights = true.weights + 0.05 * random.normal(size=codes.shape)
    noisy = dataclasses.replace(own, targets=outputs, weights=weights)
    found = LayerSolver(noisy).solve(np.array([0.1, 1.0]), 3)
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_allclose(found.scale, true.scale, rtol=1e-4)


def test_what_does_not_matter_stays():
    """Inputs that are always 0, outputs that are hidden, and kernels of zeros."""
    own = task()
    inputs, factor, weights = own.inputs.copy(), own.factor.copy(), own.weights.copy()
    inputs[:, :, 2], factor[0, 1], weights[:, :, 3] = 0.0, 0.0, 0.0
    solver = LayerSolver(dataclasses.replace(own, inputs=inputs, factor=factor, weights=weights))
    start = coded_start(weights, 1)
    found = solver.solve(np.array([0.1, 1.0]), 3)
    np.testing.assert_array_equal(found.codes[0, 2], start.codes[0, 2])
    np.testing.assert_array_equal(found.codes[..., 1], start.codes[..., 1])
    assert np.all(found.codes[..., 3] == 0) and np.all(np.isfinite(found.scale))
    assert found.scale[0, 0, 1] == start.scale[0, 0, 1]


def test_a_negative_scale_turns_the_codes():
    own = task()
    solver = LayerSolver(own)
    coded = coded_start(own.weights, 1)
    turned = Coded(-coded.codes, coded.scale)
    correlations = solver.correlations(solver.relaxed(coded, 0.1))
    one, two = solver.scaled(coded, correlations), solver.scaled(turned, correlations)
    np.testing.assert_array_equal(one.codes, two.codes)
    np.testing.assert_array_equal(one.scale, two.scale)
