import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from quick import slow

import tfbinreg
from tfbinreg import recipes
from tfbinreg.core.weight_starts import start_step
from tfbinreg.deploy.freeze import freeze
from tfbinreg.layers.folded_kernel import FoldedKernel
from tfbinreg.layers.sites import kernel_sites

layers = keras.layers
GAMMA = [1.5, 0.7, 0.0, 0.9]


def norm_net(**options):
    """Dense, normalization, ReLU, Dense: one gamma is zero."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [layers.Input((6,)), layers.Dense(4, name="first", **options),
         layers.BatchNormalization(momentum=0.9, name="norm"), layers.ReLU(name="relu"),
         layers.Dense(3, name="head")]
    )  # fmt: skip
    statistics = [GAMMA, [0.2, 0.4, 0.6, -0.3], [0.1, -0.2, 0.3, 0.0], [0.5, 2.0, 1.0, 1.5]]
    model.get_layer("norm").set_weights([np.float32(part) for part in statistics])
    return model


@pytest.fixture
def rows():
    return np.random.default_rng(1).normal(size=(64, 6)).astype(np.float32)


def folded(model):
    return next(layer for layer in model.layers if isinstance(layer, FoldedKernel))


def quantized(rows, bits=8, source=None, **changes):
    """A quantized `norm_net`, with its statistics in place of those of the data."""
    source = norm_net() if source is None else source
    changes = {"method": "lsq", **changes}
    recipe = dataclasses.replace(recipes.hardware_friendly(bits), **changes)
    model = tfbinreg.quantize_apply(source, recipe, calibration_data=rows)
    folded(model).norms[0].set_weights(source.get_layer("norm").get_weights())
    folded(model).initialize_steps()
    return model


class TestInference:
    def test_is_the_folded_kernel_on_its_grid_and_the_folded_bias(self, rows):
        model = quantized(rows, bits=3, bias_bits=None)
        layer, norm = folded(model), norm_net().get_layer("norm")
        gamma, beta, mean, variance = (np.float64(weight) for weight in norm.get_weights())
        factor = gamma / np.sqrt(variance + norm.epsilon)
        kernel = layer.kernels[0].weight.numpy().astype(np.float64) * factor
        grid = kernel_sites(model)[0].grid()
        expected = rows @ grid.values(grid.codes(kernel)) + beta - factor * mean
        np.testing.assert_allclose(layer(rows), expected, rtol=1e-4, atol=1e-5)

    def test_the_step_starts_from_the_folded_kernel(self, rows):
        site = kernel_sites(quantized(rows, bits=3))[0]
        kernel = site.latent.numpy()
        assert site.step.numpy() == start_step(kernel, -4, 3, how="mse")
        assert not kernel[:, 2].any()  # gamma is zero there

    def test_no_normalization_is_left(self, rows):
        model = quantized(rows)
        kinds = {type(layer).__name__ for layer in model.layers}
        assert "BatchNormalization" not in kinds
        assert "folded" not in str(tfbinreg.plan(norm_net()))

    def test_a_bias_before_the_normalization_is_folded_too(self, rows):
        source = norm_net()
        source.get_layer("first").bias.assign([1.0, 2.0, 3.0, 4.0])
        model = quantized(rows, source=source, bias_bits=None)
        expected = keras.Model(source.input, source.get_layer("norm").output)(rows).numpy()
        np.testing.assert_allclose(folded(model)(rows), expected, atol=0.1)
        np.testing.assert_allclose(
            folded(model).fold().offset[1], expected_offset(source), rtol=1e-5
        )


def expected_offset(source):
    gamma, beta, mean, variance = source.get_layer("norm").get_weights()
    bias = source.get_layer("first").bias.numpy()
    return beta[1] + gamma[1] * (bias[1] - mean[1]) / np.sqrt(variance[1] + 1e-3)


class TestTraining:
    def test_normalizes_by_the_batch_as_keras_does(self, rows):
        layer = folded(quantized(rows, bias_bits=None))
        ((kernel, _, variables),) = layer.kernels
        variables["step"].assign(np.abs(layer.latent(kernel)).max() / 127)  # nothing is clipped
        source = norm_net()
        expected = keras.Model(source.input, source.get_layer("norm").output)(rows, training=True)
        np.testing.assert_allclose(layer(rows, training=True), expected, atol=0.03)
        (norm,), theirs = layer.norms, source.get_layer("norm")
        np.testing.assert_allclose(norm.moving_mean, theirs.moving_mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(norm.moving_variance, theirs.moving_variance, rtol=1e-5)

    def test_frozen_it_computes_what_inference_does_and_moves_no_statistics(self, rows):
        layer = folded(quantized(rows, bits=2))
        layer.statistics_frozen.assign(1)
        before = [weight.numpy() for weight in layer.weights]
        np.testing.assert_array_equal(layer(rows, training=True), layer(rows, training=False))
        for weight, value in zip(layer.weights, before, strict=True):
            np.testing.assert_array_equal(weight, value)

    @pytest.mark.parametrize("frozen", [0, 1])
    def test_gradients_reach_everything_and_are_finite(self, rows, frozen):
        layer = folded(quantized(rows, bits=2))
        layer.statistics_frozen.assign(frozen)
        weights = layer.trainable_weights
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(layer(rows, training=True)))
        names = [weight.name for weight in weights]
        gradients = dict(zip(names, tape.gradient(loss, weights), strict=True))
        for name in ("kernel", "kernel_step", "gamma", "beta"):
            (gradient,) = (value for key, value in gradients.items() if key.endswith(f"/{name}:0"))
            assert np.all(np.isfinite(gradient)) and np.any(gradient), name

    def test_a_resting_layer_keeps_its_statistics(self, rows):
        layer = folded(quantized(rows))
        layer.trainable = False
        before = layer.norms[0].moving_mean.numpy()
        layer(rows, training=True)
        np.testing.assert_array_equal(layer.norms[0].moving_mean, before)
        assert layer.trainable_weights == []
        assert len(layer.non_trainable_weights) == len(layer.weights)

    def test_its_weights_keep_their_order_whatever_is_frozen(self, rows):
        layer = folded(quantized(rows))
        order = [weight.name for weight in layer.weights]
        layer.norms[0].trainable = False
        assert [weight.name for weight in layer.weights] == order
        layer.trainable = False
        assert [weight.name for weight in layer.weights] == order


class TestBias:
    @pytest.mark.parametrize("per_channel", [False, True])
    def test_has_eight_bits_times_a_power_of_two(self, rows, per_channel):
        model = quantized(rows, bits=2, per_channel=per_channel)
        first, head = (kernel.bias for kernel in freeze(model).trained_kernels().values())
        assert np.abs(first).max() >= 64 and not np.any(head)
        for bias in (np.abs(first.astype(np.int64)), np.abs(head)):
            largest = bias.max()
            unit = 1 << max(0, int(largest).bit_length() - 7)
            assert np.all(bias % unit == 0) and np.all(bias // unit <= 127)

    def test_is_within_half_a_unit_of_what_was_folded(self, rows):
        layer = folded(quantized(rows, bits=2))
        offset = layer.fold().offset
        bias, codes = layer.integer_bias(), layer._bias_codes(offset)
        unit = codes.unit.numpy()
        half = 0.5 * unit * 2.0 ** int(codes.shift)
        assert np.all(np.abs(bias * unit - offset) <= half * (1 + 1e-5))

    def test_rounded_once_it_stays(self, rows):
        model = quantized(rows, bits=2)
        tfbinreg.finalize(model)
        once = [kernel.bias for kernel in freeze(model).trained_kernels().values()]
        tfbinreg.finalize(model)
        again = [kernel.bias for kernel in freeze(model).trained_kernels().values()]
        for first, second in zip(once, again, strict=True):
            np.testing.assert_array_equal(first, second)


def test_no_strength_makes_folded_kernels_diverge(rows):
    model = quantized(rows, bits=2)
    norm = folded(model).norms[0]
    norm.gamma.assign(20.0 * norm.gamma)  # the folded kernel moves 400 times as fast
    folded(model).initialize_steps()
    model.compile(keras.optimizers.SGD(0.01), "mse")
    gamma = norm.gamma.numpy()
    model.bin_strength.assign(1e8)
    with tf.GradientTape() as tape:
        loss = model.penalty_loss("bin_regularization")
    kernel = folded(model).kernels[0].weight
    gradient = tape.gradient(loss, [kernel, norm.gamma])
    assert gradient[1] is None  # it would sum the pulls of a whole channel
    kernel.assign_sub(0.01 * gradient[0])
    np.testing.assert_array_equal(norm.gamma, gamma)
    before = float(loss)
    assert 0 < float(model.penalty_loss("bin_regularization")) < before


@pytest.mark.parametrize("bits", [2, *slow(4, 8)])
def test_after_training_model_and_integers_agree(bits, make_net, images, labels):
    recipe = recipes.hardware_friendly(bits)
    model = tfbinreg.quantize_apply(make_net(), recipe, calibration_data=images)
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    callbacks = [
        tfbinreg.FreezeBatchNorm(2), tfbinreg.BinRegularization("two_stage", switch_epoch=2)
    ]  # fmt: skip
    history = model.fit(images, labels, 16, 4, verbose=0, shuffle=False, callbacks=callbacks)
    assert np.all(np.isfinite(history.history["loss"]))
    tfbinreg.finalize(model)
    for site, (name, coded) in zip(
        kernel_sites(model), tfbinreg.integer_codes(model).items(), strict=True
    ):
        assert site.name == name
        np.testing.assert_array_equal(site.codes(), coded.codes)
        assert coded.scale.shape == () and coded.scale == site.grid().scale


class TestPruned:
    """Channels of 0 bits: their outputs are constant, and their weights rest."""

    RULES = (
        tfbinreg.Rule(layer="first", weight_bits=(2, 0, 1, 0)),
        tfbinreg.Rule(layer="head", weight_bits=(2, 0, 8)),
    )

    @pytest.mark.parametrize("fold", [False, True])
    @pytest.mark.slow
    def test_weights_rest_whatever_pulls_at_them(self, rows, fold):
        recipe = tfbinreg.Recipe(fold_batch_norm=fold, rules=self.RULES)
        model = tfbinreg.quantize_apply(norm_net(), recipe, calibration_data=rows)
        before = {site.name: site.kernel.numpy() for site in kernel_sites(model)}
        steps = {site.name: site.step.numpy() for site in kernel_sites(model)}
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), loss)
        callback = tfbinreg.BinRegularization("joint", strength=1.0)
        labels = np.arange(len(rows)) % 3
        model.fit(rows, labels, 16, 3, verbose=0, callbacks=[callback])
        for site in kernel_sites(model):
            pruned = np.equal(site.grid().channel_bits, 0)
            moved = np.any(site.kernel.numpy() != before[site.name], axis=0)
            np.testing.assert_array_equal(moved, ~pruned)
            np.testing.assert_array_equal(site.step.numpy() != steps[site.name], ~pruned)
            assert not site.latent.numpy()[:, pruned].any()
            assert not site.codes()[:, pruned].any()

    def test_normalization_sees_their_constant(self, rows):
        recipe = tfbinreg.Recipe(fold_batch_norm=True, rules=self.RULES)
        model = tfbinreg.quantize_apply(norm_net(), recipe, calibration_data=rows)
        layer = folded(model)
        outputs = layer(rows, training=True).numpy()[:, [1, 3]]
        np.testing.assert_allclose(outputs, [[0.4, -0.3]] * len(rows), atol=1e-6)  # beta

    def test_their_large_factors_bound_no_other_pull(self, rows):
        recipe = tfbinreg.Recipe(fold_batch_norm=True, rules=self.RULES)
        model = tfbinreg.quantize_apply(norm_net(), recipe, calibration_data=rows)
        layer = folded(model)
        factors = layer.fold().factor.numpy()
        assert layer.largest_slope() == np.max(factors[[0, 2]] ** 2)
        factor = layer.latent_factor().numpy().ravel()
        np.testing.assert_array_equal(factor, factors * np.float32([1, 0, 1, 0]))
