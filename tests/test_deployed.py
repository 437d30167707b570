"""A finalized model computes what LiteRT computes with its file, level by level."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from test_emit import NETS, converted, fresh

import tfbinreg
from tfbinreg.deployed import Deployed

layers = keras.layers


def stored_outputs(data, inputs):
    """Inputs as the device sees them, and LiteRT's outputs for them, in levels."""
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero_point = source["quantization"]
    codes = np.clip(np.floor(inputs / scale + 0.5) + zero_point, -128, 127)
    outputs = []
    for code in codes.astype(np.int8):
        interpreter.set_tensor(source["index"], code[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"])[0].astype(int))
    seen = (codes - zero_point).astype(np.float32) * np.float32(scale)
    return seen, np.array(outputs) - target["quantization"][1]


def levels(outputs, data):
    interpreter = Interpreter(model_content=data)
    (target,) = interpreter.get_output_details()
    return np.rint(np.asarray(outputs) / target["quantization"][0])


@pytest.mark.parametrize("name", [name for name in NETS if name != "PReLU"])
def test_every_kind_of_operation(name):
    random = np.random.default_rng(3)
    quantized, data = converted(fresh(NETS[name]), random.normal(size=(48, 8, 8, 3)))
    seen, expected = stored_outputs(data, random.normal(size=(100, 8, 8, 3)))
    np.testing.assert_array_equal(levels(quantized.predict(seen, verbose=0), data), expected)


def deep_net():
    """Forty layers, in which a difference of a level would grow."""
    keras.utils.set_random_seed(3)
    image = keras.Input((12, 12, 3))
    x = layers.Conv2D(16, 3, padding="same")(image)
    for _ in range(8):
        y = layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(layers.ReLU()(x)))
        x = layers.Add()([x, layers.Conv2D(16, 1)(layers.ReLU()(y))])
    return keras.Model(image, layers.Dense(4)(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def finalized():
    images = np.random.default_rng(0).normal(size=(64, 12, 12, 3)).astype(np.float32)
    model = tfbinreg.quantize_apply(deep_net(), activation_bits=4, calibration_data=images)
    model.compile(keras.optimizers.SGD(1e-4), "mse")
    tfbinreg.finalize(model, images)
    return model, images


def test_a_deep_net(finalized):
    model, images = finalized
    data = tfbinreg.to_tflite(model)
    seen, expected = stored_outputs(data, images)
    np.testing.assert_array_equal(levels(model.predict(seen, verbose=0), data), expected)
    np.testing.assert_array_equal(levels(model(seen), data), expected)


def test_sums_beyond_float32_are_exact():
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    model = keras.Sequential([layers.Input((3000,)), layers.Dense(2, name="head")])
    model.get_layer("head").kernel.assign(random.choice([-0.9, 1.0], (3000, 2)))
    inputs = random.choice([1.0, 0.99], (200, 3000)).astype(np.float32)
    model = tfbinreg.quantize_apply(model, calibration_data=inputs)
    tfbinreg.finalize(model)
    data = tfbinreg.to_tflite(model)
    seen, expected = stored_outputs(data, inputs)
    np.testing.assert_array_equal(levels(model.predict(seen, verbose=0), data), expected)


def test_inputs_between_two_levels_are_rounded_as_a_device_rounds_them(finalized):
    model, images = finalized
    scale = next(
        layer.stored_grid()[0].numpy() for layer in model.layers if hasattr(layer, "stored_grid")
    )
    halves = (np.floor(images / scale) + 0.5).astype(np.float32) * scale
    data = tfbinreg.to_tflite(model)
    _, expected = stored_outputs(data, halves)
    np.testing.assert_array_equal(levels(model.predict(halves, verbose=0), data), expected)


class TestTheModelFollows:
    def test_new_weights(self, finalized):
        model, images = finalized
        before, outputs = model.get_weights(), model.predict(images, verbose=0)
        head = model.layers[-2].layer.kernel
        head.assign(-head)
        changed = model.predict(images, verbose=0)
        np.testing.assert_array_equal(changed, Deployed(model)([tf.constant(images)])[0])
        assert not np.array_equal(changed, outputs)
        model.set_weights(before)
        np.testing.assert_array_equal(model.predict(images, verbose=0), outputs)

    def test_training_which_ends_it(self, make_net, images, labels):
        model = tfbinreg.quantize_apply(make_net(), calibration_data=images)
        model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
        plain = model.predict(images, verbose=0)
        tfbinreg.finalize(model)
        assert model.finalized.numpy() == 1
        deployed = model.predict(images, verbose=0)
        model.fit(images, labels, verbose=0)
        assert model.finalized.numpy() == 0
        assert not np.array_equal(deployed, plain)  # in the last digits

    def test_a_file(self, finalized, tmp_path):
        model, images = finalized
        model.save(tmp_path / "net.keras")
        loaded = tfbinreg.load_model(tmp_path / "net.keras")
        assert loaded.finalized.numpy() == 1
        np.testing.assert_array_equal(
            loaded.predict(images, verbose=0), model.predict(images, verbose=0)
        )

    def test_a_function_of_the_users(self, finalized):
        model, images = finalized
        run = tf.function(lambda x: model(x, training=False))
        np.testing.assert_array_equal(run(images), model.predict(images, verbose=0))

    def test_but_not_in_training_mode(self, finalized):
        model, images = finalized
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images[:8], training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        assert all(gradient is not None for gradient in gradients)
