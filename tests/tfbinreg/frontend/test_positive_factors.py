"""Negative factors of normalizations move into the kernels; the model stays the same."""

import numpy as np
import pytest
import tf_keras as keras
from quick import slow

import tfbinreg
from tfbinreg.frontend.normalize import normalize
from tflite_tools.formats import build
from tflite_tools.schema.contents import load

layers = keras.layers
KERNELS = {
    "Conv2D": lambda: layers.Conv2D(6, 3, use_bias=False),
    "biased": lambda: layers.Conv2D(6, 3),
    "DepthwiseConv2D": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    "Conv2DTranspose": lambda: layers.Conv2DTranspose(6, 3),
}


def signed(model):
    """Weights of both signs, gammas too; variances stay positive."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        low = 0.3 if "variance" in weight.name else -1.0
        weight.assign(random.uniform(low, 1.0, weight.shape))
    return model


def factors(model):
    return [
        weight.numpy()
        for layer in model.layers
        for weight in layer.weights
        if "gamma" in weight.name or "scale" in weight.name
    ]


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("scale", [True, False])
def test_factors_are_positive_and_outputs_equal(kind, scale, images):
    image = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(scale=scale)(KERNELS[kind]()(image))
    x = layers.ReLU()(layers.BatchNormalization()(x) * np.float32([1, -2, 3, -4, 5, -6]) - 0.5)
    model = signed(keras.Model(image, x))
    normal, _ = normalize(model)  # compares the outputs
    np.testing.assert_allclose(normal(images[:4]), model(images[:4]), rtol=1e-4, atol=1e-4)
    assert any(np.any(values < 0) for values in factors(model))
    assert all(np.all(values >= 0) for values in factors(normal))


def test_a_dense_layer(images):
    x = layers.Dense(5)(layers.Flatten()(image := keras.Input((8, 8, 3))))
    model = signed(keras.Model(image, layers.BatchNormalization()(x)))
    normal, _ = normalize(model)
    np.testing.assert_allclose(normal(images[:4]), model(images[:4]), rtol=1e-4, atol=1e-4)
    assert all(np.all(values >= 0) for values in factors(normal))


def test_what_is_not_folded_keeps_its_sign(images):
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3)(image)
    model = signed(keras.Model(image, layers.Add()([layers.BatchNormalization()(x), x])))
    normal, _ = normalize(model)
    assert np.any(factors(normal)[0] < 0)


@pytest.mark.parametrize("bits", [2, *slow(4)])
@pytest.mark.slow
def test_the_smallest_code_fits_every_format(bits, images):
    image = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.Conv2D(24, 3, name="first")(image))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, name="conv")(x)))
    model = signed(keras.Model(image, layers.Dense(3)(layers.Flatten()(x))))
    kernel = model.get_layer("conv").kernel
    kernel.assign(np.where(np.random.default_rng(1).uniform(size=kernel.shape) < 0.1, 2.0, kernel))
    quantized = tfbinreg.quantize_apply(model, weight_bits=bits, calibration_data=images)
    tfbinreg.finalize(quantized, images)
    codes = tfbinreg.integer_codes(quantized)["conv"].codes
    assert -(2 ** (bits - 1)) <= codes.min()
    assert codes.max() < 2 ** (bits - 1)
    file = load(tfbinreg.to_tflite(quantized))
    for name in ("int4", "lut", "c"):
        assert build.build(file, build.Options(format=name)).files


@pytest.mark.parametrize("bits", [2, *slow(4)])
@pytest.mark.slow
def test_a_factor_that_training_makes_negative(bits, images):
    """The code 2^(bits - 1) appears: C takes the next width, INT4 leaves the layer if need be."""
    image = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.Conv2D(8, 3, name="first")(image))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, name="conv")(x)))
    x = layers.ReLU()(layers.Conv2D(8, 3, name="other")(x))
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))
    kernel = model.get_layer("conv").kernel
    kernel.assign(np.where(np.random.default_rng(1).uniform(size=kernel.shape) < 0.1, -2.0, kernel))
    quantized = tfbinreg.quantize_apply(model, weight_bits=bits, calibration_data=images)
    gamma = next(weight for weight in quantized.weights if "gamma" in weight.name)
    gamma.assign(-gamma)
    tfbinreg.finalize(quantized, images)
    assert tfbinreg.integer_codes(quantized)["conv"].codes.max() == 2 ** (bits - 1)
    file = load(tfbinreg.to_tflite(quantized))
    source = build.build(file, build.Options(format="c")).files["model.c"].decode()
    assert f".bits = {8 if bits == 4 else 3}," in source
    warnings = build.build(file, build.Options(format="int4")).warnings
    left = [line for line in warnings if line.startswith("conv: left int8, its codes reach 8")]
    assert len(left) == (bits == 4)
