"""`compile(jit_compile=True)`: XLA trains to the same numbers, and predicts them."""

import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg.layers.sites import kernel_sites

layers = keras.layers
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(32, 6, 6, 3)).astype(np.float32)
LABELS = RANDOM.integers(0, 3, 32)
RECIPES = {
    "tensor": tfbinreg.Recipe(weight_bits=2, activation_bits=4),
    "channel": tfbinreg.Recipe(weight_bits=3, per_channel=True),
    "folded": tfbinreg.Recipe(weight_bits=4, fold_batch_norm=True, bias_bits=8),
}


def net():
    """One of each kernel and of each way to quantize activations: compiling takes time."""
    keras.utils.set_random_seed(1)
    image = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, use_bias=False)(image)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, use_bias=False)(x)
    x = layers.Activation("swish")(layers.BatchNormalization()(x))
    return keras.Model(image, layers.Dense(3, activation="softmax")(layers.Flatten()(x)))


def trained(recipe, jit_compile):
    """A quantized net after two epochs, and what `fit` logged."""
    options = {"detach_step": recipe.weight_bits != 3}
    q = tfbinreg.quantize_apply(net(), recipe.with_options("bin_regularization", **options))
    q.compile(
        keras.optimizers.SGD(0.001, 0.9),
        "sparse_categorical_crossentropy",
        ["accuracy"],
        jit_compile=jit_compile,
    )
    callbacks = [tfbinreg.BinRegularization("alternating", strength=0.3)]
    if recipe.fold_batch_norm:
        callbacks.append(tfbinreg.FreezeBatchNorm(1))
    else:
        callbacks.append(tfbinreg.BatchNormReestimation(IMAGES))
    options = {"batch_size": 16, "shuffle": False, "callbacks": callbacks, "verbose": 0}
    logs = q.fit(IMAGES, LABELS, epochs=2, **options).history
    assert q.jit_compile is jit_compile
    return q, logs


@pytest.mark.parametrize(
    "recipe",
    ["tensor", *(pytest.param(name, marks=pytest.mark.slow) for name in ("channel", "folded"))],
)
@pytest.mark.slow
def test_training_is_the_same(recipe):
    (plain, logs), (fast, fast_logs) = (trained(RECIPES[recipe], jit) for jit in (False, True))
    for name in ("loss", "br_loss", "br_strength"):
        assert fast_logs[name] == pytest.approx(logs[name], rel=2e-3), name
    for one, other in zip(fast.weights, plain.weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4, err_msg=one.name)
    for one, other in zip(kernel_sites(fast), kernel_sites(plain), strict=True):
        assert np.mean(one.codes() != other.codes()) <= 0.01


def test_a_finalized_model_predicts_the_same():
    q = tfbinreg.quantize_apply(net(), weight_bits=2, calibration_data=IMAGES)
    tfbinreg.finalize(q)
    outputs = []
    for jit_compile in (False, True):
        q.compile("sgd", "mse", jit_compile=jit_compile)
        outputs.append(q.predict(IMAGES, verbose=0))
    np.testing.assert_allclose(*outputs, atol=1e-6)
