"""GDRQ against its twin and against what is known of its thresholds."""

import numpy as np
import pytest
import reference
import tensorflow as tf
import tf_keras as keras
from built_quantizers import batch, built, step

import tfbinreg
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.methods.contract import GridTensors, KernelStep
from tfbinreg.methods.gdrq import GdrqOptions
from tfbinreg.methods.gdrq_quantizers import (
    GDRQActivationQuantizer,
    GDRQWeightQuantizer,
    least_loss_threshold,
)


def kurtosis(values):
    centred = values - np.mean(values)
    return np.mean(centred**4) / np.mean(centred**2) ** 2


def sample(kind, count=20_000):
    random = np.random.default_rng(0)
    draw = {
        "gauss": random.normal,
        "laplace": random.laplace,
        "uniform": lambda size: random.uniform(-1, 1, size),
    }
    return draw[kind](size=count).astype(np.float32)


def run(quantizer, kernel):
    """(values, gradient for an upstream of ones, variables) of one training pass."""
    quantizer, variables = built(quantizer, kernel.shape)
    with tf.GradientTape() as tape:
        kernel = tf.constant(kernel)
        tape.watch(kernel)
        values = quantizer(kernel, True, variables)
    return values.numpy(), tape.gradient(values, kernel).numpy(), variables


class TestWeights:
    @pytest.mark.parametrize("bits", [2, 4])
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("k", [0.7, 2.0])
    def test_value_and_gradient_are_the_twins(self, bits, masked, k):
        # Dyadic numbers with a mean|w| of 0.5: the steps are exact, halves and thresholds met.
        kernel = np.float32([-1.5, -1.0, -0.75, -0.25, 0.0, 0.25, 0.5, 0.0, 0.5, 0.25])
        threshold, values, slopes = reference.gdrq(kernel, k, bits, masked)
        ours, gradient, variables = run(GDRQWeightQuantizer(bits, k=k, masked=masked), kernel)
        np.testing.assert_allclose(ours, values, rtol=1e-6)
        np.testing.assert_array_equal(gradient, slopes)
        assert step(variables) == pytest.approx(threshold / 2 ** (bits - 1))

    @pytest.mark.parametrize("axis", [0, 1, -1])
    @pytest.mark.parametrize("by", ["groups", "group_size"])
    def test_each_group_is_quantized_as_if_alone(self, axis, by):
        kernel = batch(0, (4, 6)).numpy() * np.float32([1, 1, 5, 5, 0.1, 0.1])
        groups = kernel.shape[axis] // 2
        number = {"groups": groups, "group_size": 2}[by]
        ours, _, variables = run(GDRQWeightQuantizer(3, axis, **{by: number}), kernel)
        parts = [run(GDRQWeightQuantizer(3), part) for part in np.split(kernel, groups, axis)]
        np.testing.assert_allclose(ours, np.concatenate([p[0] for p in parts], axis), rtol=1e-6)
        steps = np.repeat([step(p[2]) for p in parts], 2)
        np.testing.assert_allclose(step(variables), steps, rtol=1e-6)

    def test_as_many_groups_as_channels_are_steps_per_channel(self):
        kernel = batch(0, (3, 3, 2, 4)).numpy()
        grouped, channels = (
            run(GDRQWeightQuantizer(2, 3, **own), kernel) for own in ({"groups": 4}, {})
        )
        np.testing.assert_array_equal(grouped[0], channels[0])
        single, tensor = (
            run(GDRQWeightQuantizer(2, axis, groups=own), kernel)
            for axis, own in ((3, 1), (None, None))
        )
        np.testing.assert_allclose(single[0], tensor[0], rtol=1e-6)
        with pytest.raises(ValueError, match="divided by groups=3 of gdrq"):
            run(GDRQWeightQuantizer(2, 3, groups=3), kernel)

    def test_inference_and_the_grid_are_those_of_the_last_pass(self):
        quantizer, variables = built(GDRQWeightQuantizer(3), (50,))
        kernel = batch(0, (50,))
        quantizer.initialize(variables, kernel.numpy())
        first = quantizer(kernel, True, variables)
        now = quantizer.settle(variables, "k")
        np.testing.assert_array_equal(quantizer(kernel, False, variables), first)
        np.testing.assert_array_equal(now.values(quantizer.codes(kernel, variables)), first)
        quantizer(2 * kernel, False, variables)
        assert quantizer.settle(variables, "k").scale == now.scale
        quantizer(2 * kernel, True, variables)
        assert quantizer.settle(variables, "k").scale == 2 * now.scale

    def test_groups_of_zeros_have_a_step(self):
        kernel = np.float32([[0, 1, 2], [0, 1, 2]])
        quantizer, variables = built(GDRQWeightQuantizer(2, 1), kernel.shape)
        quantizer.initialize(variables, kernel)
        assert np.all(step(variables) > 0)
        before = step(variables)
        quantizer(tf.constant(kernel) * 0, True, variables)
        np.testing.assert_array_equal(step(variables), before)
        with pytest.raises(ValueError, match="all zero"):
            quantizer.initialize(variables, 0 * kernel)

    def test_the_search_comes_every_so_many_passes(self):
        quantizer = GDRQWeightQuantizer(2, alpha="least_loss", search_every=3)
        quantizer, variables = built(quantizer, (50,))
        train = tf.function(lambda x: quantizer(x, True, variables))
        steps = []
        for factor in (1, 2, 4, 8):
            train(factor * batch(0, (50,)))
            steps.append(float(step(variables)))
        assert steps == pytest.approx([steps[0], steps[0], steps[0], 8 * steps[0]], rel=1e-5)


class TestThresholds:
    @pytest.mark.parametrize(
        "kind, ratios",
        {
            "gauss": (2.84, 2.46, 2.14),
            "laplace": (3.6, 2.94, 2.32),
            "uniform": (2.0, 1.96, 1.84),
        }.items(),
    )
    def test_least_loss_for_known_distributions(self, kind, ratios):
        values = sample(kind)
        mean = np.mean(np.abs(values))
        for bits, ratio in zip((4, 3, 2), ratios, strict=True):
            half = 2 ** (bits - 1)
            found = float(least_loss_threshold(tf.constant(values[None]), -half, half - 1)[0])
            assert found / mean == pytest.approx(ratio, rel=0.05)
            losses = [
                np.mean(np.abs(values - run(GDRQWeightQuantizer(bits, k=k), values)[0])) / mean
                for k in (found / mean, 2.0, 1.5, 4.0)
            ]
            assert losses[0] <= min(losses) * 1.001
            if (kind, bits) == ("gauss", 4):
                assert losses[:2] == pytest.approx([0.101, 0.130], abs=0.002)

    @pytest.mark.parametrize(
        "kind, k, shrinkage, end",
        [
            ("gauss", 2.0, 0.92, 2.01),
            ("laplace", 2.0, 0.80, 2.09),
            ("uniform", 2.0, 1.0, 1.80),
            ("gauss", 3.0, None, 2.7),
            ("gauss", 1.5, 0.74, None),
            ("laplace", 1.5, 0.58, None),
        ],
    )
    def test_clipping_in_place_again_and_again(self, kind, k, shrinkage, end):
        quantizer, variables = built(GDRQWeightQuantizer(2, k=k, clip="latent"), (20_000,))
        kernel, first = tf.constant(sample(kind)), None
        for _ in range(60):
            quantizer(kernel, True, variables)
            first = step(variables) if first is None else first
            kernel = quantizer.after_step(after(quantizer, variables, kernel))
        if shrinkage is not None:
            assert step(variables) / first == pytest.approx(shrinkage, abs=0.02)
        if end is not None:
            assert kurtosis(kernel.numpy().astype(np.float64)) == pytest.approx(end, abs=0.03)

    def test_the_threshold_grows_with_k(self):
        steps = [step(run(GDRQWeightQuantizer(2, k=k), sample("gauss", 99))[2]) for k in (1, 2, 3)]
        assert steps[0] < steps[1] < steps[2]


def after(quantizer, variables, kernel, factor=1.0):
    return KernelStep(
        name="k",
        before=kernel,
        kernel=tf.convert_to_tensor(kernel),
        factor=factor,
        codes_before=kernel,
        grid=quantizer.grid_now(variables),
        rate=0.1,
        progress=0.0,
    )


def test_folded_weights_are_clipped_as_they_are_quantized():
    quantizer, variables = built(GDRQWeightQuantizer(2, 1, clip="latent"), (2, 2))
    variables["step"].assign([0.5, 1.0])
    kernel = np.float32([[3.0, -3.0], [0.4, 9.0]])
    clipped = quantizer.after_step(after(quantizer, variables, kernel, np.float32([2.0, 0.0])))
    np.testing.assert_array_equal(clipped, np.float32([[0.5, -3.0], [0.4, 9.0]]))
    assert isinstance(quantizer.grid_now(variables), GridTensors)


class TestActivations:
    @pytest.mark.parametrize("signed", [False, True])
    def test_value_and_gradient(self, signed):
        quantizer, variables = built(GDRQActivationQuantizer(2, signed, k=2.0))
        top = 2.0 if signed else 3.0  # a step of 1: the threshold is 2 steps, or 3 without a sign
        quantizer.start_from(np.float32(1.0), variables)
        values = tf.constant([[-2.5, -2.0, -0.7, 0.0, 0.5, 1.49, 2.0, 3.0, 3.1]])
        with tf.GradientTape() as tape:
            tape.watch(values)
            ours = quantizer(values, True, variables)
        low, high = (-2, 1) if signed else (0, 3)
        np.testing.assert_array_equal(ours, np.floor(np.clip(values, low, high) + 0.5))
        inside = (np.abs(values) <= top) & (signed | (values.numpy() > 0))
        np.testing.assert_array_equal(tape.gradient(ours, values), inside.astype(np.float32))

    @pytest.mark.parametrize("bits, best", [(2, 4.9), (4, 7.2)])
    def test_the_best_threshold_after_a_relu_is_far_above_two_means(self, bits, best):
        values = np.maximum(sample("gauss"), 0.0)

        def error(k):
            quantizer, variables = built(GDRQActivationQuantizer(bits, k=k))
            return np.mean(np.square(quantizer(values[None], True, variables) - values))

        ratios = np.arange(4.0, 8.5, 0.1)
        assert ratios[np.argmin([error(k) for k in ratios])] == pytest.approx(best, abs=0.3)
        assert error(6.0) < 0.5 * error(2.0)

    def test_the_average_comes_to_the_threshold_of_the_data(self):
        quantizer, variables = built(GDRQActivationQuantizer(4, k=3.0, momentum=0.1))
        train = tf.function(lambda x: quantizer(x, True, variables))
        train(10 * batch(0))
        train(tf.zeros((6, 4)))  # says nothing
        for _ in range(150):
            train(batch(1))
        expected = 3.0 * np.maximum(batch(1), 0).mean() / 15
        assert step(variables) == pytest.approx(expected, rel=1e-3)

    def test_inference_and_inputs_do_not_move_it(self):
        for options, training in (({}, False), ({"fixed": True}, True)):
            quantizer, variables = built(GDRQActivationQuantizer(4, **options))
            quantizer(batch(0), True, variables)
            before = step(variables)
            for _ in range(3):
                quantizer(5 * batch(1), training, variables)
            assert step(variables) == before

    def test_of_tensors_on_one_grid_the_widest_counts(self):
        quantizer, variables = built(GDRQActivationQuantizer(4, True, momentum=0.5))
        for _ in range(40):
            for member, factor in enumerate((1.0, 4.0, 2.0)):
                quantizer(factor * batch(0), True, variables, member)
            quantizer(9 * batch(0), True, variables, None)
        expected = 6.0 * 4.0 * np.abs(batch(0)).mean() / 8
        assert step(variables) == pytest.approx(expected, rel=1e-5)

    def test_the_range_where_it_starts_from_it_and_the_limit_of_a_relu6(self):
        quantizer, variables = built(GDRQActivationQuantizer(8, from_range=True))
        quantizer(tf.constant([[0.1, 0.0, 25.5]]), True, variables)
        assert step(variables) == np.float32(0.1)
        quantizer, variables = built(GDRQActivationQuantizer(4, upper_limit=6.0))
        quantizer(tf.constant([[5.0, 5.0]]), True, variables)
        assert step(variables) == np.float32(0.4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"k_weights": 0.0}, "k_weights must be positive, got 0.0"),
        ({"k_weights": float("nan")}, "k_weights must be positive, got nan"),
        ({"k_activations": -1.0}, "k_activations must be positive"),
        ({"groups": 0}, "groups must be a positive integer, got 0"),
        ({"group_size": 1.5}, "group_size must be a positive integer, got 1.5"),
        ({"search_every": True}, "search_every must be a positive integer"),
        ({"groups": 2, "group_size": 2}, "groups or group_size, not both"),
        ({"alpha": "best"}, "alpha must be 'scale_clip' or 'least_loss', got 'best'"),
        ({"clip": "weights"}, "clip must be 'forward' or 'latent'"),
        ({"momentum": 0.0}, "momentum must be above 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        GdrqOptions(**options)


def small(**options):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [
            layers.Input((8,)),
            layers.Dense(64, activation="relu", name="first"),
            layers.Dense(64, activation="relu", name="middle"),
            layers.Dense(3, name="head"),
        ],
        name="net",
    )
    head = (tfbinreg.Rule(layer="head", per_channel=True),) if "groups" in options else ()
    recipe = tfbinreg.Recipe(
        weight_bits=2, method="gdrq", options={"gdrq": options}, first_last_bits=None, rules=head
    )
    return tfbinreg.quantize_apply(net, recipe, calibration_data=batch(0, (64, 8)).numpy())


def test_channels_that_groups_do_not_divide_are_refused_by_name():
    layers = keras.layers
    net = keras.Sequential(
        [layers.Input((8,)), layers.Dense(9, name="odd"), layers.Dense(7, name="head")]
    )
    recipe = tfbinreg.Recipe(method="gdrq", options={"gdrq": {"groups": 2}})
    with pytest.raises(ValueError) as caught:
        tfbinreg.quantize_apply(net, recipe)
    assert "odd: its 9 output channels cannot be divided by groups=2 of gdrq" in str(caught.value)
    assert "head: its 7 output channels" in str(caught.value)


def test_the_file_has_equal_scales_in_a_group():
    model = small(groups=4)
    (site,) = (site for site in kernel_sites(model) if site.name == "middle")
    scales = site.grid().scale.reshape(4, 16)
    assert np.all(scales == scales[:, :1]) and len(set(scales[:, 0])) == 4


@pytest.mark.parametrize("clip", ["forward", "latent"])
@pytest.mark.slow
def test_training_flattens_the_weights(clip):
    model = small(clip=clip)
    (site,) = (site for site in kernel_sites(model) if site.name == "middle")
    site.kernel.assign(np.random.default_rng(0).laplace(size=(64, 64)).astype(np.float32) / 8)
    before = kurtosis(site.kernel.numpy())
    model.compile(keras.optimizers.SGD(0.05), "mse")
    inputs = batch(1, (256, 8)).numpy()
    model.fit(inputs, inputs[:, :3], 16, epochs=4, verbose=0)
    kernel = site.kernel.numpy()
    clipped = np.abs(kernel).max() <= float(step(site.variables)) * 2 * 1.0001
    assert clipped == (clip == "latent")
    # What the net computes with is flatter in either case; the trained weights if clipped in place.
    threshold = 2 * float(step(site.variables))
    assert kurtosis(np.clip(kernel, -threshold, threshold)) < 0.6 * before
    assert (kurtosis(kernel) < 0.6 * before) == (clip == "latent")
