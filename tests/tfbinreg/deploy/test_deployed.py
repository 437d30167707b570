"""A finalized model computes what its target computes with its file, level by level."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from operation_nets import NETS, converted, fresh
from quick import slow

import tfbinreg
from tfbinreg.core.target import NOT_FINALIZED, STATES, TARGETS
from tfbinreg.deploy.deployed import Deployed
from tflite_tools.running import runtime
from tflite_tools.schema import contents as models

layers = keras.layers
RUNTIMES = {"tflm": runtime.TFLM, "litert": runtime.LITERT}


def stored_outputs(data, inputs, target):
    """Inputs as the device sees them, and the target's outputs for them, in levels."""
    model = models.load(data)
    (source,), (result,) = (
        [model.main.tensors[index].quantization for index in edge]
        for edge in (model.main.inputs, model.main.outputs)
    )
    scale, zero_point = np.float32(source.scale[0]), int(source.zero_point[0])
    codes = np.clip(np.floor(inputs / scale + 0.5) + zero_point, -128, 127)
    run = runtime.run(model, [codes.astype(np.int8)], runtime=RUNTIMES[target])
    seen = (codes - zero_point).astype(np.float32) * scale
    return seen, run.outputs[0].astype(int) - int(result.zero_point[0])


def levels(outputs, data):
    main = models.load(data).main
    return np.rint(np.asarray(outputs) / main.tensors[main.outputs[0]].quantization.scale[0])


# test_integer_model has every kind, test_random_nets mixtures of them.
QUICK = ("Concatenate", "HardSwish", "Softmax")


@pytest.mark.parametrize("name", [*QUICK, *slow(*(name for name in NETS if name not in QUICK))])
def test_every_kind_of_operation(name):
    random = np.random.default_rng(3)
    quantized, data = converted(fresh(NETS[name]), random.normal(size=(48, 8, 8, 3)))
    images = random.normal(size=(100, 8, 8, 3))
    for target in TARGETS:
        tfbinreg.finalize(quantized, target=target)
        seen, expected = stored_outputs(data, images, target)
        # Eagerly: nothing has to be traced.
        np.testing.assert_array_equal(levels(quantized(seen), data), expected)


def deep_net():
    """Forty layers, in which a difference of a level would grow."""
    keras.utils.set_random_seed(3)
    image = keras.Input((12, 12, 3))
    x = layers.Conv2D(16, 3, padding="same")(image)
    for _ in range(8):
        y = layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(layers.ReLU()(x)))
        x = layers.Add()([x, layers.Conv2D(16, 1)(layers.ReLU()(y))])
    return keras.Model(image, layers.Dense(4)(layers.Flatten()(x)))


@pytest.fixture(scope="module", params=["litert", *slow("tflm")])
def finalized(request):
    images = np.random.default_rng(0).normal(size=(64, 12, 12, 3)).astype(np.float32)
    model = tfbinreg.quantize_apply(deep_net(), activation_bits=4, calibration_data=images)
    model.compile(keras.optimizers.SGD(1e-4), "mse")
    tfbinreg.finalize(model, images, target=request.param)
    return model, images, request.param


@pytest.mark.slow
def test_a_deep_net(finalized):
    model, images, target = finalized
    data = tfbinreg.to_tflite(model)
    seen, expected = stored_outputs(data, images, target)
    np.testing.assert_array_equal(levels(model.predict(seen, verbose=0), data), expected)
    np.testing.assert_array_equal(levels(model(seen), data), expected)


def test_sums_beyond_float32_are_exact():
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    model = keras.Sequential([layers.Input((3000,)), layers.Dense(2, name="head")])
    model.get_layer("head").kernel.assign(random.choice([-0.9, 1.0], (3000, 2)))
    inputs = random.choice([1.0, 0.99], (200, 3000)).astype(np.float32)
    model = tfbinreg.quantize_apply(model, calibration_data=inputs)
    for target in TARGETS:
        tfbinreg.finalize(model, target=target)
        data = tfbinreg.to_tflite(model)
        seen, expected = stored_outputs(data, inputs, target)
        np.testing.assert_array_equal(levels(model.predict(seen, verbose=0), data), expected)


@pytest.mark.slow
def test_inputs_between_two_levels_are_rounded_as_a_device_rounds_them(finalized):
    model, images, target = finalized
    scale = next(
        layer.stored_grid()[0].numpy() for layer in model.layers if hasattr(layer, "stored_grid")
    )
    halves = (np.floor(images / scale) + 0.5).astype(np.float32) * scale
    data = tfbinreg.to_tflite(model)
    _, expected = stored_outputs(data, halves, target)
    np.testing.assert_array_equal(levels(model.predict(halves, verbose=0), data), expected)


def test_the_targets_differ(finalized):
    model, images, target = finalized
    data = tfbinreg.to_tflite(model)
    (other,) = set(TARGETS) - {target}
    seen, expected = stored_outputs(data, images, other)
    assert not np.array_equal(levels(model.predict(seen, verbose=0), data), expected)


def test_the_target_is_the_recipes_unless_told_otherwise(make_net, images):
    for chosen, given, wanted in (("litert", None, "litert"), ("litert", "tflm", "tflm")):
        recipe = tfbinreg.Recipe(target=chosen)
        model = tfbinreg.quantize_apply(make_net(), recipe, calibration_data=images)
        tfbinreg.finalize(model, target=given)
        assert model.finalized.numpy() == STATES[wanted]
        header = models.load(tfbinreg.to_tflite(model)).require_manifest()
        assert (header.target, header.finalized) == (wanted, True)


def test_unknown_targets_are_refused(make_net, images):
    model = tfbinreg.quantize_apply(make_net(), calibration_data=images)
    before = model.get_weights()
    with pytest.raises(ValueError, match="target must be one of tflm, litert, got 'cmsis'"):
        tfbinreg.finalize(model, images, target="cmsis")
    with pytest.raises(ValueError, match="target must be one of"):
        tfbinreg.Recipe(target="esp32")
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    header = models.load(tfbinreg.to_tflite(model)).require_manifest()
    assert (header.target, header.finalized) == ("litert", False)


class TestTheModelFollows:
    def test_new_weights(self, finalized):
        model, images, _target = finalized
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
        assert model.finalized.numpy() == STATES["litert"]
        deployed = model.predict(images, verbose=0)
        model.fit(images, labels, verbose=0)
        assert model.finalized.numpy() == NOT_FINALIZED
        assert not np.array_equal(deployed, plain)  # in the last digits

    def test_a_file(self, finalized, tmp_path):
        model, images, target = finalized
        model.save(tmp_path / "net.keras")
        loaded = tfbinreg.load_model(tmp_path / "net.keras")
        assert loaded.finalized.numpy() == STATES[target]
        np.testing.assert_array_equal(
            loaded.predict(images, verbose=0), model.predict(images, verbose=0)
        )

    def test_a_function_of_the_users(self, finalized):
        model, images, _target = finalized
        run = tf.function(lambda x: model(x, training=False))
        np.testing.assert_array_equal(run(images), model.predict(images, verbose=0))

    def test_but_not_in_training_mode(self, finalized):
        model, images, _target = finalized
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images[:8], training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        assert all(gradient is not None for gradient in gradients)
