"""Mirror descent against its twins: projections, steps in dual and in closed form, sharpening."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from built_quantizers import batch, built

from tfbinreg.methods.contract import KernelSpec, KernelStep
from tfbinreg.methods.lsq_quantizers import LSQWeightQuantizer
from tfbinreg.methods.mirror_descent import MIRROR_DESCENT, MirrorDescentOptions
from tfbinreg.methods.mirror_quantizers import LEVELS, MirrorWeightQuantizer, dual_of

SHAPE = (7, 4)


def make(bits, **options):
    """A built quantizer, started from a kernel, and the kernel."""
    quantizer, variables = built(MirrorWeightQuantizer(bits, **options), SHAPE)
    kernel = batch(0, SHAPE).numpy()
    quantizer.initialize(variables, kernel)
    return quantizer, variables, kernel


def step_of(variables, quantizer, kernel, change, progress=0.3, factor=1.0):
    """A step of plain gradient descent that moves the kernel by `change`."""
    return KernelStep(
        name="k",
        before=tf.constant(kernel),
        kernel=tf.constant(kernel + change),
        factor=factor,
        codes_before=quantizer.grid_now(variables).codes(tf.constant(kernel)),
        grid=quantizer.grid_now(variables),
        rate=tf.constant(1.0),
        progress=tf.constant(progress),
        variables=variables,
    )


@pytest.mark.parametrize("bits", LEVELS)
@pytest.mark.parametrize("beta", [0.5, 3.0])
@pytest.mark.parametrize("axis", [None, 1])
def test_projection_and_gradients_with_tanh(bits, beta, axis):
    quantizer, variables, kernel = make(bits, axis=axis)
    variables["beta"].assign(beta)
    kernel[0] = [0.0, 0.5 * 0.8, -0.5 * 0.8, 100.0]  # the middle, thresholds, saturated
    variables["step"].assign(np.full(variables["step"].shape, 0.8, np.float32))
    upstream = batch(1, SHAPE).numpy()
    weights = tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        quantized = quantizer(weights, True, variables)
        loss = tf.reduce_sum(quantized * upstream)
    to_weights, to_step = tape.gradient(loss, [weights, variables["step"]])
    twin = np.array([
        [reference.mirror_tanh(float(w), 0.8, beta, bits) for w in row] for row in kernel
    ])  # fmt: skip
    np.testing.assert_allclose(quantized, twin[..., 0], rtol=2e-6, atol=1e-7)
    np.testing.assert_array_equal(to_weights, upstream)
    count = kernel.size if axis is None else len(kernel)
    own = np.sum(twin[..., 1] * upstream, axis=None if axis is None else 0) / np.sqrt(count)
    np.testing.assert_allclose(to_step, own, rtol=1e-5)


@pytest.mark.parametrize("bits", LEVELS)
@pytest.mark.parametrize("beta", [0.5, 3.0])
def test_projection_and_gradients_with_softmax(bits, beta):
    quantizer, variables, kernel = make(bits, form="softmax")
    variables["beta"].assign(beta)
    levels, scale = LEVELS[bits], float(variables["step"])
    upstream, weights = batch(1, SHAPE).numpy(), tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        quantized = quantizer(weights, True, variables)
        loss = tf.reduce_sum(quantized * upstream)
    to_weights, to_dual = tape.gradient(loss, [weights, variables["dual"]])
    duals = variables["dual"].numpy().astype(np.float64)
    for place in np.ndindex(SHAPE):
        twin = reference.mirror_softmax(duals[(slice(None), *place)], scale, beta, levels)
        assert float(quantized[place]) == pytest.approx(twin, rel=1e-5, abs=1e-6)
        own = [upstream[place] * scale * level for level in levels]
        np.testing.assert_allclose(to_dual[(slice(None), *place)], own, rtol=1e-6, atol=0)
    np.testing.assert_array_equal(to_weights, np.zeros(SHAPE))


@pytest.mark.parametrize("form", ["tanh", "softmax"])
@pytest.mark.parametrize("bits", LEVELS)
def test_a_large_beta_gives_the_nearest_level_and_a_small_one_something_within(bits, form):
    quantizer, variables, kernel = make(bits, form=form)
    scale = float(variables["step"])
    hard = quantizer(tf.constant(kernel), False, variables).numpy()
    assert set(np.rint(hard.ravel() / scale)) == set(LEVELS[bits])
    variables["beta"].assign(1e7)
    np.testing.assert_allclose(quantizer(tf.constant(kernel), True, variables), hard, rtol=1e-6)
    variables["beta"].assign(1.0)
    soft = quantizer(tf.constant(kernel), True, variables).numpy()
    assert np.all(np.abs(soft) <= scale) and np.all(np.abs(soft - hard) > 0.0)
    variables["beta"].assign(0.0)  # weights are codes
    np.testing.assert_array_equal(quantizer(tf.constant(kernel), True, variables), hard)


def test_duals_start_at_the_projection_of_the_kernel():
    ratio = tf.constant([-3.0, -1.0, -0.3, 0.0, 0.49, 0.51, 1.0])
    for levels in LEVELS.values():
        dual = dual_of(ratio, levels)
        nearest = np.argmin(np.abs(ratio.numpy() - np.array(levels)[:, None]), axis=0)
        apart = [place for place in range(len(ratio)) if levels != (-1, 1) or ratio[place] != 0.0]
        np.testing.assert_array_equal(np.argmax(dual, axis=0)[apart], nearest[apart])
        np.testing.assert_allclose(tf.reduce_sum(tf.nn.softmax(dual, axis=0), axis=0), 1.0, 1e-6)
    np.testing.assert_allclose(
        tf.reduce_sum(tf.nn.softmax(dual_of(ratio, (-1, 1)), 0) * [[-1.0], [1.0]], 0),
        tf.tanh(tf.clip_by_value(ratio, -1.0, 1.0)), rtol=1e-5, atol=1e-7,
    )  # fmt: skip


def test_a_step_of_the_dual_is_the_closed_form_of_tanh():
    quantizer, variables, kernel = make(1, stable=False, scaling="fixed")
    beta, scale = 2.5, float(variables["step"])
    variables["beta"].assign(beta)
    change = -0.1 * batch(2, SHAPE).numpy()
    after = quantizer.after_step(step_of(variables, quantizer, kernel, change))
    variables["beta"].assign(beta)
    moved = quantizer(after, True, variables).numpy() / scale
    for place in np.ndindex(SHAPE):
        before = np.tanh(np.float64(kernel[place]) / scale)
        twin = reference.closed_form_tanh(before, beta, float(change[place]) / scale)
        assert moved[place] == pytest.approx(twin, abs=1e-6)
        assert abs(moved[place]) <= 1.0


def test_a_step_of_the_duals_is_the_exponentiated_gradient():
    quantizer, variables, kernel = make(2, form="softmax", stable=False)
    beta = 2.5
    variables["beta"].assign(beta)
    start = tf.nn.softmax(variables["dual"], axis=0).numpy().astype(np.float64)
    change = -0.1 * batch(2, (3, *SHAPE)).numpy()
    variables["dual"].assign_add(change)  # the optimizer's step
    after = quantizer.after_step(step_of(variables, quantizer, kernel, 0.0))
    moved = tf.nn.softmax(variables["dual"], axis=0).numpy()
    np.testing.assert_allclose(tf.reduce_sum(tf.exp(variables["dual"]), axis=0), 1.0, rtol=1e-5)
    for place in np.ndindex(SHAPE):
        own = (slice(None), *place)
        twin = reference.closed_form_softmax(start[own], beta, change[own])
        np.testing.assert_allclose(moved[own], twin, atol=1e-6)
    codes = np.argmax(moved, axis=0) - 1
    np.testing.assert_allclose(after, codes * variables["step"].numpy())


@pytest.mark.parametrize("bits", LEVELS)
def test_the_kernel_follows_the_duals_through_folded_normalizations(bits):
    quantizer, variables, kernel = make(bits, form="softmax", axis=1)
    factor = np.float32([2.0, -0.5, 1.0, 0.0])
    after = quantizer.after_step(step_of(variables, quantizer, kernel, 0.0, factor=factor))
    wanted = quantizer.grid_now(variables).codes(tf.constant(kernel))
    found = quantizer.grid_now(variables).codes(after * factor)
    np.testing.assert_array_equal(found[:, :3], wanted[:, :3])
    assert np.all(after[:, 3] == 0.0)


def test_beta_grows_at_equal_ratios_until_weights_are_codes():
    quantizer, variables, kernel = make(2, first_beta=2.0, last_beta=32.0, hard_from=0.8)
    assert float(variables["beta"]) == 2.0
    for progress, beta in ((0.0, 2.0), (0.2, 4.0), (0.4, 8.0), (0.6, 16.0), (0.8, 0.0), (1.0, 0.0)):
        quantizer.after_step(step_of(variables, quantizer, kernel, 0.0, progress))
        assert float(variables["beta"]) == pytest.approx(beta, rel=1e-5)
    quantizer, variables, kernel = make(2, hard_from=0.0)
    assert float(variables["beta"]) == 0.0
    quantizer.after_step(step_of(variables, quantizer, kernel, 0.0, 0.5))
    assert float(variables["beta"]) == 0.0


@pytest.mark.parametrize("scaling, value, learned", [
    ("learned", 0.8, True), ("fixed", 0.8, False), ("one", 1.0, False)
])  # fmt: skip
def test_scales(scaling, value, learned):
    quantizer, variables = built(MirrorWeightQuantizer(1, scaling=scaling), SHAPE)
    quantizer.start_from(variables, np.float32(0.8))
    assert float(variables["step"]) == pytest.approx(value)
    assert variables["step"].trainable == learned
    assert quantizer.settle(variables, "k").scale == np.float32(value)


def test_grids_are_codebooks_of_signs_and_ternary():
    for bits, levels in LEVELS.items():
        quantizer, variables, _ = make(bits, axis=1)
        grid = quantizer.settle(variables, "k")
        assert grid.bits == bits and grid.level_count == len(levels)
        assert (grid.qmin, grid.qmax) == (-1, 1)
        again = MirrorWeightQuantizer.from_config(quantizer.get_config())
        assert again == quantizer


def test_kernels_of_more_bits_are_lsqs():
    quantizer = MIRROR_DESCENT.weights(KernelSpec(bits=8, axis=3), MirrorDescentOptions())
    assert type(quantizer) is LSQWeightQuantizer and quantizer.axis == 3
    with pytest.raises(ValueError, match=r"kernels of 1 and 2 bits, got 3"):
        MirrorWeightQuantizer(3)


def test_a_closed_form_has_no_third_level():
    options = MirrorDescentOptions(stable=False)
    problem = MIRROR_DESCENT.kernel_problem
    assert "draws nothing to a level between" in problem(KernelSpec(bits=2), options)
    assert problem(KernelSpec(bits=1), options) is None
    soft = MirrorDescentOptions(stable=False, form="softmax")
    assert problem(KernelSpec(bits=2), soft) is None


@pytest.mark.parametrize("options, match", [
    ({"form": "sine"}, "form must be 'tanh' or 'softmax', got 'sine'"),
    ({"scaling": "two"}, "scaling must be 'learned' or 'fixed' or 'one'"),
    ({"first_beta": 0.0}, "betas must be positive"),
    ({"first_beta": 3.0, "last_beta": 2.0}, "the last not below the first"),
    ({"last_beta": np.inf}, "betas must be"),
    ({"hard_from": 1.5}, "hard_from must be from 0 to 1, got 1.5"),
    ({"hard_from": np.nan}, "hard_from must be"),
])  # fmt: skip
def test_options_out_of_range(options, match):
    with pytest.raises(ValueError, match=match):
        MirrorDescentOptions(**options)
