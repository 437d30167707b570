import numpy as np
import pytest
import reference
import tensorflow as tf

from tfbinreg.core import grid
from tfbinreg.methods import lsq_functions

BITS = range(2, 9)


def ranges(bits):
    return [grid.weight_code_range(bits), grid.code_range(bits, True), grid.code_range(bits, False)]


def samples(step, qmin, qmax, shape=(400,), seed=0):
    """Numbers over and beyond the range, with every kink: level, half-way point and clip edge."""
    random = np.random.default_rng(seed)
    values = random.uniform(1.7 * min(qmin, -2), 1.7 * qmax, shape)
    kinks = np.concatenate([np.arange(qmin - 2, qmax + 3), np.arange(qmin, qmax) + 0.5])
    flat = values.reshape(-1)
    flat[: len(kinks)] = kinks[: flat.size]
    return (flat.reshape(shape) * step).astype(np.float32)


def run(values, step, qmin, qmax, grad_scale=1.0, axis=None, upstream=None):
    values, step = tf.constant(values), tf.constant(step)
    with tf.GradientTape() as tape:
        tape.watch([values, step])
        quantized = lsq_functions.lsq_quantize(values, step, qmin, qmax, grad_scale, axis)
        weighted = quantized if upstream is None else quantized * upstream
        loss = tf.reduce_sum(weighted)
    to_values, to_step = tape.gradient(loss, [values, step])
    return quantized.numpy(), to_values.numpy(), to_step.numpy()


def close(actual, expected, tolerance=1e-5):
    scale = max(1e-30, float(np.max(np.abs(expected))))
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", range(3))
def test_value_and_gradients_equal_the_twin(bits, kind):
    qmin, qmax = ranges(bits)[kind]
    step = np.float32(0.25)  # dyadic: the kinks are exact in float32 and float64 alike
    values = samples(step, qmin, qmax, (1200,))
    upstream = np.random.default_rng(1).normal(size=values.shape).astype(np.float32)
    quantized, to_values, to_step = run(values, step, qmin, qmax, 0.125, upstream=upstream)
    expected, slope, step_slope = reference.lsq_tensor(values, step, qmin, qmax)
    close(quantized, expected)
    close(to_values, slope * upstream)
    terms = step_slope * upstream.astype(np.float64)
    np.testing.assert_allclose(
        to_step, 0.125 * terms.sum(), rtol=1e-5, atol=1e-6 * 0.125 * np.abs(terms).sum()
    )


@pytest.mark.parametrize("bits", BITS)
def test_any_step_equals_the_twin(bits):
    qmin, qmax = grid.weight_code_range(bits)
    random = np.random.default_rng(bits)
    step = np.float32(0.0731)
    values = (random.normal(size=2000) * qmax * step).astype(np.float32)
    quantized, to_values, to_step = run(values, step, qmin, qmax)
    expected, slope, step_slope = reference.lsq_tensor(values, step, qmin, qmax)
    close(quantized, expected)
    close(to_values, slope)
    np.testing.assert_allclose(to_step, step_slope.sum(), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("axis", [0, 2, 3])
def test_per_channel_equals_the_twin(bits, axis):
    qmin, qmax = grid.weight_code_range(bits)
    shape = (3, 3, 4, 5)
    step = (2.0 ** -np.arange(1, shape[axis] + 1)).astype(np.float32)
    ratios = samples(1.0, qmin, qmax, shape, seed=axis)
    values = ratios * step.reshape([-1 if d == axis else 1 for d in range(4)])
    upstream = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    quantized, to_values, to_step = run(values, step, qmin, qmax, 0.5, axis, upstream)
    expected, slope, step_slope = reference.lsq_tensor(values, step, qmin, qmax, axis)
    others = tuple(d for d in range(4) if d != axis)
    close(quantized, expected)
    close(to_values, slope * upstream)
    close(to_step, 0.5 * (step_slope * upstream).sum(axis=others), 1e-5)


@pytest.mark.parametrize("value, slope, step_slope", [
    (-1.0, 0.0, -2.0), (-0.5, 1.0, 0.0), (-0.25, 1.0, 0.5), (0.25, 1.0, 0.5), (0.5, 0.0, 1.0),
    (2.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.125, 1.0, -0.25),
])  # fmt: skip
def test_two_bit_gradients_by_hand(value, slope, step_slope):
    _, to_values, to_step = run(np.float32([value]), np.float32(0.5), -2, 1)
    assert to_values[0] == slope
    assert to_step == step_slope


def test_unsigned_contains_the_relu_and_blocks_zero():
    quantized, to_values, to_step = run(np.float32([-3.0, 0.0, 0.5, 5.0]), np.float32(0.5), 0, 3)
    np.testing.assert_array_equal(quantized, [0, 0, 0.5, 1.5])
    np.testing.assert_array_equal(to_values, [0, 0, 1, 0])
    assert to_step == 3.0


@pytest.mark.parametrize("qmin, qmax", [(-2, 1), (0, 3), (-127, 127)])
def test_negative_step_acts_as_its_absolute_value(qmin, qmax):
    values = samples(0.25, qmin, qmax)
    positive = run(values, np.float32(0.25), qmin, qmax)
    negative = run(values, np.float32(-0.25), qmin, qmax)
    np.testing.assert_array_equal(positive[0], negative[0])
    np.testing.assert_array_equal(positive[1], negative[1])
    assert positive[2] == -negative[2] != 0


def test_zero_step_is_finite_and_can_grow():
    quantized, to_values, to_step = run(np.float32([1.0, -1.0, 2.0]), np.float32(0.0), -2, 1)
    assert np.all(np.isfinite(quantized)) and np.all(np.isfinite(to_values))
    assert to_step == 0.0 + 1 - 2 + 1


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_is_quantized_in_float32(dtype):
    values = tf.cast(samples(0.25, -8, 7), dtype)
    quantized = lsq_functions.lsq_quantize(values, tf.constant(0.25), -8, 7)
    expected = lsq_functions.lsq_quantize(tf.cast(values, tf.float32), tf.constant(0.25), -8, 7)
    assert quantized.dtype == dtype
    np.testing.assert_array_equal(quantized, tf.cast(expected, dtype))


def test_ranges_without_a_fused_kernel_take_the_formula():
    values = samples(0.25, -1, 1)
    quantized, to_values, _ = run(values, np.float32(0.25), -1, 1)  # ternary: 3 levels, 2 bits
    expected, slope, _ = reference.lsq_tensor(values, 0.25, -1, 1)
    close(quantized, expected)
    close(to_values, slope)


@pytest.mark.parametrize("qmin, qmax", [(-2, 1), (0, 15), (-128, 127)])
def test_idempotent_and_scale_equivariant(qmin, qmax):
    values = samples(0.25, qmin, qmax)
    once = run(values, np.float32(0.25), qmin, qmax)[0]
    np.testing.assert_array_equal(run(once, np.float32(0.25), qmin, qmax)[0], once)
    scaled = run(values * 4, np.float32(1.0), qmin, qmax)[0]
    np.testing.assert_array_equal(scaled, once * 4)


def test_same_bits_in_graph_mode():
    values, step = tf.constant(samples(0.3, 0, 15)), tf.constant(0.3)
    graph = tf.function(lambda v, s: lsq_functions.lsq_quantize(v, s, 0, 15))
    np.testing.assert_array_equal(
        graph(values, step), lsq_functions.lsq_quantize(values, step, 0, 15)
    )


def test_initial_step_and_gradient_scale():
    values = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)
    expected = 2 * np.abs(values).mean() / np.sqrt(7)
    np.testing.assert_allclose(lsq_functions.initial_step(values, 7), expected, rtol=1e-6)
    per_channel = 2 * np.abs(values).mean(axis=(0, 1, 3)) / np.sqrt(7)
    np.testing.assert_allclose(
        lsq_functions.initial_step(values, 7, axis=2), per_channel, rtol=1e-6
    )
    assert lsq_functions.gradient_scale(180, 7) == pytest.approx(1 / np.sqrt(180 * 7))


@pytest.mark.parametrize("qmin, qmax", [(1, 3), (-2, 0), (2, 1)])
def test_impossible_ranges_are_refused(qmin, qmax):
    with pytest.raises(ValueError, match="qmin <= 0 < qmax"):
        lsq_functions.lsq_quantize(tf.zeros(3), tf.constant(1.0), qmin, qmax)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_learned_offset_equals_the_twin(bits, share):
    step, top = 0.0377, 2**bits - 1
    offset = -share * top * step
    random = np.random.default_rng(bits)
    low, high = offset - 3 * step, offset + (top + 3) * step
    values = random.uniform(low, high, 400).astype(np.float32)
    upstream = random.normal(size=400).astype(np.float32)
    variables = [tf.Variable(number, dtype=tf.float32) for number in (step, offset)]
    inputs = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = lsq_functions.lsq_plus_quantize(inputs, *variables, bits, grad_scale=0.5)
        total = tf.reduce_sum(outputs * upstream)
    to_values, *rest = tape.gradient(total, [inputs, *variables])
    twin = np.array([reference.lsq_plus(float(v), np.float32(step), offset, bits) for v in values])
    close(outputs, twin[:, 0])
    close(to_values, twin[:, 1] * upstream)
    for ours, column in zip(rest, (2, 3), strict=True):
        expected = 0.5 * np.sum(twin[:, column] * upstream)
        assert float(ours) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_learned_offset_in_half_precision():
    outputs = lsq_functions.lsq_plus_quantize(
        tf.constant([-1.0, 0.0, 9.0], tf.float16), 0.5, -0.5, 2
    )
    assert outputs.dtype == tf.float16
    np.testing.assert_array_equal(outputs, [-0.5, 0.0, 1.0])


@pytest.mark.parametrize("axis", [-1, -2, -4])
def test_negative_axes_count_from_the_back(axis):
    values = np.random.default_rng(0).normal(size=(3, 3, 4, 6)).astype(np.float32)
    step = np.linspace(0.2, 0.6, values.shape[axis]).astype(np.float32)
    found, expected = (run(values, step, -2, 1, 0.5, a) for a in (axis, axis + 4))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        lsq_functions.initial_step(values, 3, axis), lsq_functions.initial_step(values, 3, axis + 4)
    )


@pytest.mark.parametrize("axis", [2, -3])
def test_an_axis_that_is_not_there_is_refused(axis):
    with pytest.raises(ValueError, match=f"axis={axis} is no axis of a tensor of 2 dimensions"):
        lsq_functions.lsq_quantize(tf.ones((2, 2)), tf.ones(2), -2, 1, axis=axis)


@pytest.mark.parametrize("levels", [(-1, 1), (-4, -1, 0, 1, 4), (-3, 100)])
def test_nearest_levels_are_those_of_the_grid(levels):
    ratios = np.concatenate([np.arange(-6, 6, 0.25), [np.inf, -np.inf, 48.5]]).astype(np.float32)
    found = lsq_functions.nearest_levels(tf.constant(ratios[None]), levels)
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found[0], grid.nearest_levels(ratios, levels))


class TestOfBits:
    """`lsq_quantize_bits`: signs, and channels with bits of their own."""

    MIXED = (0, 1, 2, 3, 4, 8)

    def run(self, values, step, bits, grad_scale=1.0, axis=None, upstream=1.0):
        values, step = tf.constant(values), tf.constant(step)
        with tf.GradientTape() as tape:
            tape.watch([values, step])
            quantized = lsq_functions.lsq_quantize_bits(values, step, bits, grad_scale, axis)
            loss = tf.reduce_sum(quantized * upstream)
        to_values, to_step = tape.gradient(loss, [values, step])
        return quantized.numpy(), to_values.numpy(), to_step.numpy()

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_signs_are_the_twin(self, dtype, sign):
        step = 0.25
        values = (samples(step, -1, 1, (300,)) * 1.0).astype(dtype)
        values[:8] = [0.0, -0.0, step, -step, step / 2, -step / 2, 1e-30, -1e-30]
        upstream = np.random.default_rng(1).normal(size=values.shape).astype(dtype)
        found = self.run(values, dtype(sign * step), 1, dtype(0.125), upstream=upstream)
        expected = np.array([reference.lsq_of_bits(float(v), step, 1) for v in values])
        np.testing.assert_array_equal(found[0], expected[:, 0])
        np.testing.assert_array_equal(found[1], expected[:, 1].astype(dtype) * upstream)
        total = sign * 0.125 * np.sum(expected[:, 2] * upstream)
        assert found[2] == pytest.approx(total, rel=1e-4)

    @pytest.mark.parametrize("axis", [0, 1, -2])
    def test_channels_are_the_twin(self, axis):
        steps = np.float32([0.5, 0.25, 0.75, 0.125, 0.0625, 0.03125])
        rows = np.stack([
            samples(step, *(grid.channel_range(bits) if bits > 1 else (-1, 1)), (600,), seed=bits)
            for step, bits in zip(steps, self.MIXED, strict=True)
        ])  # fmt: skip
        upstream = np.random.default_rng(1).normal(size=rows.shape).astype(np.float32)
        factors = np.float32([1.0, 0.5, 0.25, 2.0, 0.125, 0.5])
        place = axis % 3
        shape = (20, 30)
        moved, weights = (
            np.moveaxis(part.reshape(len(rows), *shape), 0, place) for part in (rows, upstream)
        )
        found = self.run(moved, steps, self.MIXED, factors, axis, weights)
        for channel, (step, bits) in enumerate(zip(steps, self.MIXED, strict=True)):
            twin = np.array(
                [reference.lsq_of_bits(float(v), float(step), bits) for v in rows[channel]]
            )
            own = upstream[channel].astype(np.float64)
            quantized, to_values = (np.moveaxis(p, place, 0)[channel].ravel() for p in found[:2])
            close(quantized, twin[:, 0])
            close(to_values, twin[:, 1] * own)
            expected = factors[channel] * np.sum(twin[:, 2] * own)
            assert found[2][channel] == pytest.approx(expected, rel=1e-4, abs=1e-4)

    @pytest.mark.parametrize("bits", [2, 8])
    def test_equal_bits_are_lsq(self, bits):
        qmin, qmax = grid.weight_code_range(bits)
        values, steps = samples(0.25, qmin, qmax, (3, 400)), np.float32([0.25, 0.2, 0.3])
        ours = self.run(values, steps, (bits,) * 3, 0.5, 0)
        for mine, other in zip(ours, run(values, steps, qmin, qmax, 0.5, 0), strict=True):
            np.testing.assert_array_equal(mine, other)

    @pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
    def test_short_floats(self, dtype):
        values = tf.cast(np.linspace(-1.0, 1.0, 41), dtype)
        short = lsq_functions.lsq_quantize_bits(values, 0.25, 1)
        assert short.dtype == dtype
        np.testing.assert_array_equal(
            tf.cast(short, tf.float32),
            lsq_functions.lsq_quantize_bits(tf.cast(values, tf.float32), 0.25, 1),
        )
