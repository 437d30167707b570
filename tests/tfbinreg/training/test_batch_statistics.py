"""A pass on the statistics of the batch in which nothing else is as in training."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg.core.weight_starts import start_step
from tfbinreg.layers.folded_kernel import FoldedKernel
from tfbinreg.layers.sites import activation_sites
from tfbinreg.training.batch_statistics import BatchStatistics

layers = keras.layers


def net(*middle):
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 3))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, use_bias=False)(image))
    for layer in middle:
        x = layer(x)
    return keras.Model(image, layers.Flatten()(x))


def test_outputs_are_those_of_training_without_dropout(images):
    model = net(layers.Dropout(0.5))
    data = images[:32, :4, :4]
    before = [variable.numpy() for variable in model.weights]
    by_batch = BatchStatistics(model)
    with by_batch.momentum(1.0):
        (found,) = by_batch(data)
    np.testing.assert_allclose(found, net()(data, training=True), atol=1e-5)
    for variable, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(variable, old)
    assert model.get_layer("norm").momentum == layers.BatchNormalization().momentum


def test_operations_are_called_as_the_model_calls_them(images):
    """Tensors may be any of their arguments."""
    image = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(image)
    gate = tf.nn.relu6(3.0 + layers.Conv2D(3, 1)(x)) / 6.0
    model = keras.Model(image, tf.concat([x * gate, tf.pow(2.0, x), image], axis=-1))
    found = BatchStatistics(model)(images)[0]
    np.testing.assert_allclose(found, model(images, training=True), rtol=1e-5, atol=1e-6)


def test_measured_statistics_are_the_means_over_the_batches(images):
    model = net()
    batches = [images[:16, :4, :4], images[16:48, :4, :4]]
    BatchStatistics(model).measure(batches)
    conv = keras.Model(model.input, model.layers[1].output)
    outputs = [conv(batch).numpy().reshape(-1, 4) for batch in batches]
    norm = model.get_layer("norm")
    np.testing.assert_allclose(
        norm.moving_mean, np.mean([o.mean(0) for o in outputs], 0), atol=1e-5
    )
    np.testing.assert_allclose(
        norm.moving_variance, np.mean([o.var(0) for o in outputs], 0), rtol=0.05
    )


def test_statistics_that_are_not_finite_change_nothing(images):
    model = net()
    model.layers[1].kernel.assign(np.full((3, 3, 3, 4), np.inf))
    with pytest.raises(ValueError, match="would not be finite"):
        BatchStatistics(model).measure([images[:8, :4, :4]])
    np.testing.assert_array_equal(model.get_layer("norm").moving_mean, np.zeros(4))


def test_the_observer_sees_every_call(images):
    model = net(layers.ReLU(name="relu"))
    seen = {}
    by_batch = BatchStatistics(model)
    with by_batch.momentum(1.0):
        by_batch(images[:8, :4, :4], lambda node, output: seen.update({node.name: output.shape}))
    assert seen["relu"] == (8, 2, 2, 4) and len(seen) == len(model.layers)


def untrained(fold):
    """A deep net whose moving statistics have nothing to do with its weights."""
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 3))
    x = image
    for width in (8, 8, 8, 8):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    model = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    recipe = tfbinreg.Recipe(weight_bits=2, activation_bits=2, fold_batch_norm=fold)
    return model, recipe


@pytest.mark.parametrize("fold", [False, True])
def test_calibrated_steps_suit_what_training_sees(fold, images):
    model, recipe = untrained(fold)
    calibrated = tfbinreg.quantize_apply(model, recipe, calibration_data=images)
    started = tfbinreg.quantize_apply(model, tfbinreg.Recipe(
        weight_bits=2, activation_bits=2, fold_batch_norm=fold, unsigned_input=False,
    ))  # fmt: skip
    started(images, training=True)  # the first training batch starts the steps
    pairs = zip(activation_sites(calibrated), activation_sites(started), strict=True)
    for found, wanted in pairs:
        assert found.step.numpy() == pytest.approx(wanted.step.numpy(), rel=0.05), found.name


@pytest.mark.parametrize("fold", [False, True])
def test_evaluating_before_training_means_something(fold, images):
    model, recipe = untrained(fold)
    quantized = tfbinreg.quantize_apply(model, recipe, calibration_data=images)
    by_batch = BatchStatistics(quantized)
    with by_batch.momentum(1.0):
        (trained,) = by_batch(images)
    evaluated = quantized(images, training=False)
    spread = np.std(trained)
    assert np.sqrt(np.mean((evaluated - trained) ** 2)) < (0.5 if fold else 0.3) * spread


def test_calibration_measures_folded_statistics_and_starts_their_steps_anew(images):
    model, recipe = untrained(True)
    quantized = tfbinreg.quantize_apply(model, recipe, calibration_data=images)
    first = next(layer for layer in quantized.layers if isinstance(layer, FoldedKernel))
    site = activation_sites(quantized)[0]
    pixels = site.grid().values(np.rint(images / site.grid().scale).clip(-128, 127))
    conv = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)
    conv.build((None, 8, 8, 3))
    conv.set_weights([first.kernels[0].weight.numpy()])
    outputs = conv(pixels.astype(np.float32)).numpy().reshape(-1, 8)
    (norm,) = first.norms
    np.testing.assert_allclose(norm.moving_mean, outputs.mean(0), rtol=0.02, atol=0.02)
    np.testing.assert_allclose(norm.moving_variance, outputs.var(0), rtol=0.1)
    for layer in quantized.layers:
        if isinstance(layer, FoldedKernel):
            ((kernel, quantizer, variables),) = layer.kernels
            wanted = start_step(
                layer.latent(kernel).numpy(), quantizer.qmin, quantizer.qmax, how="mse"
            )
            assert variables["step"].numpy() == wanted
