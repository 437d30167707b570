"""TSQ's grids, and its two steps on small nets."""

import dataclasses
import math
import statistics

import numpy as np
import pytest
import reference
import tensorflow as tf
import tf_keras as keras
from built_quantizers import built

import tfbinreg
from tfbinreg.layers.sites import activation_sites, kernel_sites
from tfbinreg.methods.tsq import TSQ, TsqOptions
from tfbinreg.methods.tsq_quantizers import (
    PAPER_STEP,
    TSQActivationQuantizer,
    TSQWeightQuantizer,
    coded_quantize,
    sparse_quantize,
    sparse_start,
)
from tfbinreg.training.solver_data import Checkpoint
from tflite_tools.schema.codes import read_codes

layers = keras.layers
NORMAL = statistics.NormalDist()


def normal_numbers(count=2**15):
    """Quantiles of the normal distribution, in place of draws."""
    places = (np.arange(count) + 0.5) / count
    return tf.constant([NORMAL.inv_cdf(place) for place in places], tf.float32)


def test_the_constants_of_the_paper_are_those_of_normal_numbers():
    """62.5 % of zeros end at 0.3186; above 0.32 the best step is 0.6487, above 0 that of HWGQ."""
    assert NORMAL.inv_cdf(0.625) == pytest.approx(0.3186, abs=1e-4)
    assert reference.sparse_gaussian(0.32, 3) == pytest.approx(PAPER_STEP, abs=2e-4)
    assert reference.sparse_gaussian(0.0, 3) == pytest.approx(0.5388, abs=2e-4)


@pytest.mark.parametrize(("sparsity", "qmax"), [(0.625, 3), (0.5, 3), (0.625, 7), (0.9, 1)])
def test_data_give_the_constants_too(sparsity, qmax):
    step, dead_zone = sparse_start(normal_numbers(), sparsity, qmax).numpy()
    assert dead_zone == pytest.approx(max(NORMAL.inv_cdf(sparsity), 0.0), abs=1e-3)
    assert step == pytest.approx(reference.sparse_gaussian(float(dead_zone), qmax), rel=5e-3)
    twice = sparse_start(2.0 * normal_numbers(), sparsity, qmax).numpy()
    np.testing.assert_allclose(twice, [2.0 * step, 2.0 * dead_zone], rtol=1e-4)


def test_many_numbers_are_drawn_from():
    many = tf.repeat(normal_numbers(), 5)
    found = sparse_start(many, 0.625, 3).numpy()
    np.testing.assert_allclose(found, [0.649, 0.319], atol=0.03)
    np.testing.assert_array_equal(found, sparse_start(many, 0.625, 3))


def test_numbers_without_a_positive_one_say_nothing():
    np.testing.assert_array_equal(sparse_start(tf.constant([-1.0, 0.0]), 0.625, 3), [0.0, 0.0])
    step, dead_zone = sparse_start(tf.ones([7]), 0.625, 3).numpy()
    assert 1.0 / step == pytest.approx(round(float(1.0 / step)), rel=1e-5) and dead_zone == 1.0
    mostly = tf.constant([0.0] * 9 + [3.0, 2.0, 1.0])  # the quantile is 0
    assert float(sparse_start(mostly, 0.625, 3)[0]) == pytest.approx(1.0)


@pytest.mark.parametrize("dead_zone", [None, 0.3, 0.1])
def test_activations_and_their_gradients_are_the_twins(dead_zone):
    step, qmax = 0.7, 3
    random = np.random.default_rng(0).normal(size=200)
    kinks = [0.0, 0.1, 0.3, 0.35, 1.05, 1.75, 2.1, 5.0, -1.0, 1e-3]
    values = np.concatenate([random, kinks]).astype(np.float32)
    x = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(x)
        zone = None if dead_zone is None else tf.constant(dead_zone)
        found = sparse_quantize(x, tf.constant(step), zone, qmax)
    own = np.float32(step)
    twins = [
        reference.tsq(
            np.float32(v), own, None if dead_zone is None else np.float32(dead_zone), qmax
        )
        for v in values
    ]
    np.testing.assert_allclose(found, [twin[0] for twin in twins], rtol=1e-6)
    np.testing.assert_array_equal(tape.gradient(found, x), [twin[1] for twin in twins])
    half = sparse_quantize(tf.cast(x, tf.float16), tf.constant(step), zone, qmax)
    assert half.dtype == tf.float16


def test_half_the_step_changes_few_codes_and_no_error():
    """0.165 % of normal numbers change their code when the dead zone of 0.32 becomes D / 2."""
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=10**6), tf.float32)
    step = tf.constant(PAPER_STEP)
    one, two = (sparse_quantize(x, step, zone, 3) for zone in (tf.constant(0.32), None))
    assert np.mean(one.numpy() != two.numpy()) == pytest.approx(0.00165, abs=2e-4)
    positive = np.maximum(x, 0.0)
    errors = [np.mean((positive - q) ** 2) for q in (one, two)]
    assert errors[1] <= errors[0] and errors[0] == pytest.approx(0.02344, abs=2e-4)


def test_gradients_of_kernels_pass_beyond_the_levels():
    kernel = tf.constant([[0.5, -2.0], [0.2, 1.0], [-0.5, 0.4]])
    step, upstream = tf.constant([0.5, -1.0]), tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    with tf.GradientTape() as tape:
        tape.watch([kernel, step])
        found = coded_quantize(kernel, step, -1, 1, 0.1, 1)
        loss = tf.reduce_sum(found * upstream)
    np.testing.assert_array_equal(found, [[0.5, -1.0], [0.0, 1.0], [-0.5, 0.0]])
    to_kernel, to_step = tape.gradient(loss, [kernel, step])
    np.testing.assert_array_equal(to_kernel, upstream)
    # Codes 1, 0, -1 and -1, 1, 0; a negative step is used as a positive one.
    np.testing.assert_allclose(to_step, [0.1 * (1 - 5), -0.1 * (-2 + 4)], rtol=1e-6)


def test_weights_are_float_until_they_are_solved():
    quantizer, variables = built(TSQWeightQuantizer(2, 1), (3, 2))
    kernel = tf.constant([[0.5, -2.0], [0.2, 1.0], [-0.5, 0.4]])
    quantizer.initialize(variables, kernel.numpy())
    np.testing.assert_array_equal(quantizer(kernel, True, variables), kernel)
    with pytest.raises(ValueError, match=r"weights of 'conv' are float.*tfbinreg\.solve"):
        quantizer.settle(variables, "conv")
    variables["solved"].assign(1)
    grid = quantizer.settle(variables, "conv")
    assert (grid.bits, grid.qmin, grid.qmax, grid.axis) == (2, -1, 1, 1)
    codes = quantizer.codes(kernel, variables)
    np.testing.assert_array_equal(quantizer(kernel, True, variables), grid.values(codes))
    assert TSQWeightQuantizer(8).qmin == -127


@pytest.mark.parametrize("dead_zone", ["half", "free"])
def test_activations_start_from_data(dead_zone):
    quantizer, variables = built(TSQActivationQuantizer(2, dead_zone=dead_zone), (None, 4))
    x = tf.reshape(normal_numbers(2**14), (-1, 4))
    estimate = quantizer.observe(x)
    quantizer.start_from(estimate, variables)
    assert variables["step"].numpy() == pytest.approx(0.648, abs=2e-3)
    np.testing.assert_allclose(quantizer.covered(variables)[0], variables["step"], rtol=1e-6)
    zone = None if dead_zone == "half" else variables["dead_zone"]
    wanted = sparse_quantize(x, variables["step"], zone, 3)
    np.testing.assert_array_equal(quantizer(x, False, variables), wanted)
    now = quantizer.grid_now(variables)
    np.testing.assert_allclose(now.codes(x) * now.scale, wanted, rtol=1e-6)
    assert type(quantizer).from_config(quantizer.get_config()) == quantizer
    np.testing.assert_allclose(quantizer.spanning(0.0, 3.0), [1.0, 0.5])
    if dead_zone == "half":
        assert quantizer.settle(variables, "relu_grid").qmax == 3
    else:
        with pytest.raises(ValueError, match=r"zone of 'relu_grid' reaches to 0\.31.*, which is n"):
            quantizer.settle(variables, "relu_grid")


def test_a_relu6_limits_the_step():
    quantizer, _ = built(TSQActivationQuantizer(2, 6.0), (None, 4))
    step, dead_zone = quantizer.observe(tf.reshape(100.0 * normal_numbers(2**12), (-1, 4))).numpy()
    assert step == 2.0 and dead_zone <= step


def test_options_out_of_range():
    for options, message in {
        ("sparsity", 1.0): "sparsity must be from 0 to below 1, got 1.0",
        ("constants", "own"): "constants must be 'data' or 'paper', got 'own'",
        ("dead_zone", 0.3): "dead_zone must be 'half' or 'free', got 0.3",
        ("last_eta", 0.01): "the last not below the first, got 0.1 and 0.01",
        ("etas", 0): "etas must be a positive integer, got 0",
        ("rounds", 1.5): "rounds must be a positive integer, got 1.5",
    }.items():
        with pytest.raises(ValueError, match=message):
            TsqOptions(**dict([options]))


def depthwise_net(affine=True):
    """A small net of the kinds that lose most at two bits."""
    keras.utils.set_random_seed(0)
    norm = {} if affine else {"scale": False, "center": False}
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(image)
    x = layers.ReLU(name="conv_relu")(layers.BatchNormalization(name="conv_bn", **norm)(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.ReLU(name="dw_relu")(layers.BatchNormalization(name="dw_bn", **norm)(x))
    x = layers.Conv2D(12, 1, use_bias=False, name="pointwise")(x)
    x = layers.ReLU(name="pw_relu")(layers.BatchNormalization(name="pw_bn", **norm)(x))
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(image, layers.Dense(4, name="head")(x), name="net")


@pytest.fixture(scope="module")
def shapes():
    """Images of four kinds of bars, and which."""
    random = np.random.default_rng(0)
    images, kinds = random.normal(size=(128, 8, 8, 1)) * 0.3, random.integers(0, 4, 128)
    for image, kind in zip(images, kinds, strict=True):
        place = random.integers(1, 7)
        if kind < 2:
            image[place, :, 0] += 1.5 - 3.0 * kind
        else:
            image[:, place, 0] += 1.5 - 3.0 * (kind - 2)
    return images.astype(np.float32), kinds


QUICK = {"tsq": {"etas": 1, "rounds": 2}}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def float_net(shapes):
    net = depthwise_net()
    net.compile(keras.optimizers.Adam(0.01), LOSS, ["accuracy"])
    net.fit(*shapes, 16, epochs=8, verbose=0, shuffle=False)
    return net


def step_one(net, shapes, epochs=0, **options):
    """The net after step 1, which may be no more than calibration."""
    recipe = tfbinreg.Recipe(weight_bits=2, activation_bits=2, method="tsq", **options)
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=shapes[0])
    model.compile(keras.optimizers.Adam(0.003), LOSS, ["accuracy"])
    if epochs:
        model.fit(*shapes, 32, epochs=epochs, verbose=0, shuffle=False)
    return model


@pytest.mark.slow
def test_two_steps_end_in_a_file_with_the_trained_codes(float_net, shapes, capsys):
    model = step_one(float_net, shapes, epochs=2, first_last_bits=None)
    report = tfbinreg.solve(model, shapes[0])
    assert [part.name for part in report.parts] == ["conv", "depthwise", "pointwise", "head"]
    assert all(part.after <= part.before for part in report.parts)
    assert sum(part.after for part in report.parts) < sum(part.before for part in report.parts)
    assert capsys.readouterr().out.count("->") == 4
    for site in kernel_sites(model):
        assert set(np.unique(site.codes())) <= {-1, 0, 1}
    model.fit(*shapes, 32, epochs=2, verbose=0, shuffle=False)
    tfbinreg.finalize(model, shapes[0])
    right = np.argmax(model.predict(shapes[0], verbose=0), 1) == shapes[1]
    assert np.mean(right) > 0.5
    codes = read_codes(tfbinreg.to_tflite(model))  # which compares the outputs with LiteRT's
    for site in kernel_sites(model):
        np.testing.assert_array_equal(codes[site.name], site.codes())


@pytest.mark.slow
def test_first_and_last_kernels_have_the_bits_of_the_recipe(float_net, shapes):
    model = step_one(float_net, shapes, fold_batch_norm=True)
    tfbinreg.solve(model, shapes[0], verbose=0)
    grids = {site.name: site.grid() for site in kernel_sites(model)}
    assert [grids[name].qmax for name in ("conv", "depthwise", "pointwise", "head")] == [
        127, 1, 1, 127
    ]  # fmt: skip
    assert grids["depthwise"].axis == 2 and grids["pointwise"].scale.shape == (12,)
    kinds = {site.name: type(site.quantizer).__name__ for site in activation_sites(model)}
    assert kinds["dw_relu_grid"] == "TSQActivationQuantizer"
    assert kinds["image_grid"] == kinds["head_grid"] == "LSQActivationQuantizer"


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_kernels(float_net, shapes, tmp_path, monkeypatch):
    whole, killed, resumed = (
        tfbinreg.quantize_apply(
            float_net,
            tfbinreg.Recipe(weight_bits=2, activation_bits=2, method="tsq", options=QUICK),
            calibration_data=shapes[0],
        )
        for _ in range(3)
    )
    tfbinreg.solve(whole, shapes[0], verbose=0)
    original, kept = Checkpoint.keep, []

    def keep(self, part, **arrays):
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(part)
        original(self, part, **arrays)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "keep", keep)
        tfbinreg.solve(killed, shapes[0], checkpoint=tmp_path, verbose=0)
    assert kept == ["conv", "depthwise"]
    report = tfbinreg.solve(resumed, shapes[0], checkpoint=tmp_path, verbose=0)
    assert len(report.parts) == 4
    for mine, yours in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, yours)


def test_what_the_solver_refuses(float_net, shapes):
    recipe = tfbinreg.Recipe(weight_bits=2, method="tsq", options=QUICK)
    model = tfbinreg.quantize_apply(float_net, recipe, calibration_data=shapes[0])
    with pytest.raises(ValueError, match="'conv' are float"):
        tfbinreg.finalize(model, shapes)
    told = []
    tfbinreg.solve(model, shapes[0], verbose=0, advance=lambda *now: told.append(now))
    names = ("conv", "depthwise", "pointwise", "head")
    assert told == [(index / 4, f"tsq, {name}") for index, name in enumerate(names)]
    with pytest.raises(ValueError, match="kernels of conv, depthwise, pointwise, head are solved"):
        tfbinreg.solve(model, shapes[0])
    recipe = tfbinreg.Recipe(solver="tsq")
    model = tfbinreg.quantize_apply(float_net, recipe, calibration_data=shapes[0])
    with pytest.raises(ValueError, match="TSQ solves kernels of the method 'tsq', and the mo"):
        tfbinreg.solve(model, shapes[0])


@pytest.mark.slow
def test_frozen_layers_keep_their_codes(float_net, shapes):
    model = step_one(float_net, shapes, options=QUICK)
    tfbinreg.solve(model, shapes[0], verbose=0)
    codes = {site.name: site.codes() for site in kernel_sites(model)}
    for site in kernel_sites(model):
        site.layer.trainable = False
    model.compile(keras.optimizers.Adam(0.01), LOSS)
    model.fit(*shapes, 32, verbose=0)
    for site in kernel_sites(model):
        np.testing.assert_array_equal(site.codes(), codes[site.name])


def test_dead_channels_and_multipliers_are_solved(shapes):
    keras.utils.set_random_seed(1)
    net = keras.Sequential([
        layers.Input((8, 8, 1)),
        layers.Conv2D(3, 3, activation="relu", name="conv"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="depthwise"),
        layers.Flatten(),
        layers.Dense(4, name="head"),
    ], name="net")  # fmt: skip
    kernel = net.get_layer("depthwise").depthwise_kernel
    kernel.assign(kernel.numpy() * np.array([1.0, 0.0, 1.0])[:, None])
    recipe = tfbinreg.Recipe(weight_bits=2, activation_bits=2, method="tsq", options=QUICK)
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=shapes[0])
    tfbinreg.solve(model, shapes[0], verbose=0)
    site = next(site for site in kernel_sites(model) if site.name == "depthwise")
    assert site.grid().scale.shape == (3,) and np.all(site.codes()[:, :, 1] == 0)
    assert np.any(site.codes()) and np.all(site.grid().scale > 0)
    tfbinreg.finalize(model, shapes[0])
    codes = read_codes(tfbinreg.to_tflite(model))
    np.testing.assert_array_equal(codes["depthwise"], site.codes())


def test_kernels_of_zeros_have_some_scale(shapes):
    net = keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(4, name="a")])
    recipe = tfbinreg.Recipe(weight_bits=2, first_last_bits=None, method="tsq")
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=shapes[0])
    kernel_sites(model)[0].kernel.assign(np.zeros((64, 4)))
    report = tfbinreg.solve(model, shapes[0], verbose=0)
    np.testing.assert_array_equal(kernel_sites(model)[0].grid().scale, np.ones(4))
    assert math.isfinite(report.parts[0].after)


PAPER = {"tsq": {"constants": "paper"}}


def test_the_papers_constants_need_a_normalization_without_gamma_and_beta(float_net, shapes):
    recipe = tfbinreg.Recipe(weight_bits=2, activation_bits=2, method="tsq", options=PAPER)
    with pytest.raises(ValueError, match=r"conv_relu: .* gamma and beta, and 'conv_bn' is n"):
        tfbinreg.quantize_apply(float_net, recipe)
    plain = depthwise_net(affine=False)
    rules = (tfbinreg.Rule(layer="pw_relu", activation_bits=8),)
    model = tfbinreg.quantize_apply(plain, recipe, calibration_data=shapes[0])
    steps = {
        site.name: float(site.quantizer.scale(site.variables)) for site in activation_sites(model)
    }
    assert steps["dw_relu_grid"] == np.float32(PAPER_STEP)
    wider = dataclasses.replace(recipe, activation_bits=3, rules=rules)
    with pytest.raises(
        ValueError, match="constants of the TSQ paper are those of 2 bits, not of 3"
    ):
        tfbinreg.quantize_apply(plain, wider)


def test_a_free_dead_zone_trains_and_is_refused_by_name(shapes, float_net):
    options = {"tsq": {**QUICK["tsq"], "dead_zone": "free", "sparsity": 0.5}}
    model = step_one(float_net, shapes, options=options)
    tfbinreg.solve(model, shapes[0], verbose=0)
    with pytest.raises(ValueError, match=r"dead zone of 'conv_relu_grid'.*no file can hold that"):
        tfbinreg.finalize(model, shapes)


def test_the_row_of_the_table():
    assert TSQ.about is not None and TSQ.fit is not None and not TSQ.needs_labels
