"""CPQ's distribution over the levels: forward pass and gradients, against the written-out twin."""

import math

import numpy as np
import pytest
import reference
import tensorflow as tf

from tfbinreg.methods import drop_bits
from tfbinreg.methods.cpq_functions import EXPECTED_VALUE, MULTICLASS_STE, cpq_quantize

WAYS = (MULTICLASS_STE, EXPECTED_VALUE)
STEP = 0.7
GRIDS = {  # ranges and gates
    "two bits": ([(-2, 1)], []),
    "three bits": ([(-4, 3)], []),
    "unsigned": ([(0, 15)], []),
    "many levels": ([(-127, 127)], []),
    "partly open": ([(-2, 1), (-4, 3)], [0.4]),
    "two gates": ([(-2, 1), (-4, 3), (-8, 7)], [0.7, 0.2]),
    "one closed": ([(-2, 1), (-4, 3), (-8, 7)], [0.7, 0.0]),
    "all closed": ([(-2, 1), (-4, 3), (-8, 7)], [0.0, 0.0]),
}


def gradients(values, step, width, ranges, gates, backward, axis=None):
    """(q, dq/dx of each, sums of dq/dstep and dq/dlog width, dq/dgates), float32."""
    given = [tf.constant(part, tf.float32) for part in (values, step, np.log(width), gates)]
    with tf.GradientTape() as tape:
        tape.watch(given)
        q = cpq_quantize(*given[:3], ranges, backward=backward, gates=given[3], axis=axis)
    return q.numpy(), *(g.numpy() for g in tape.gradient(q, given, unconnected_gradients="zero"))


@pytest.mark.parametrize("backward", WAYS)
@pytest.mark.parametrize("name", GRIDS)
def test_the_twin_agrees_number_by_number(name, backward):
    ranges, gates = GRIDS[name]
    low, high = ranges[-1]
    # On levels, between them, near thresholds and beyond both ends, with three widths.
    ratios = [0.0, 1.0, -1.0, 0.3, -0.45, 0.49, 1.2, high + 0.3, high + 1.4, low - 0.6]
    values = np.repeat(np.array(ratios) * STEP, 3)
    widths = np.tile([STEP / 3, STEP / 6, STEP / 12], len(ratios))
    # Each number is a channel, so that it has gradients of its own.
    own = [np.full(values.size, STEP), widths, np.repeat([gates], values.size, 0).T]
    q, *found = gradients(values, *own[:2], ranges, own[2], backward, axis=0)
    for i, value in enumerate(values):
        code, *wanted, to_gates = reference.cpq(value, STEP, widths[i], ranges, gates, backward)
        assert q[i] == np.float32(code) * np.float32(STEP)
        # Hard-concrete gates get no gradient where they are closed.
        wanted += [slope if gate else 0.0 for slope, gate in zip(to_gates, gates, strict=True)]
        own_found = [*(part[i] for part in found[:3]), *found[3][:, i]]
        atol = 3e-5 * max(10, high)  # a ratio has 24 bits
        np.testing.assert_allclose(own_found, wanted, rtol=3e-4, atol=atol)


def test_the_probabilities_sum_to_one_and_the_mode_is_the_nearest_level():
    ranges, values = [(-4, 3)], np.random.default_rng(0).uniform(-4.0, 4.0, 200)
    found = gradients(values, STEP, 0.2, ranges, [], MULTICLASS_STE)[0]
    for value, own in zip(values, found, strict=True):
        pi = reference.categorical(value, STEP, 0.2, ranges, [])
        assert sum(pi.values()) == pytest.approx(1.0)
        nearest = math.floor(min(max(value / STEP, -4), 3) + 0.5)
        assert max(pi, key=lambda own: pi[own]) == nearest
        assert own == pytest.approx(nearest * STEP)


@pytest.mark.parametrize("backward", WAYS)
def test_halves_round_up(backward):
    step = 0.5  # with which halves are exact
    values = np.array([-3.5, -1.5, -0.5, 0.5, 1.5, 2.5]) * step
    for gates in ([], [1.0], [0.999]):
        ranges = [(-2, 1), (-4, 3)][1 - len(gates) :]
        q = gradients(values, step, 0.1, ranges, gates, backward)[0]
        wanted = np.array([-3, -1, 0, 1, 2, 3])
        if gates == [0.999]:  # level 2 is a little less likely than 1, which is as near
            wanted = np.array([-3, -1, 0, 1, 1, 3])
        np.testing.assert_array_equal(q / step, wanted)


@pytest.mark.parametrize("width", [1 / 3, 1 / 6])
def test_multiclass_ste_is_odd_about_an_inner_level_and_rests_on_it(width):
    offsets = np.array([-0.4, -0.2, 0.0, 0.2, 0.4])
    slopes = gradients(1.0 + offsets, 1.0, width, [(-127, 127)], [], MULTICLASS_STE)[1]
    np.testing.assert_allclose(slopes, -slopes[::-1], atol=1e-6)
    published = {1 / 3: [0.556, 0.325, 0.0], 1 / 6: [1.35, 0.64, 0.0]}[width]
    np.testing.assert_allclose(slopes[:3], published, atol=0.01)


def test_zero_is_absorbing_by_multiclass_ste_alone():
    values = np.linspace(-0.49, 0.49, 9) * STEP
    for backward, moves in {MULTICLASS_STE: False, EXPECTED_VALUE: True}.items():
        slopes = gradients(values, STEP, STEP / 6, [(-4, 3)], [], backward)[1]
        assert np.all((slopes > 0.0) == moves) and (moves or not np.any(slopes))


def test_the_expected_value_is_nearly_straight_through_with_a_wide_distribution():
    ratios = np.linspace(-20.0, 20.0, 401)
    slopes = {
        width: gradients(ratios, 1.0, width, [(-127, 127)], [], EXPECTED_VALUE)[1]
        for width in (1 / 3, 1 / 6, 1 / 10)
    }
    assert slopes[1 / 3].min() > 0.95 and slopes[1 / 3].max() < 1.05
    assert slopes[1 / 6].min() == pytest.approx(0.54, abs=0.02)
    assert slopes[1 / 6].max() == pytest.approx(1.53, abs=0.02)
    assert slopes[1 / 10].min() == pytest.approx(0.13, abs=0.02)


@pytest.mark.parametrize("backward", WAYS)
@pytest.mark.parametrize("width", [1e-12, 1e-6, 1e-3, 1e3])
def test_any_width_and_distance_give_finite_numbers(width, backward):
    values = np.array([-1e6, -50.0, -2.8, -0.35, 0.0, 0.3, 0.35, 2.0, 50.0, 1e6])
    for gates in ([], [0.5], [0.0], [1e-30]):
        ranges = [(-2, 1), (-4, 3)][1 - len(gates) :]
        found = gradients(values, STEP, width, ranges, gates, backward)
        assert all(np.all(np.isfinite(part)) for part in found)


@pytest.mark.parametrize("backward", WAYS)
def test_the_gradient_dies_beyond_the_grid(backward):
    values = (3.0 + np.array([0.2, 1.0, 2.0, 4.0, 30.0])) * STEP
    slopes = np.abs(gradients(values, STEP, STEP / 3, [(-4, 3)], [], backward)[1])
    assert np.all(np.diff(slopes) <= 0.0) and slopes[-2] < 1e-3 and slopes[-1] == 0.0


@pytest.mark.parametrize("backward", WAYS)
def test_closed_gates_leave_the_inner_grid(backward):
    values = np.random.default_rng(1).normal(size=500) * 5.0
    ranges = drop_bits.nested_ranges(4)
    for closed, bits in (([0.0, 0.0], 2), ([1.0, 0.0], 3), ([1.0, 1.0], 4)):
        codes = np.rint(gradients(values, STEP, 0.2, ranges, closed, backward)[0] / STEP)
        low, high = ranges[bits - 2]
        wanted = np.floor(np.clip(values.astype("f") / np.float32(STEP), low, high) + 0.5)
        np.testing.assert_array_equal(codes, wanted)
        assert codes.min() == low and codes.max() == high


@pytest.mark.parametrize("codes", [(0, 3), (-8, 7), (-128, 127)])
def test_the_gradients_of_a_whole_tensor(codes):
    random = np.random.default_rng(3)
    values = (random.uniform(codes[0] - 1.0, codes[1] + 1.0, 60) * STEP).astype(np.float32)
    upstream, width = random.normal(size=values.size), STEP / 5
    given = tf.constant(values), tf.constant(STEP), tf.constant(math.log(width))
    with tf.GradientTape() as tape:
        tape.watch(given)
        q = cpq_quantize(*given, [codes], backward=EXPECTED_VALUE, grad_scale=0.5)
        loss = tf.reduce_sum(q * tf.constant(upstream, tf.float32))
    found = tape.gradient(loss, given)
    twins = [reference.cpq(float(v), STEP, width, [codes], [], EXPECTED_VALUE) for v in values]
    _, to_values, *sums = (np.array(part) for part in zip(*(t[:4] for t in twins), strict=True))
    np.testing.assert_allclose(found[0], upstream * to_values, rtol=3e-4, atol=1e-3)
    wanted = [0.5 * np.sum(upstream * part) for part in sums]
    np.testing.assert_allclose(found[1:], wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("width", [1 / 2, 1 / 4, 1 / 15])
def test_open_gates_and_none_are_the_same(width):
    # One is summed over levels, the other over the edges between them.
    ratios = np.linspace(-10.0, 9.0, 191) + 0.01
    channels = [np.full(ratios.size, part) for part in (STEP, width * STEP)]
    ranges = drop_bits.nested_ranges(4)
    gates = np.ones([2, ratios.size])
    levels = gradients(ratios * STEP, *channels, ranges, gates, EXPECTED_VALUE, axis=0)
    edges = gradients(ratios * STEP, *channels, ranges[-1:], [], EXPECTED_VALUE, axis=0)
    for one, other in zip(levels[:4], edges[:4], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backward", WAYS)
def test_channels_and_steps_of_their_own(backward):
    random = np.random.default_rng(2)
    kernel = tf.constant(random.normal(size=(2, 5, 3)), tf.float32)
    steps = tf.constant([0.3, -0.5, 0.8])
    widths = tf.math.log(tf.constant([0.1, 0.1, 0.2]))
    gates = tf.constant([[0.5, 1.0, 0.0]])
    ranges = [(-2, 1), (-4, 3)]

    def run(x, step, width, gate, axis):
        with tf.GradientTape() as tape:
            tape.watch([x, step, width, gate])
            q = cpq_quantize(
                x, step, width, ranges, backward=backward, grad_scale=0.5, axis=axis, gates=gate
            )
            loss = tf.reduce_sum(tf.square(q))
        return [q, *tape.gradient(loss, [x, step, width, gate])]

    together = run(kernel, steps, widths, gates, 2)
    for channel in range(3):
        alone = run(kernel[..., channel], steps[channel], widths[channel], gates[:, channel], None)
        parts = [*(t[..., channel] for t in together)]
        for one, part in zip(alone, parts, strict=True):
            # The widest distribution decides how many levels count.
            np.testing.assert_allclose(one, part, rtol=1e-4, atol=1e-5)
    shared = run(kernel, steps, widths, gates[:, 0], 2)
    assert shared[-1].shape == (1,)


def test_half_precision_is_computed_in_single():
    values = tf.constant([0.3, 0.9, -2.0], tf.float16)
    q = cpq_quantize(values, tf.constant(0.5), tf.constant(-2.0), [(-4, 3)], backward=WAYS[0])
    assert q.dtype == tf.float16 and q.numpy().tolist() == [0.5, 1.0, -2.0]
