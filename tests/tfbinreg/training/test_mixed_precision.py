"""A model under Keras' mixed_float16 policy, from training to the file."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tflite_tools import read_codes

layers = keras.layers


@pytest.fixture
def half_precision():
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    keras.mixed_precision.set_global_policy(before)


@pytest.mark.slow
def test_quantizers_compute_in_float32_and_the_file_holds_the_codes(
    half_precision, images, labels, tmp_path
):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(6, 3, use_bias=False)(image)))
    x = layers.Conv2D(4, 3, activation="swish")(x)
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, layers.Activation("softmax", dtype="float32")(x))
    quantized = tfbinreg.quantize_apply(model, weight_bits=2, activation_bits=4)
    assert {variable.dtype for variable in quantized.step_variables} == {tf.float32}
    before = [variable.numpy() for variable in quantized.step_variables]
    optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.01))
    quantized.compile(optimizer, "sparse_categorical_crossentropy")
    callback = tfbinreg.BinRegularization("two_stage", 1)
    history = quantized.fit(images, labels, epochs=2, verbose=0, callbacks=[callback]).history
    assert np.all(np.isfinite(history["loss"])) and history["br_loss"][-1] > 0
    moved = [v.numpy() != old for v, old in zip(quantized.step_variables, before, strict=True)]
    assert np.mean(moved) > 0.8  # a gradient may be too small for 16 bits
    tfbinreg.finalize(quantized, images)
    quantized.save(tmp_path / "q.keras")
    again = tfbinreg.load_model(tmp_path / "q.keras")
    np.testing.assert_array_equal(again(images[:4]), quantized(images[:4]))
    stored = read_codes(tfbinreg.to_tflite(again))
    for name, coded in tfbinreg.integer_codes(quantized).items():
        np.testing.assert_array_equal(stored[name], coded.codes)
