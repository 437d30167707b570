"""ALQ against its twin, and what its steps must keep."""

import functools
import itertools

import numpy as np
import pytest
import reference
import tensorflow as tf
import tf_keras as keras
from built_quantizers import built
from hypothesis import given
from hypothesis import strategies as st

import tfbinreg
from tfbinreg.core.grid import Grid
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.methods import alq_functions as functions
from tfbinreg.methods import roster
from tfbinreg.methods.alq import AlqOptions, phase, pruned_by
from tfbinreg.methods.alq_quantizers import (
    BASES,
    COORDINATES,
    STRAIGHT_THROUGH,
    ALQWeightQuantizer,
)
from tfbinreg.methods.alq_sketch import importance, least_important, sketch
from tfbinreg.methods.contract import KernelSpec, KernelStep
from tfbinreg.methods.lsq_quantizers import LSQWeightQuantizer

COORDINATE_LISTS = st.lists(st.floats(2.0**-10, 10.0, width=32), min_size=1, max_size=7)


def drawn(seed=0, groups=4, weights=60, count=2):
    """(targets, curvature, coordinates), float32."""
    random = np.random.default_rng(seed)
    targets = random.normal(size=(groups, weights)).astype(np.float32)
    curvature = random.uniform(0.1, 2.0, (groups, weights)).astype(np.float32)
    return targets, curvature, sketch(targets, count).astype(np.float32)


def model_value(rows, targets, curvature):
    return np.sum(np.float64(curvature) * (np.float64(targets) - rows) ** 2, axis=1)


def sums_of(coordinates):
    """All sums of one group's coordinates with signs, ascending."""
    signs = [np.array(own) * 2.0 - 1.0 for own in np.ndindex(*(2,) * len(coordinates))]
    return np.sort([float(own @ coordinates) for own in signs])


class TestSketch:
    @pytest.mark.parametrize("weights", [5, 9, 300])
    def test_what_is_missing_falls_with_each_basis(self, weights):
        rows = np.random.default_rng(0).normal(size=(6, weights))
        errors = []
        for count in range(1, 8):
            found = sketch(rows, count)
            assert found.shape == (6, count) and np.all(found >= 0.0)
            levels = np.array([sums_of(own) for own in found])
            errors.append(np.min((rows[:, :, None] - levels[:, None]) ** 2, axis=2).sum())
        assert all(after <= before for before, after in itertools.pairwise(errors))
        assert errors[3] < 0.03 * np.sum(rows**2)

    def test_one_basis_is_the_mean_size(self):
        rows = np.array([[1.0, -2.0, 3.0]])
        assert sketch(rows, 1) == pytest.approx(np.array([[2.0]]))

    def test_groups_that_are_matched_need_no_more(self):
        rows = np.array([[2.0, -2.0, 2.0], [0.0, 0.0, 0.0], [3.0, -1.0, 1.0]])
        found = sketch(rows, 3)
        np.testing.assert_allclose(found, [[2, 0, 0], [0, 0, 0], [2, 1, 0]], atol=1e-9)


class TestSnapping:
    @given(COORDINATE_LISTS)
    def test_levels_move_by_no_more_than_the_bound(self, own):
        scale, multiples = functions.snapped(tf.constant([own], tf.float32))
        assert multiples.numpy().sum() == 127.0 and np.all(multiples.numpy() >= 0.0)
        snapped = multiples.numpy()[0] * scale.numpy()[0]
        moved = np.abs(sums_of(np.float64(own)) - np.sort(sums_of(np.float64(snapped))))
        assert np.all(moved <= len(own) * scale.numpy()[0] / 2.0 * 1.001)

    def test_a_pruned_group_takes_the_largest_scale(self):
        scale, multiples = functions.snapped(tf.constant([[0.0, 0.0], [2.0, 1.0], [1.0, 0.0]]))
        np.testing.assert_allclose(scale, np.float32([3.0, 3.0, 1.0]) / 127.0)
        assert multiples.numpy().tolist() == [[0, 0], [85, 42], [127, 0]]
        assert functions.snapped(tf.zeros((1, 2)))[0].numpy() == [1.0]

    def test_a_coordinate_twice_as_large_gives_the_odd_grid(self):
        levels = functions.levels_of(tf.constant([[0.25, 0.5]])).values
        np.testing.assert_array_equal(levels, np.float32([[-3, -1, 1, 3]]) * 0.25)
        levels = functions.levels_of(tf.constant([[1.0, 4.0, 2.0]])).values
        np.testing.assert_array_equal(levels, [np.arange(-7, 8, 2)])


class TestQuantize:
    def test_values_are_the_nearest_levels_and_gradients_the_signs(self):
        rows = np.float32([[-0.9, -0.11, 0.0, 0.2, 5.0], [0.3, -0.3, 0.0, 1.0, -1.0]])
        own = np.float32([[0.75, 0.25], [0.5, 0.0]])
        upstream = np.float32([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
        with tf.GradientTape() as tape:
            values, coordinates = tf.constant(rows), tf.constant(own)
            tape.watch([values, coordinates])
            quantized = functions.alq_quantize(values, coordinates)
        to_values, to_own = tape.gradient(quantized, [values, coordinates], upstream)
        np.testing.assert_array_equal(to_values, upstream)
        # Snapped to 95, 32 and 127, 0 of a 127th of the sums.
        np.testing.assert_allclose(
            quantized,
            [np.float64([-127, -63, 63, 63, 127]) / 127, [0.5, -0.5, 0.5, 0.5, -0.5]],
            rtol=1e-6,
        )
        signs = np.float32([[[-1, -1], [-1, 1], [1, -1], [1, -1], [1, 1]]])
        np.testing.assert_allclose(to_own[0], signs[0].T @ upstream[0])
        np.testing.assert_allclose(to_own[1], [6 - 7 + 8 + 9 - 10, 0.0])

    @pytest.mark.parametrize("count", [1, 2, 3, 7])
    def test_codes_are_those_of_the_settled_grid(self, count):
        rows, _, own = drawn(1, 5, 200, count)
        quantizer, variables = built(ALQWeightQuantizer(count, 1), (200, 5))
        quantizer.initialize(variables, rows.T)
        np.testing.assert_allclose(variables["coordinates"], own, rtol=1e-5)
        grid = quantizer.settle(variables, "head")
        assert grid.bits <= count and grid.level_count <= 2**count
        quantized = quantizer(tf.constant(rows.T), True, variables)
        codes = quantizer.codes(rows.T, variables)
        np.testing.assert_array_equal(codes, grid.codes(rows.T))
        np.testing.assert_array_equal(codes, quantizer.grid_now(variables).codes(rows.T))
        np.testing.assert_array_equal(quantized, grid.values(codes))

    @pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
    def test_any_axis_has_the_channels(self, axis):
        kernel = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
        quantizer, variables = built(ALQWeightQuantizer(2, axis), kernel.shape)
        quantizer.initialize(variables, kernel)
        codes = np.moveaxis(quantizer.codes(kernel, variables), axis, 0)
        for channel, row in enumerate(np.moveaxis(kernel, axis, 0)):
            own, alone = built(ALQWeightQuantizer(2, 0), (1, row.size))
            own.initialize(alone, row.reshape(1, -1))
            np.testing.assert_array_equal(
                own.codes(row.reshape(1, -1), alone)[0], codes[channel].ravel()
            )


class TestSteps:
    @pytest.mark.parametrize("count", [1, 2, 3])
    @pytest.mark.parametrize("seed", range(3))
    def test_a_step_on_the_bases_is_the_twins(self, count, seed):
        targets, curvature, own = drawn(seed, count=count)
        coordinates, rows = functions.step_bases(*map(tf.constant, (targets, curvature, own)))
        for group in range(len(targets)):
            twin, bases = reference.alq_coordinates(
                *(np.float64(part[group]) for part in (targets, curvature, own))
            )
            # It holds on to the coordinates there were by a ten-thousandth.
            np.testing.assert_allclose(coordinates[group], twin, rtol=2e-3)
            np.testing.assert_allclose(rows[group], bases @ twin, rtol=2e-3, atol=2e-3)

    @pytest.mark.parametrize("count", [1, 2, 4])
    def test_no_half_of_it_raises_the_model(self, count):
        for seed in range(20):
            targets, curvature, own = drawn(seed, weights=9, count=count)
            start = functions.signs_of(tf.constant(targets[:, ::-1].copy()), tf.constant(own))
            before = model_value(functions.sums(own, start), targets, curvature)
            signs = functions.signs_of(tf.constant(targets), tf.constant(own))
            assigned = model_value(functions.sums(own, signs), targets, curvature)
            _, rows = functions.step_bases(*map(tf.constant, (targets, curvature, own)))
            solved = model_value(rows, targets, curvature)
            assert np.all(assigned <= before * 1.00001) and np.all(solved <= assigned * 1.00001)

    def test_a_negative_solution_turns_its_basis_round(self):
        # Both weights are nearest to +a1 -a2, but lie where a2 has the other sign.
        targets, own = np.float32([[3.0, 3.2, -3.0]]), np.float32([[1.0, 0.99]])
        signs = tf.constant([[2, 2, 1]])  # +-, +-, -+
        found = functions.solved(*map(tf.constant, (targets, np.ones_like(targets), own)), signs)
        assert found.numpy().min() < 0.0
        coordinates = functions.absorbed(found, tf.constant(own) != 0.0).numpy()
        rows = functions.sums(found, signs).numpy()
        assert np.all(coordinates > 0.0)
        # The weights are sums of the positive coordinates with other signs.
        again = functions.signs_of(tf.constant(rows), tf.constant(coordinates))
        table = functions.sign_table(2)[again.numpy()[0]]
        assert set(np.unique(table)) == {-1.0, 1.0}
        np.testing.assert_allclose(table @ coordinates[0], rows[0], rtol=1e-6)
        assert np.any(table != functions.sign_table(2)[signs.numpy()[0]])

    def test_pruned_coordinates_and_groups_without_curvature_stay(self):
        targets, curvature, own = drawn(count=3)
        own[0, 1], own[1] = 0.0, 0.0
        curvature[2] = 0.0
        coordinates, rows = functions.step_bases(*map(tf.constant, (targets, curvature, own)))
        assert coordinates[0, 1] == 0.0 and np.all(coordinates[0, ::2] > 0.0)
        assert not np.any(coordinates[1]) and not np.any(rows[1])
        np.testing.assert_array_equal(coordinates[2], own[2])

    def test_bases_that_are_the_same_do_not_make_coordinates_huge(self):
        targets = np.float32([[1.0, 1.1, -1.0, -0.9]])
        own = np.float32([[0.5, 0.4]])
        coordinates, _ = functions.step_bases(
            *map(tf.constant, (targets, np.ones_like(targets), own))
        )
        assert np.all(coordinates < 1.0) and np.sum(coordinates) == pytest.approx(1.0, rel=1e-3)

    def test_an_optimizers_step_moves_the_weights_with_their_signs(self):
        own, moved = np.float32([[0.5, 0.2, 0.0]]), np.float32([[0.6, -0.1, 0.3]])
        before = np.float32([[0.7, 0.3, -0.3, -0.7]])
        coordinates, rows = functions.step_coordinates(*map(tf.constant, (before, moved, own)))
        np.testing.assert_allclose(coordinates, [[0.6, 0.1, 0.0]], rtol=1e-6)
        np.testing.assert_allclose(rows, [[0.5, 0.7, -0.7, -0.5]], rtol=1e-6)


class TestAfterAStep:
    def step(self, variables, factor=1.0, curvature=None):
        random = np.random.default_rng(3)
        before = tf.constant(random.normal(size=(3, 3, 2, 4)), tf.float32)
        return KernelStep(
            name="conv", before=before, kernel=before + 0.1, factor=factor,
            codes_before=before, grid=None, rate=tf.constant(0.1), progress=tf.constant(0.0),
            variables=variables,
            curvature=lambda: tf.ones_like(before) if curvature is None else curvature,
        )  # fmt: skip

    def quantizer(self, step, **options):
        quantizer, variables = built(ALQWeightQuantizer(2, 3, **options), (3, 3, 2, 4))
        quantizer.initialize(variables, (step.before * step.factor).numpy())
        return quantizer, variables

    @pytest.mark.parametrize("phase", [BASES, COORDINATES, STRAIGHT_THROUGH])
    def test_the_kernel_is_sums_unless_it_passes_straight_through(self, phase):
        quantizer, variables = self.quantizer(self.step({}))
        quantizer.begin(variables, phase)
        start = variables["coordinates"].numpy()
        variables["coordinates"].assign(start * 1.5)
        step = self.step(variables)
        kernel = quantizer.after_step(step).numpy()
        own = variables["coordinates"].numpy()
        np.testing.assert_array_equal(own, variables["last"])
        assert np.any(own != start)
        levels = np.array([sums_of(each) for each in own])
        rows = np.moveaxis(kernel, -1, 0).reshape(4, -1)
        off = np.min(np.abs(rows[:, :, None] - levels[:, None]), axis=2)
        if phase == STRAIGHT_THROUGH:
            np.testing.assert_array_equal(kernel, step.kernel)
        else:
            assert np.max(off) < 1e-6
        if phase == COORDINATES:
            np.testing.assert_allclose(own, start * 1.5)

    def test_what_a_kernel_is_multiplied_by_changes_nothing_but_the_units(self):
        factor = tf.constant([2.0, -0.5, 1.0, 0.0])
        plain, folded = self.step({}), self.step({}, factor)
        one, own = self.quantizer(plain, prunes=True)
        other, others = self.quantizer(folded, prunes=True)
        kernel = one.after_step(self.step(own)).numpy()
        turned = other.after_step(self.step(others, factor)).numpy()
        np.testing.assert_allclose(turned[..., :3], kernel[..., :3], rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(turned[..., 3], plain.kernel[..., 3])
        size = np.abs(factor[:3].numpy())[:, None]
        np.testing.assert_allclose(
            others["coordinates"][:3], own["coordinates"][:3] * size, rtol=1e-3
        )
        worth, turned = (
            importance(*(v[name].numpy() for name in ("coordinates", "pull", "stiffness")))
            for v in (own, others)
        )
        np.testing.assert_allclose(turned[:3], worth[:3], rtol=2e-3, atol=2e-3)

    def test_the_worth_of_a_coordinate_is_the_models(self):
        quantizer, variables = self.quantizer(self.step({}), prunes=True)
        before = variables["coordinates"].numpy()
        step = self.step(variables, curvature=2.0 * tf.ones((3, 3, 2, 4)))
        rows = tf.constant(np.moveaxis(step.before.numpy(), -1, 0).reshape(4, -1))
        signs = functions.sign_table(2)[functions.signs_of(rows, tf.constant(before)).numpy()]
        quantizer.after_step(step)
        # g / H = -0.1 with H = 2; the root of 18 squares of 2.
        np.testing.assert_allclose(
            variables["pull"], -0.2 * signs.sum(axis=1), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(variables["stiffness"], np.full(4, 2.0 * 18**0.5), rtol=1e-5)

    def test_an_optimizer_without_curvature_is_refused(self):
        quantizer, variables = self.quantizer(self.step({}))
        step = self.step(variables)
        object.__setattr__(step, "curvature", None)
        with pytest.raises(ValueError, match="'conv': ALQ needs the curvature"):
            quantizer.after_step(step)


class TestPruning:
    def test_importances_are_those_of_the_coordinates_that_are_left(self):
        worth = np.array([[5.0, -9.0, 1.0], [2.0, 0.5, 3.0]])
        left = np.array([[True, False, True], [True, False, True]])
        (mask,) = least_important([worth], [left], 2, 0.99)
        assert mask.tolist() == [[False, False, True], [True, False, False]]

    def test_the_least_of_all_layers_go_but_no_layer_loses_more_than_its_share(self):
        worth = [np.arange(8.0).reshape(4, 2), 4.5 + np.arange(4.0).reshape(2, 2)]
        left = [np.ones((4, 2), bool), np.ones((2, 2), bool)]
        masks = least_important(worth, left, 6, 0.75)
        assert [int(mask.sum()) for mask in masks] == [5, 1]
        masks = least_important(worth, left, 6, 0.5)
        assert [int(mask.sum()) for mask in masks] == [4, 2]
        assert sum(mask.sum() for mask in least_important(worth, left, 99, 0.5)) == 6
        assert not any(mask.any() for mask in least_important(worth, left, -1, 0.5))

    def test_rounds(self):
        options = AlqOptions(basis_epochs=2, coordinate_epochs=1, rounds=2, pruned=0.4)
        assert [phase(epoch, options) for epoch in range(7)] == [0, 0, 1, 0, 0, 1, 0]
        assert [pruned_by(epoch, options) for epoch in range(0, 10)] == [
            0, 0, 0, 0.2, 0, 0, 0.4, 0, 0, 0,
        ]  # fmt: skip
        options = AlqOptions(coordinate_epochs=0, rounds=1, straight_through=True)
        assert [phase(epoch, options) for epoch in range(4)] == [0, 0, 2, 2]


@functools.cache
def data():
    random = np.random.default_rng(0)
    return random.normal(size=(32, 6, 6, 2)).astype(np.float32), random.integers(0, 3, 32)


def make(optimizer=None, **options):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [
            layers.Input((6, 6, 2)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(3, name="head"),
        ]
    )
    recipe = tfbinreg.Recipe(
        weight_bits=3, method="alq", first_last_bits=None, options={"alq": options}
    )
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=data()[0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(0.01, amsgrad=True), loss)
    return model


def live(model):
    return [int(np.count_nonzero(site.variables["coordinates"])) for site in kernel_sites(model)]


class TestTraining:
    def test_the_ratio_is_reached_and_the_grid_has_fewer_levels(self):
        model = make(basis_epochs=1, coordinate_epochs=1, rounds=2, pruned=0.5)
        total = sum(live(model))
        assert total == 8 * 3 + 3 * 3
        model.fit(*data(), 16, epochs=3, verbose=0)
        assert sum(live(model)) == total - round(0.25 * total)
        model.fit(*data(), 16, epochs=5, initial_epoch=3, verbose=0)
        assert sum(live(model)) == total - round(0.5 * total)
        for site in kernel_sites(model):
            coordinates = np.count_nonzero(site.variables["coordinates"], axis=1)
            levels = [len(own) for own in site.grid().channel_levels]
            assert all(2**n >= own for n, own in zip(coordinates, levels, strict=True))
            assert min(coordinates) < 3

    def test_the_kernel_is_what_is_computed_with(self):
        model = make()
        model.fit(*data(), 16, epochs=3, verbose=0)  # the last of coordinates
        for site in kernel_sites(model):
            quantized = site.grid().values(site.codes())
            moved = np.abs(quantized - site.kernel.numpy())
            scale = site.grid().broadcast_scale(moved.ndim)
            assert np.all(moved <= 3 * scale / 2 * 1.001)

    def test_straight_through_weights_leave_their_levels(self):
        model = make(rounds=0, straight_through=True)
        model.fit(*data(), 16, epochs=1, verbose=0)
        site = kernel_sites(model)[0]
        assert np.max(np.abs(site.grid().values(site.codes()) - site.kernel.numpy())) > 0.01

    @pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, keras.optimizers.legacy.SGD])
    def test_optimizers_without_mean_squares_are_refused(self, optimizer):
        with pytest.raises(
            ValueError, match=r"^Method 'alq' of layer 'conv' needs .* SGD keeps none"
        ):
            make(optimizer(0.01)).fit(*data(), 16, verbose=0)

    def test_a_frozen_layer_keeps_its_kernel(self):
        model = make()
        (first, head) = kernel_sites(model)
        first.layer.trainable = False
        model.compile(keras.optimizers.Adam(0.01), model.loss)
        before = first.kernel.numpy(), head.kernel.numpy()
        model.fit(*data(), 16, verbose=0)
        np.testing.assert_array_equal(first.kernel, before[0])
        assert np.any(head.kernel.numpy() != before[1])


def test_eight_bits_are_lsqs():
    make_quantizer = roster.find("alq", "weights").weights
    spec = KernelSpec(bits=8, axis=None, channel_axis=3)
    assert isinstance(make_quantizer(spec, AlqOptions()), LSQWeightQuantizer)
    spec = KernelSpec(bits=4, axis=None, channel_axis=3)
    assert make_quantizer(spec, AlqOptions(pruned=0.1)) == ALQWeightQuantizer(4, 3, True)
    spec = KernelSpec(bits=4, channel_bits=(0, 4), axis=3)
    assert make_quantizer(spec, AlqOptions()) == ALQWeightQuantizer((0, 4), 3)
    with pytest.raises(ValueError, match="this kernel has no such axis"):
        make_quantizer(KernelSpec(bits=4), AlqOptions())


def test_coordinates_start_from_a_kernel_that_is_given_or_halve():
    kernel = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    _, variables = built(ALQWeightQuantizer(2, 1, start=tf.Variable(kernel)), kernel.shape)
    np.testing.assert_allclose(variables["coordinates"], sketch(kernel.T, 2), rtol=1e-6)
    np.testing.assert_array_equal(variables["last"], variables["coordinates"])
    _, variables = built(ALQWeightQuantizer(2, 1), kernel.shape)
    np.testing.assert_array_equal(variables["coordinates"], [[1.0, 0.5]] * 2)


def test_a_step_is_set_by_all_coordinates():
    kernel = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    quantizer, variables = built(ALQWeightQuantizer(2, 1), kernel.shape)
    quantizer.initialize(variables, kernel)
    before = variables["coordinates"].numpy()
    quantizer.start_from(variables, quantizer.scale(variables).numpy() * 3.0)
    np.testing.assert_allclose(variables["coordinates"], 3.0 * before, rtol=1e-6)


def test_the_grid_of_two_coordinates():
    quantizer, variables = built(ALQWeightQuantizer(2, 1), (5, 3))
    variables["coordinates"].assign([[3.0, 1.0], [0.0, 2.0], [0.0, 0.0]])
    grid = quantizer.settle(variables, "head")
    assert grid.channel_levels == ((-127, -63, 63, 127), (-127, 127), (0,))
    assert (grid.bits, grid.widths, grid.axis) == (2, (2, 1, 0), 1)
    assert isinstance(grid, Grid)
    variables["coordinates"].assign([[np.nan, 1.0]] * 3)
    with pytest.raises(ValueError, match="'head' is not finite"):
        quantizer.settle(variables, "head")


@pytest.mark.parametrize("kernel", [np.zeros((4, 2)), np.full((4, 2), np.nan)])
def test_weights_without_coordinates_are_refused(kernel):
    quantizer, variables = built(ALQWeightQuantizer(2, 1), (4, 2))
    with pytest.raises(ValueError, match="No coordinates can be derived"):
        quantizer.initialize(variables, kernel.astype(np.float32))


@pytest.mark.parametrize("bits", [0, 8, (2, 8)])
def test_impossible_bits_are_refused(bits):
    with pytest.raises(ValueError, match="Weight bits of alq are 1 to 7"):
        ALQWeightQuantizer(bits, 0)


def test_channels_have_as_many_coordinates_as_bits():
    kernel = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    quantizer, variables = built(ALQWeightQuantizer((0, 1, 3, 2), 1), kernel.shape)
    assert np.count_nonzero(variables["coordinates"], axis=1).tolist() == [0, 1, 3, 2]
    quantizer.initialize(variables, kernel)
    assert np.count_nonzero(variables["coordinates"], axis=1).tolist() == [0, 1, 3, 2]
    alone = sketch(kernel.T[3:], 2)
    np.testing.assert_allclose(variables["coordinates"][3:, :2], alone, rtol=1e-6)
    assert quantizer.settle(variables, "head").widths == (0, 1, 3, 2)
    with tf.GradientTape() as tape:
        values = tf.constant(kernel)
        tape.watch(values)
        quantized = quantizer(values, True, variables)
    gradient = tape.gradient(quantized, values).numpy()
    assert not np.any(quantized[:, 0]) and not np.any(gradient[:, 0])
    assert np.all(gradient[:, 1:] == 1.0)
    again = ALQWeightQuantizer.from_config(quantizer.get_config())
    assert again == quantizer and again.channel_bits == (0, 1, 3, 2)


def test_a_kernel_that_is_pruned_needs_no_weights():
    quantizer, variables = built(ALQWeightQuantizer((0, 0), 1), (30, 2))
    quantizer.initialize(variables, np.zeros((30, 2), np.float32))
    assert quantizer.settle(variables, "head").channel_levels == ((0,), (0,))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("basis_epochs", 0, "a whole number from 1"),
        ("coordinate_epochs", -1, "a whole number from 0"),
        ("rounds", 1.0, "a whole number from 0"),
        ("pruned", 1.0, "from 0 to below 1"),
        ("shortlist", -0.1, "from 0 to below 1"),
        ("straight_through", 1, "True or False"),
    ],
)
def test_impossible_options_are_refused(name, value, message):
    with pytest.raises(ValueError, match=f"{name} must be {message}"):
        AlqOptions(**{name: value})
