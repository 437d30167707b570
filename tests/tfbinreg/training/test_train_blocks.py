"""Training block by block against the float model."""

import dataclasses

import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg import recipes
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.training.train_blocks import train_blocks

layers = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(96, 8, 8, 2)).astype(np.float32)


def net(channels=4, joined=True):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False, name="conv")(image)
    x = y = layers.ReLU(name="conv_relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    x = layers.Conv2D(channels, 1, name="mixed")(x)
    x = layers.ReLU(name="sum_relu")(layers.Add(name="sum")([x, y]) if joined else x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, layers.Dense(3, name="head")(x), name="net")
    model.get_layer("norm").moving_variance.assign([0.5, 1.0, 2.0, 1.0][:channels])
    return model


RECIPES = {
    "lsq": tfbinreg.Recipe(weight_bits=2, activation_bits=4, first_last_bits=None),
    "hardware_friendly": recipes.hardware_friendly(3),
}


def quantized(recipe, source=None):
    source = net() if source is None else source
    return tfbinreg.quantize_apply(source, recipe, calibration_data=IMAGES)


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(RECIPES["lsq"], id="lsq", marks=pytest.mark.slow),
        pytest.param(RECIPES["hardware_friendly"], id="hardware_friendly"),
    ],
)
@pytest.mark.slow
def test_each_block_comes_nearer_to_the_float_model(recipe, capsys):
    source = net()
    model = quantized(recipe, source)
    before = [variable.numpy() for variable in model.trainable_variables]
    wanted = source(IMAGES).numpy()
    error = np.mean(np.square(model(IMAGES) - wanted))
    losses = train_blocks(model, source, IMAGES, steps=30, learning_rate=0.003, block_size=2)
    assert [name for block in losses for name in block.kernels] == [
        site.name for site in kernel_sites(model)
    ]
    assert all(block.after <= block.before for block in losses)
    assert sum(block.after < block.before for block in losses) >= 1
    assert np.mean(np.square(model(IMAGES) - wanted)) < error
    assert losses[-1].after == pytest.approx(np.mean(np.square(model(IMAGES) - wanted)), rel=1e-3)
    moved = [np.any(a != b) for a, b in zip(before, model.trainable_variables, strict=True)]
    assert np.mean(moved) > 0.5
    assert capsys.readouterr().out.splitlines() == [str(block) for block in losses]
    tfbinreg.finalize(model, IMAGES)
    tfbinreg.to_tflite(model)


@pytest.mark.slow
def test_a_rate_that_spoils_everything_leaves_the_model_as_it_was():
    source = net()
    model = quantized(RECIPES["lsq"], source)
    before = model.get_weights()
    losses = train_blocks(model, source, IMAGES, steps=3, learning_rate=1e3, verbose=0)
    for own, old, block in zip(model.get_weights(), before, losses * 99, strict=False):
        np.testing.assert_array_equal(own, old)
        assert block.after == block.before


def test_what_it_cannot_do():
    source = net()
    model = quantized(RECIPES["lsq"], source)
    with pytest.raises(ValueError, match="kernels differ in conv, depthwise, mixed, head"):
        train_blocks(model, net(3), IMAGES)
    with pytest.raises(ValueError, match="steps must be a positive integer, got 0"):
        train_blocks(model, source, IMAGES, steps=0)
    with pytest.raises(ValueError, match="learning_rate must be positive, got nan"):
        train_blocks(model, source, IMAGES, learning_rate=float("nan"))
    with pytest.raises(ValueError, match="not quantized"):
        train_blocks(source, source, IMAGES)
    with pytest.raises(ValueError, match="was never initialised"):
        train_blocks(tfbinreg.quantize_apply(net(), RECIPES["lsq"]), source, IMAGES)
    statistic = dataclasses.replace(RECIPES["lsq"], method="gdrq")
    with pytest.raises(ValueError, match="no learned steps: its method, gdrq"):
        train_blocks(quantized(statistic), source, IMAGES)


def test_kernels_without_a_grid_of_their_own_end_no_block():
    parts = [layers.Conv2D(2, 1, activation="relu", name=name) for name in ("a", "b")]
    image = keras.Input((8, 8, 2), name="image")
    x = layers.Concatenate(name="joined")([part(image) for part in parts])
    x = layers.Dense(3, name="head")(layers.Flatten(name="flat")(x))
    source = keras.Model(image, x, name="net")
    model = quantized(RECIPES["lsq"], source)
    losses = train_blocks(model, source, IMAGES, steps=2, block_size=1, verbose=0)
    assert [sorted(block.kernels) for block in losses] == [["a", "b", "head"]]
