import functools

import numpy as np
import pytest
import reference
import tensorflow as tf

from tfbinreg import BinOptions, bin_regularization
from tfbinreg.core import grid
from tfbinreg.methods import lsq_functions
from tfbinreg.methods.bin_regularization import BIN_REGULARIZATION
from tfbinreg.methods.contract import GridTensors, KernelView

BITS = range(2, 9)


def kernel(bits, shape=(3, 3, 8, 16), seed=0):
    """Normal weights, some clipped, some exactly on levels and half-way points."""
    qmin, qmax = grid.weight_code_range(bits)
    ratios = np.random.default_rng(seed).normal(size=shape) * qmax / 1.5
    flat = ratios.reshape(-1)
    flat[:6] = [qmin - 3, qmax + 4, 0, qmax, qmin, 0.5]
    return (ratios * 0.125).astype(np.float32), qmin, qmax


def run(weights, step, qmin, qmax, axis=None, **options):
    weights, step = tf.constant(weights), tf.constant(step)
    with tf.GradientTape() as tape:
        tape.watch([weights, step])
        penalty = bin_regularization(weights, step, qmin, qmax, axis, **options)
    gradients = tape.gradient(penalty, [weights, step])
    return penalty.numpy(), *[g.numpy() for g in gradients]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("step", [0.125, 0.0917])
def test_equals_the_loop_over_bins(bits, step):
    weights, qmin, qmax = kernel(bits)
    step = np.float32(step)
    penalty, to_weights, to_step = run(weights, step, qmin, qmax, detach_step=False)
    assert penalty == pytest.approx(reference.bin_penalty(weights, step, qmin, qmax), rel=1e-6)
    expected_weights, expected_step = reference.bin_gradients(weights, step, qmin, qmax)
    np.testing.assert_allclose(
        to_weights, expected_weights, rtol=1e-6, atol=1e-6 * np.abs(expected_weights).max()
    )
    assert to_step == pytest.approx(expected_step, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_detached_step_gets_no_gradient_and_the_weights_the_same(bits):
    weights, qmin, qmax = kernel(bits)
    attached = run(weights, np.float32(0.1), qmin, qmax, detach_step=False)
    detached = run(weights, np.float32(0.1), qmin, qmax)
    assert detached[0] == attached[0]
    np.testing.assert_array_equal(detached[1], attached[1])
    assert detached[2] == 0 != attached[2]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("axis", [2, 3])
def test_per_channel_is_the_mean_of_the_channels(bits, axis):
    weights, qmin, qmax = kernel(bits)
    channels = weights.shape[axis]
    step = np.linspace(0.08, 0.2, channels).astype(np.float32)
    penalty, to_weights, to_step = run(weights, step, qmin, qmax, axis, detach_step=False)
    rows = np.moveaxis(weights, axis, 0)
    loop = [reference.bin_penalty(row, s, qmin, qmax) for row, s in zip(rows, step, strict=True)]
    assert penalty == pytest.approx(np.mean(loop), rel=1e-6)
    pairs = [reference.bin_gradients(r, s, qmin, qmax) for r, s in zip(rows, step, strict=True)]
    expected = np.moveaxis(np.stack([pair[0] for pair in pairs]), 0, axis) / channels
    np.testing.assert_allclose(to_weights, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        to_step, np.array([pair[1] for pair in pairs]) / channels, rtol=1e-4, atol=1e-6
    )


def test_empty_and_one_element_bins():
    assert run(np.float32([0.3]), np.float32(0.25), -2, 1)[0] == pytest.approx(0.05**2, rel=1e-5)
    on_level = run(np.float32([-0.5, 0.25, 0.25]), np.float32(0.25), -2, 1)
    assert on_level[0] == 0 and not on_level[1].any()


def test_zero_only_on_levels():
    weights = np.float32([-0.5, -0.25, 0.0, 0.25])
    assert run(weights, np.float32(0.25), -2, 1)[0] == 0
    assert run(weights * 3, np.float32(0.25), -2, 1)[0] > 0  # clipped weights are not on a level


def test_invariances():
    weights, qmin, qmax = kernel(3)
    penalty = run(weights, np.float32(0.1), qmin, qmax)[0]
    shuffled = np.random.default_rng(1).permutation(weights.ravel())
    assert run(shuffled, np.float32(0.1), qmin, qmax)[0] == pytest.approx(penalty, rel=1e-6)
    assert run(3 * weights, np.float32(0.3), qmin, qmax)[0] == pytest.approx(9 * penalty, rel=1e-5)


def test_scale_free_divides_by_the_squared_step():
    weights, qmin, qmax = kernel(2)
    plain = run(weights, np.float32(0.1), qmin, qmax)
    free = run(weights, np.float32(0.1), qmin, qmax, scale_free=True)
    assert free[0] == pytest.approx(plain[0] / 0.01, rel=1e-5)
    np.testing.assert_allclose(free[1], plain[1] / 0.01, rtol=1e-5)
    scaled = run(5 * weights, np.float32(0.5), qmin, qmax, scale_free=True)
    assert scaled[0] == pytest.approx(free[0], rel=1e-5)


def test_one_small_step_moves_every_weight_towards_its_level():
    weights, qmin, qmax = kernel(2, (200,))
    _, gradient, _ = run(weights, np.float32(0.1), qmin, qmax)
    codes = np.floor(np.clip(weights / np.float32(0.1), qmin, qmax) + 0.5)
    before, after = weights - codes * 0.1, weights - 0.2 * gradient - codes * 0.1
    moved = np.abs(before) > 1e-6
    assert np.all(np.abs(after[moved]) < np.abs(before[moved]))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("strength", [0.5, 1e3, 1e9])
def test_damped_by_the_rate_a_step_is_the_proximal_one(bits, strength):
    weights, qmin, qmax = kernel(bits, (200,))
    rate, step = 0.05, np.float32(0.1)
    penalty, gradient, _ = run(weights, step, qmin, qmax, damping=2 * strength * rate)
    expected = reference.bin_penalty(weights, step, qmin, qmax, 2 * strength * rate)
    assert penalty == pytest.approx(expected, rel=1e-5)
    moved = weights - rate * strength * gradient.astype(np.float64)
    expected = reference.proximal_bin_step(weights, step, qmin, qmax, strength, rate)
    np.testing.assert_allclose(moved, expected, atol=1e-6)


@pytest.mark.parametrize("reach", [0.0, 0.3])
def test_the_mean_is_over_channels_that_are_not_pruned(reach):
    weights = tf.constant(np.random.default_rng(0).normal(size=(12, 4)), tf.float32)
    alive = tf.constant([1.0, 0.0, 1.0, 0.0])
    options = BinOptions()

    def value_and_pull(latent, bits):
        grid = GridTensors(tf.fill([len(bits)], 0.4), -2, 1, 1, None, bits)
        with tf.GradientTape() as tape:
            tape.watch(latent)
            view = KernelView("a", latent, grid, reach=reach)
            value = BIN_REGULARIZATION.penalty(view, options)
        return value, tape.gradient(value, latent)

    value, pull = value_and_pull(weights * alive, (2, 0, 2, 0))
    of_two, its_pull = value_and_pull(tf.gather(weights, [0, 2], axis=1), (2, 2))
    np.testing.assert_allclose(value, of_two, rtol=1e-6)
    np.testing.assert_allclose(tf.gather(pull, [0, 2], axis=1), its_pull, rtol=1e-6)
    assert float(value_and_pull(weights * 0.0, (0, 0, 0, 0))[0]) == 0.0


def test_damping_is_shared_out_over_channels_and_divided_by_the_squared_step():
    weights, qmin, qmax = kernel(3)
    step = np.linspace(0.05, 0.2, 16).astype(np.float32)
    options = {"detach_step": False, "scale_free": True}
    penalty, to_weights, to_step = run(weights, step, qmin, qmax, 3, damping=8.0, **options)
    rows = [
        run(weights[..., channel], own, qmin, qmax, damping=8.0 / 16 / own**2, detach_step=False)
        for channel, own in enumerate(step)
    ]
    assert penalty == pytest.approx(
        np.mean([row[0] / own**2 for row, own in zip(rows, step, strict=True)]), rel=1e-5
    )
    for found, part in ((np.moveaxis(to_weights, 3, 0), 1), (to_step, 2)):
        for own, channel, row in zip(step, found, rows, strict=True):
            np.testing.assert_allclose(channel, row[part] / own**2 / 16, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("strength", [1.0, 1e9])
def test_a_damped_step_moves_towards_its_optimum_and_not_beyond(strength):
    weights, qmin, qmax = kernel(8)
    step, rate = np.float64(0.1), 0.05
    damping = 2 * strength * rate
    codes = np.floor(np.clip(weights / np.float32(step), qmin, qmax) + 0.5).ravel()
    counts = np.array([np.sum(codes == code) for code in codes])
    share = 1 / (counts + damping)
    best = np.sum(share * codes * weights.ravel()) / np.sum(share * codes**2)
    gradient = run(weights, np.float32(step), qmin, qmax, damping=damping, detach_step=False)[2]
    way = (step - rate * strength * gradient - step) / (best - step)
    assert 0 < way < 1.001
    assert way == pytest.approx(1.0, abs=1e-3) or strength == 1.0


def test_half_precision_weights_are_binned_in_float32():
    weights, qmin, qmax = kernel(8)
    half = tf.cast(weights, tf.float16)
    penalty = bin_regularization(half, tf.constant(0.1), qmin, qmax)
    assert penalty.dtype == tf.float32
    expected = reference.bin_penalty(half.numpy(), np.float32(0.1), qmin, qmax)
    assert float(penalty) == pytest.approx(expected, rel=1e-5)


def test_graph_mode_needs_no_dynamic_shape():
    weights, qmin, qmax = kernel(4)
    graph = tf.function(lambda w, s: bin_regularization(w, s, qmin, qmax))
    concrete = graph.get_concrete_function(tf.constant(weights), tf.constant(0.1))
    shapes = [out.shape for op in concrete.graph.get_operations() for out in op.outputs]
    assert all(shape.is_fully_defined() for shape in shapes)
    assert float(graph(weights, 0.1)) == run(weights, np.float32(0.1), qmin, qmax)[0]


def test_impossible_range_is_refused():
    with pytest.raises(ValueError, match="qmin <= 0 < qmax"):
        bin_regularization(tf.zeros(3), tf.constant(1.0), 1, 3)


@pytest.mark.parametrize("axis", [None, 3])
def test_global_normalization_is_the_mean_squared_error(axis):
    weights, qmin, qmax = kernel(3)
    step = np.float32(0.1) if axis is None else np.linspace(0.05, 0.2, 16).astype(np.float32)
    options = {"normalization": "global", "detach_step": False}
    penalty, to_weights, to_step = run(weights, step, qmin, qmax, axis, **options)
    rows = [weights] if axis is None else np.moveaxis(weights, axis, 0)
    twins = [
        reference.mean_squared_error(row, float(own), qmin, qmax)
        for row, own in zip(rows, np.atleast_1d(step), strict=True)
    ]
    assert penalty == pytest.approx(np.mean([twin[0] for twin in twins]), rel=1e-6)
    expected = np.stack([twin[1] for twin in twins], axis=-1) / len(twins)
    np.testing.assert_allclose(to_weights, expected.reshape(weights.shape), rtol=1e-4, atol=1e-8)
    expected = [twin[2] / len(twins) for twin in twins]
    np.testing.assert_allclose(np.atleast_1d(to_step), expected, rtol=1e-4, atol=1e-7)


def test_bins_of_few_weights_have_a_mean_part_only():
    step = np.float32(1.0)
    few, many = np.float32([0.7, 1.2, 1.4]), np.float32([-0.4, -0.1, 0.2, 0.3, 0.3])
    weights = np.concatenate([few, many])
    for min_count, variance in ((3, few.var()), (4, 0.0)):
        options = {"min_count": min_count, "detach_step": False}
        penalty, to_weights, to_step = run(weights, step, -2, 1, **options)
        means = (few.mean() - 1) ** 2 + many.mean() ** 2
        assert penalty == pytest.approx(means + variance + many.var(), rel=1e-5)
        moved = few - 1 if variance else few.mean() - 1
        np.testing.assert_allclose(to_weights[:3], 2 * moved / 3, rtol=1e-4)
        np.testing.assert_allclose(to_weights[3:], 2 * many / 5, rtol=1e-4)
        assert to_step == pytest.approx(-2 * (few.mean() - 1), rel=1e-4)
    lone = np.float32([0.7, 0.3, -0.1])
    for one, other in zip(*(run(lone, step, -2, 1, min_count=n) for n in (1, 2)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("options, message", [
    ({"min_count": 0}, "min_count must be at least 1, got 0"),
    ({"min_count": float("nan")}, "min_count must be at least 1, got nan"),
    ({"normalization": "layer"}, '"bin" or "global", got \'layer\''),
])  # fmt: skip
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        bin_regularization(tf.zeros(3), tf.constant(1.0), -2, 1, **options)
    with pytest.raises(ValueError, match=message):
        BinOptions(**options)


@pytest.mark.parametrize("axis", [-1, -2, -4])
@pytest.mark.parametrize("detach_step", [True, False])
def test_negative_axes_count_from_the_back(axis, detach_step):
    weights, qmin, qmax = kernel(3)
    step = np.linspace(0.1, 0.2, weights.shape[axis]).astype(np.float32)
    found, expected = (
        run(weights, step, qmin, qmax, a, detach_step=detach_step) for a in (axis, axis + 4)
    )
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="axis=4 is no axis"):
        bin_regularization(weights, step, qmin, qmax, 4)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_bins_of_a_codebook_are_its_levels(axis):
    levels = (-4, -1, 0, 1, 4)
    weights = np.random.default_rng(0).normal(0, 2, (30, 4)).astype(np.float32)
    nearest = functools.partial(lsq_functions.nearest_levels, levels=levels)
    step = np.float32(0.5) if axis is None else np.full(weights.shape[axis], 0.5, np.float32)
    value, to_weights, _ = run(weights, step, -4, 4, axis, nearest=nearest)
    expected, pulls = [], np.zeros_like(weights)
    parts = [weights] if axis is None else list(np.moveaxis(weights, axis, 0))
    rows = [pulls] if axis is None else list(np.moveaxis(pulls, axis, 0))
    for part, pull in zip(parts, rows, strict=True):
        codes = grid.nearest_levels(part / 0.5, levels)
        for level in np.unique(codes):
            away = part[codes == level] - 0.5 * level
            expected.append(np.mean(away**2) / len(parts))
            pull[codes == level] = 2 * away / away.size / len(parts)
    assert float(value) == pytest.approx(np.sum(expected), rel=1e-5)
    np.testing.assert_allclose(to_weights, pulls, rtol=1e-5, atol=1e-7)
