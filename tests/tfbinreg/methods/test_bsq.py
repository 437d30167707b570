"""BSQ: planes against their twin, trimming that changes no number, and bits that fall."""

import dataclasses
import itertools

import numpy as np
import pytest
import reference
import tensorflow as tf
import tf_keras as keras
from built_quantizers import built
from quick import slow

import tfbinreg
from tfbinreg.core.warning import QuantizationWarning
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.methods.bsq import BsqOptions, requantize_kernels
from tfbinreg.methods.bsq_quantizers import (
    BSQWeightQuantizer,
    exact_planes,
    plane_groups,
    plane_sum,
)
from tfbinreg.methods.contract import KernelBetweenEpochs, KernelStep

SHAPE = (3, 4)
POWERS = tf.constant([0.0, 1.0, 2.0, 4.0, 0.0])  # three live planes of five


def live(bits=6, axis=None, lowest=1, count=3, scale=1.5, fixed=0):
    """A quantizer and its variables, with some planes live."""
    quantizer, variables = built(BSQWeightQuantizer(bits, axis), SHAPE)
    variables["scale"].assign(tf.fill(variables["scale"].shape, scale))
    for name, number in {"lowest": lowest, "count": count, "fixed": fixed}.items():
        variables[name].assign(number)
    return quantizer, variables


def step_of(quantizer, variables, kernel, before=None):
    return KernelStep(
        name="kernel",
        before=kernel if before is None else before,
        kernel=kernel,
        factor=1.0,
        codes_before=tf.zeros_like(kernel),
        grid=quantizer.grid_now(variables),
        rate=tf.constant(0.1),
        progress=tf.constant(0.0),
        variables=variables,
    )


def kernel_of(quantizer, variables, latent, progress=0.0, name="kernel"):
    """As `fit` shows it, with a list of the restarts."""
    restarts = []
    kernel = KernelBetweenEpochs(
        name=name,
        quantizer=quantizer,
        variables=variables,
        kernel=tf.Variable(latent),
        latent=np.asarray(latent, np.float32),
        curvature=lambda: np.zeros(SHAPE),
        restart=lambda mean_squares=True: restarts.append(mean_squares),
        progress=progress,
    )
    return kernel, restarts


def planes_of(random, places=5, first=1, count=3):
    planes = np.zeros((2, places, *SHAPE), np.float32)
    planes[:, first : first + count] = random.uniform(0, 2, (2, count, *SHAPE))
    return planes


class TestPlanes:
    def test_every_code_has_exact_bits(self):
        codes = np.arange(-7, 8, dtype=np.float32)
        planes = exact_planes(tf.constant(codes), POWERS).numpy()
        assert set(np.unique(planes)) == {0.0, 1.0}
        assert not planes[:, [0, 4]].any() and not np.any(planes[0] * planes[1])
        np.testing.assert_array_equal(plane_sum(planes, POWERS), codes)
        np.testing.assert_array_equal(planes[0, 1:4, -1], [1, 1, 1])
        np.testing.assert_array_equal(planes[1, 1:4, 1], [0, 1, 1])  # of -6

    def test_value_and_gradients_are_the_twins(self):
        random = np.random.default_rng(0)
        planes = planes_of(random)
        # Sums on the outermost level, beyond it, half-way between two and at zero.
        planes[:, 1:4, 0, 0] = [[1, 1, 1], [0, 0, 0]]
        planes[:, 1:4, 0, 1] = [[0, 0, 0], [2, 2, 2]]
        planes[:, 1:4, 0, 2] = [[0.5, 1, 0], [0, 0, 0]]
        planes[:, 1:4, 0, 3] = [[1, 0, 1], [1, 0, 1]]
        quantizer, variables = live()
        upstream = random.normal(size=SHAPE).astype(np.float32)
        variables["planes"].assign(planes)
        kernel = quantizer.after_step(step_of(quantizer, variables, tf.zeros(SHAPE)))
        step = 1.5 * 2.0**-4
        with tf.GradientTape() as tape:
            values = quantizer(kernel, True, variables)
        learned = [variables["planes"], variables["scale"]]
        to_planes, to_scale = tape.gradient(values, learned, upstream)
        sums = 0.0
        for index in np.ndindex(SHAPE):
            p, n = (planes[(sign, slice(1, 4), *index)].tolist() for sign in (0, 1))
            value, *slopes, to_step = reference.bit_planes(p, n, step, float(upstream[index]))
            assert values.numpy()[index] == pytest.approx(value)
            for sign in (0, 1):
                np.testing.assert_allclose(
                    to_planes[(sign, slice(1, 4), *index)], slopes[sign], rtol=1e-6
                )
            sums += to_step
        assert not to_planes.numpy()[:, [0, 4]].any()
        assert float(to_scale) == pytest.approx(sums * 2.0**-4, rel=1e-5)

    def test_once_fixed_weights_train_as_lsq_has_it(self):
        quantizer, variables = live(fixed=1)
        step = 1.5 * 2.0**-4
        kernel = np.float32(np.random.default_rng(0).normal(size=SHAPE) * 4 * step)
        kernel[0] = np.float32([7, -7, 0.5, -9]) * np.float32(step)
        upstream = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
        expected = reference.lsq_tensor(kernel, np.float64(step), -7, 7)
        kernel = tf.Variable(kernel)
        with tf.GradientTape() as tape:
            values = quantizer(kernel, True, variables)
        of = [kernel, variables["scale"], variables["planes"]]
        to_kernel, to_scale, to_planes = tape.gradient(values, of, upstream)
        np.testing.assert_allclose(values, expected[0], rtol=1e-6)
        np.testing.assert_allclose(to_kernel, upstream * expected[1], rtol=1e-6)
        assert float(to_scale) == pytest.approx(np.sum(upstream * expected[2]) / 16, rel=1e-4)
        assert not to_planes.numpy().any()
        after = quantizer.after_step(step_of(quantizer, variables, kernel + 0.1))
        np.testing.assert_array_equal(after, kernel + 0.1)

    @pytest.mark.parametrize("axis", [0, -1])
    def test_channels_have_scales_of_their_own(self, axis):
        quantizer, variables = live(axis=axis)
        channels = SHAPE[axis]
        scales = np.float32(2.0 ** np.arange(channels))
        variables["scale"].assign(scales)
        planes = planes_of(np.random.default_rng(0))
        variables["planes"].assign(planes)
        kernel = quantizer.after_step(step_of(quantizer, variables, tf.zeros(SHAPE)))
        with tf.GradientTape() as tape:
            values = quantizer(kernel, True, variables)
        to_planes, to_scale = tape.gradient(values, [variables["planes"], variables["scale"]])
        for channel in range(channels):
            alone, own = live(scale=scales[channel])
            own["planes"].assign(planes)
            mirrored = alone.after_step(step_of(alone, own, tf.zeros(SHAPE)))
            with tf.GradientTape() as tape:
                part = tf.gather(alone(mirrored, True, own), channel, axis=axis)
            wanted = tape.gradient(part, [own["planes"], own["scale"]])
            np.testing.assert_allclose(np.take(values, channel, axis), part, rtol=1e-6)
            mine, whole = (np.take(t, channel, axis % 2 + 2) for t in (to_planes, wanted[0]))
            np.testing.assert_allclose(mine, whole, rtol=1e-6)
            assert float(to_scale[channel]) == pytest.approx(float(wanted[1]), rel=1e-5)

    def test_planes_are_clamped_and_the_kernel_mirrors_them(self):
        quantizer, variables = live()
        planes = planes_of(np.random.default_rng(0))
        planes[:, 1, 0] += [[-3.0], [3.0]]
        variables["planes"].assign(planes)
        kernel = quantizer.after_step(step_of(quantizer, variables, tf.zeros(SHAPE)))
        clamped = np.clip(planes, 0.0, 2.0)
        np.testing.assert_array_equal(variables["planes"], clamped)
        sums = np.tensordot(np.float64(POWERS), np.float64(clamped[0] - clamped[1]), 1)
        np.testing.assert_allclose(kernel, sums * 1.5 / 16, rtol=1e-5)

    def test_a_negative_scale_acts_by_its_size_and_is_shown_so(self):
        quantizer, variables = live(scale=-1.5)
        grid = quantizer.settle(variables, "kernel")
        assert float(grid.scale) == 1.5 / 16
        quantizer.show_as_used(variables)
        assert float(variables["scale"]) == 1.5


class TestPenalty:
    def model(self, **options):
        model = small_model(**options)
        random = np.random.default_rng(0)
        for site in kernel_sites(model):
            if site.method == "bsq":
                planes = site.variables["planes"]
                planes.assign(random.uniform(0, 2, planes.shape))
        return model

    def test_value_and_gradients_are_the_twins(self):
        model = self.model(rules=(tfbinreg.Rule(layer="head", method="lsq"),))
        first, middle, _ = kernel_sites(model)
        middle.variables["count"].assign(2)
        middle.variables["planes"].assign(
            middle.variables["planes"] * np.float32([1, 1, 0]).reshape(1, 3, 1, 1)
        )
        total = first.size + middle.size
        with tf.GradientTape() as tape:
            loss = model.losses[0]
        planes = [site.variables["planes"] for site in (first, middle)]
        gradients, value = tape.gradient(loss, planes), 0.0
        for own, gradient, count in zip(planes, gradients, (7, 2), strict=True):
            one, *slopes = reference.bit_lasso(*own.numpy(), count, total)
            value += one
            np.testing.assert_allclose(gradient, 0.25 * np.stack(slopes), rtol=1e-4, atol=1e-9)
        assert float(model.penalty("bsq")) == pytest.approx(value, rel=1e-5)
        assert float(loss) == pytest.approx(0.25 * value, rel=1e-5)

    def test_it_is_zero_at_zero_only(self):
        planes = np.zeros((2, 5, *SHAPE), np.float32)
        assert float(plane_groups(tf.constant(planes))) == 0.0
        planes[1, 2, 0, 0] = 0.01
        with tf.GradientTape() as tape:
            given = tf.constant(planes)
            tape.watch(given)
            value = plane_groups(given)
        assert float(value) > 0.0
        gradient = tape.gradient(value, given).numpy()
        assert np.all(np.isfinite(gradient)) and np.count_nonzero(gradient) == 1


class TestRequantization:
    @pytest.mark.parametrize(
        ("codes", "lowest", "count"),
        [
            ([1, -5, 7, 0], 1, 3),
            ([1, -3, 0, 0], 1, 2),  # the top plane is empty
            ([2, -6, 4, 0], 2, 2),  # the bottom one
            ([4, -4, 0, 0], 3, 1),  # both
        ],
    )
    def test_trimming_changes_no_weight(self, codes, lowest, count):
        quantizer, variables = live()
        step = quantizer.settle(variables, "kernel").scale
        latent = np.zeros(SHAPE, np.float32)
        latent[0] = np.float32(codes) * step
        # Off the levels by less than half a step: what is quantized is on them.
        latent += np.random.default_rng(0).uniform(-0.4, 0.4, SHAPE).astype(np.float32) * step
        latent[latent > 7 * step] = 7 * step
        before = quantizer(tf.constant(latent), False, variables).numpy()
        weights = quantizer.requantize(variables, latent, False)
        np.testing.assert_array_equal(weights, before)
        np.testing.assert_array_equal(quantizer(tf.constant(weights), False, variables), before)
        np.testing.assert_array_equal(
            quantizer.after_step(step_of(quantizer, variables, tf.zeros(SHAPE))), before
        )
        assert (int(variables["lowest"]), int(variables["count"])) == (lowest, count)
        grid = quantizer.settle(variables, "kernel")
        assert (grid.bits, grid.qmin, grid.qmax) == (count + 1, 1 - 2**count, 2**count - 1)
        assert float(variables["scale"]) == 1.5

    def test_what_has_outgrown_its_planes_gets_one_more_until_there_are_none(self):
        for lowest, count, most in [(1, 3, 14), (1, 4, 30), (0, 5, 31), (2, 3, 14)]:
            quantizer, variables = live(lowest=lowest, count=count)
            planes = planes_of(np.random.default_rng(0), first=lowest, count=count)
            planes[:, lowest : lowest + count, 0, 0] = [[2.0] * count, [0.0] * count]
            variables["planes"].assign(planes)
            kernel = quantizer.after_step(step_of(quantizer, variables, tf.zeros(SHAPE)))
            scale = quantizer.settle(variables, "kernel").scale
            weights = quantizer.requantize(variables, kernel.numpy(), False)
            sizes = np.abs(weights / scale)
            assert sizes.max() == most and quantizer.settle(variables, "kernel").bits <= 6
            np.testing.assert_array_equal(
                quantizer(tf.constant(weights), False, variables), weights
            )
            assert int(variables["lowest"]) + int(variables["count"]) <= 5

    def test_no_number_changes_when_the_planes_move_down(self):
        # An odd code beyond the top place, where a bottom place is free.
        quantizer, variables = live(lowest=2, count=3)
        step = quantizer.settle(variables, "kernel").scale
        latent = np.full(SHAPE, 9, np.float32) * step
        weights = quantizer.requantize(variables, latent, False)
        np.testing.assert_array_equal(weights, latent)
        assert (int(variables["lowest"]), int(variables["count"])) == (1, 4)
        assert float(variables["scale"]) == 3.0
        np.testing.assert_array_equal(quantizer(tf.constant(weights), False, variables), latent)

    def test_the_last_plane_stays_and_is_warned_of(self):
        quantizer, variables = live()
        kernel, restarts = kernel_of(quantizer, variables, np.full(SHAPE, 1e-3, np.float32))
        with pytest.warns(QuantizationWarning, match=r"Every weight of kernel is 0 at the bits"):
            requantize_kernels([kernel], 0, BsqOptions())
        assert restarts == [False] and not kernel.kernel.numpy().any()
        grid = quantizer.settle(variables, "kernel")
        assert (grid.bits, grid.qmin, grid.qmax) == (2, -1, 1)

    def test_it_happens_every_so_many_epochs_and_when_the_planes_become_fixed(self):
        random, done = np.random.default_rng(0), []
        quantizer, variables = live(lowest=0, count=5)
        for epoch in range(10):
            latent = random.normal(size=SHAPE).astype(np.float32)
            kernel, restarts = kernel_of(quantizer, variables, latent, epoch / 10)
            requantize_kernels([kernel], epoch, BsqOptions(every=3, planes_until=0.7))
            done += [epoch] * len(restarts)
            assert int(variables["fixed"]) == (epoch >= 7)
            assert variables["planes"].numpy().any() == (epoch < 7)
        assert done == [0, 3, 6, 7]

    @pytest.mark.parametrize("start", ["mse", "range"])
    @pytest.mark.parametrize(("bits", "axis"), [(2, None), (3, 1), (8, None), (8, 1)])
    def test_planes_start_as_the_bits_of_the_kernel(self, start, bits, axis):
        kernel = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
        quantizer, variables = built(BSQWeightQuantizer(bits, axis), SHAPE)
        quantizer.initialize(variables, kernel, start)
        grid = quantizer.settle(variables, "kernel")
        assert (grid.bits, grid.qmax) == (bits, 2 ** (bits - 1) - 1)
        planes = variables["planes"].numpy()
        assert set(np.unique(planes)) <= {0.0, 1.0}
        sums = np.tensordot(2.0 ** np.arange(bits - 1), planes[0] - planes[1], 1)
        np.testing.assert_array_equal(sums, grid.codes(kernel))
        if start == "range" and axis is None:
            assert np.abs(sums).max() == grid.qmax

    @pytest.mark.parametrize("axis", [None, 1])
    def test_a_start_that_tfmot_does_not_tell(self, axis):
        kernel = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
        quantizer, variables = built(BSQWeightQuantizer(8, axis, tf.Variable(kernel)), SHAPE)
        grid = quantizer.settle(variables, "kernel")
        np.testing.assert_allclose(
            grid.scale, np.abs(kernel).max(axis=None if axis is None else 0) / 127, rtol=1e-6
        )
        mirrored = quantizer.after_step(step_of(quantizer, variables, tf.constant(kernel)))
        np.testing.assert_array_equal(mirrored, grid.values(grid.codes(kernel)))

    def test_zeros_cannot_start(self):
        quantizer, variables = built(BSQWeightQuantizer(4), SHAPE)
        with pytest.raises(ValueError, match="No step can be derived"):
            quantizer.initialize(variables, np.zeros(SHAPE, np.float32))


def data():
    random = np.random.default_rng(0)
    return random.normal(size=(64, 4)).astype(np.float32), random.integers(0, 3, 64)


def small_model(optimizer=None, bits=4, **options):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(6, "relu", name="first"),
            layers.Dense(5, "relu", name="middle"),
            layers.Dense(3, name="head"),
        ]
    )
    own = {"strength": 0.25, **options.pop("own", {})}
    recipe = tfbinreg.Recipe(method="bsq", weight_bits=bits, options={"bsq": own}, **options)
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=data()[0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(0.02), loss, ["accuracy"])
    return model


def fit(model, epochs, **options):
    return model.fit(*data(), 8, epochs=epochs, shuffle=False, verbose=0, **options).history


class TestTraining:
    @pytest.mark.slow
    def test_bits_fall_with_the_strength_and_the_file_holds_them(self):
        found = {}
        for strength in (0.0, 1.0):
            model = small_model(bits=8, own={"strength": strength, "every": 4})
            history = fit(model, 16, callbacks=[tfbinreg.QuantizerLog()])
            found[strength] = history["weight_bits"]
            planes = np.subtract(history["weight_bits"], 1.0)  # without the sign
            np.testing.assert_allclose(history["planes"], planes)
        assert found[0.0][-1] > found[1.0][-1]
        assert all(a >= b for a, b in itertools.pairwise(found[1.0][4:]))
        bits = [site.grid().bits for site in kernel_sites(model)]
        sizes = [site.size for site in kernel_sites(model)]
        assert history["weight_bits"][-1] == pytest.approx(np.average(bits, weights=sizes))
        frozen = tfbinreg.integer_codes(model)
        assert [frozen[site.name].bits for site in kernel_sites(model)] == bits
        # No range is one of the batch: what is evaluated alone is what is evaluated together.
        inputs, _ = data()
        alone = [model(inputs[i : i + 1]) for i in range(len(inputs))]
        np.testing.assert_array_equal(np.concatenate(alone), model(inputs))

    @pytest.mark.slow
    def test_the_kernel_mirrors_the_planes_until_they_are_fixed(self):
        model = small_model()
        fit(model, 1, initial_epoch=0)
        for site in kernel_sites(model):
            quantizer, variables = site.quantizer, site.variables
            np.testing.assert_array_equal(
                quantizer.after_step(step_of(quantizer, variables, site.kernel)), site.kernel
            )
            assert np.any(np.mod(variables["planes"].numpy(), 1.0) != 0.0)
        fit(model, 4, initial_epoch=2)
        for site in kernel_sites(model):
            assert int(site.variables["fixed"]) == 1 and not site.variables["planes"].numpy().any()
        assert float(model.penalty("bsq")) == 0.0
        before = [site.grid().bits for site in kernel_sites(model)]
        fit(model, 2)  # a training of its own goes on with the bits that were found
        assert [site.grid().bits for site in kernel_sites(model)] == before

    @pytest.mark.parametrize("optimizer", ["adam", *slow("legacy", "sgd")])
    @pytest.mark.slow
    def test_momenta_restart_and_what_adam_divides_by_stays(self, optimizer):
        optimizers = keras.optimizers
        make = {
            "adam": lambda: optimizers.Adam(0.01),
            "legacy": lambda: optimizers.legacy.Adam(0.01),
            "sgd": lambda: optimizers.SGD(0.01, momentum=0.9),
        }[optimizer]
        model = small_model(own={"planes_until": 1.0})
        kernel_sites(model)[-1].layer.trainable = False  # no averages are kept of it
        model.compile(make(), model.loss)

        def averages():
            own = model.optimizer
            if optimizer == "legacy":
                return [own.get_slot(planes, name).numpy() for name in ("m", "v")]
            return [v.numpy() for v in own.variables if v.name.endswith(f"/{planes.name}")]

        fit(model, 2)
        planes = kernel_sites(model)[0].variables["planes"]
        momentum, *squares = averages()
        assert momentum.any() and len(squares) == (optimizer != "sgd")
        seen = []
        look = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: seen.append(averages())
        )
        model.fit(*data(), 64, epochs=1, verbose=0, callbacks=[look])
        after, *others = seen[0]
        assert not after.any()
        for before, now in zip(squares, others, strict=True):
            np.testing.assert_array_equal(now, before)

    @pytest.mark.parametrize("stopped", [2, *slow(5)])
    @pytest.mark.slow
    def test_training_resumes_as_if_it_had_not_stopped(self, stopped, tmp_path):
        whole, begun = (small_model(own={"every": 3}) for _ in range(2))
        fit(whole, 7)
        begun.fit(*data(), 8, epochs=7, shuffle=False, verbose=0, callbacks=[StopAfter(stopped)])
        with pytest.warns(QuantizationWarning, match="without having been finalized"):
            begun.save(tmp_path / "q.keras")
        again = tfbinreg.load_model(tmp_path / "q.keras")
        fit(again, 7, initial_epoch=stopped)
        for mine, yours in zip(whole.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, yours)


class StopAfter(keras.callbacks.Callback):
    def __init__(self, epochs):
        super().__init__()
        self._epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self._epochs:
            self.model.stop_training = True


class TestRefusals:
    def test_options_out_of_range(self):
        for name, value in {"strength": -0.1, "every": 0, "planes_until": 1.1}.items():
            with pytest.raises(ValueError, match=name):
                BsqOptions(**{name: value})
        with pytest.raises(ValueError, match="every"):
            dataclasses.replace(BsqOptions(), every=1.0)

    def test_folded_kernels_by_name(self):
        with pytest.raises(
            ValueError, match=r"(?s)first.*bsq cannot train kernels with normalizations"
        ):
            small_model(fold_batch_norm=True)
        other = tuple(
            tfbinreg.Rule(layer=name, method="lsq") for name in ("first", "middle", "head")
        )
        assert kernel_sites(small_model(fold_batch_norm=True, rules=other))

    def test_weights_that_are_not_finite(self):
        latent = np.full(SHAPE, np.nan, np.float32)
        kernels = [kernel_of(*live(), latent, name=name)[0] for name in ("first", "head")]
        with pytest.raises(ValueError, match="kernels of first, head have NaN"):
            requantize_kernels(kernels, 0, BsqOptions())

    def test_a_scale_that_is_not_finite(self):
        quantizer, variables = live(scale=np.nan)
        with pytest.raises(ValueError, match="The step of 'head' is not finite"):
            quantizer.settle(variables, "head")
