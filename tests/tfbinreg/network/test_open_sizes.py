"""Models that leave sizes of their inputs open: trained and run at any, converted at one."""

import keras as keras_3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg.network.graph import trace
from tfbinreg.network.open_sizes import fixed_shapes, with_input_shapes
from tflite_tools.checks.trained_model import verify
from tflite_tools.from_keras import convert
from tflite_tools.schema import contents as models

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def images_net(own):
    """Every operator whose numbers depend on the size."""
    layers = own.layers
    image = own.Input((None, None, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(image)
    x = layers.UpSampling2D(2)(layers.AveragePooling2D(2, name="pool")(x))
    x = layers.Cropping2D(1)(layers.ZeroPadding2D(1)(x))
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(x)
    x = layers.Conv2DTranspose(4, 3, strides=2)(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Multiply()([x, layers.Conv2D(4, 1, activation="sigmoid")(gate)])
    return own.Model(image, layers.Dense(3, name="head")(layers.GlobalMaxPooling2D()(x)))


def rows_net(own):
    layers = own.layers
    rows = own.Input((None, 6), name="rows")
    x = layers.Conv1D(4, 3, padding="causal", activation="relu")(rows)
    x = layers.Dense(5)(layers.MaxPooling1D(2)(x))
    return own.Model(rows, layers.GlobalAveragePooling1D()(x))


def samples(*shape):
    return np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)


@pytest.mark.parametrize(
    "own", [keras_3, pytest.param(keras, marks=pytest.mark.slow)], ids=["Keras 3", "tf_keras"]
)
@pytest.mark.parametrize(
    ("net", "small", "large"),
    [
        pytest.param(images_net, (8, 8, 3), (12, 10, 3), marks=pytest.mark.slow),
        (rows_net, (8, 6), (12, 6)),
    ],
)
def test_any_size_is_trained_and_run_and_one_converted(own, net, small, large):
    model = tfbinreg.quantize_apply(net(own), weight_bits=4, calibration_data=samples(*small))
    model.compile("sgd", LOSS)
    for shape in (small, large):
        model.fit(samples(*shape), np.zeros(8), verbose=0)
    tfbinreg.finalize(model)
    for shape in (small, large, small):
        predictions = model.predict(samples(*shape), verbose=0)
        assert np.isfinite(model.evaluate(samples(*shape), np.zeros(8), verbose=0))
        np.testing.assert_array_equal(model(samples(*shape)), predictions)
        data = tfbinreg.to_tflite(model, input_shape=shape)
        contents = models.load(data).main
        assert contents.tensors[contents.inputs[0]].shape == (1, *shape)
    assert None in model.inputs[0].shape[1:]


@pytest.fixture(scope="module")
def open_net(tmp_path_factory):
    path = tmp_path_factory.mktemp("open") / "q.keras"
    model = tfbinreg.quantize_apply(
        images_net(keras), weight_bits=4, calibration_data=samples(8, 8, 3)
    )
    tfbinreg.finalize(model)
    model.save(path)
    return path, model


def test_a_file_without_a_size_is_refused_with_what_to_do(open_net):
    path, model = open_net
    message = r"'image' \(None, None, 3\).*input_shape=\(96, 96, 3\).*--input_shape 96,96,3"
    with pytest.raises(ValueError, match=message):
        tfbinreg.to_tflite(model)
    with pytest.raises(ValueError, match=message):
        convert.convert(path)


@pytest.mark.slow
def test_the_file_agrees_with_the_model_at_its_size(open_net):
    path, _ = open_net
    file = convert.convert(path, input_shape=[("image", (12, 10, 3))])
    inputs = {"image": samples(12, 10, 3)}
    report = verify(file, reference=convert.reference(path, inputs), inputs=inputs)
    assert report.passed, report


def test_batches_of_unknown_size_are_refused(open_net):
    _, model = open_net
    ragged = tf.data.Dataset.from_generator(
        lambda: iter([samples(8, 8, 3)]), output_signature=tf.TensorSpec((None, None, None, 3))
    )
    with pytest.raises(ValueError, match="computes batches of a known size only"):
        model.predict(ragged, verbose=0)


TWO = [keras.Input((None, 4), name="a"), keras.Input((6,), name="b")]
TWO_INPUTS = keras.Model(
    TWO, [keras.layers.Dense(2)(TWO[0]), keras.layers.Dense(2)(TWO[1])], name="two"
)


@pytest.mark.parametrize("given", [[(3, 4), (6,)], {"b": (6,), "a": [3, 4]}])
def test_shapes_of_several_inputs(given):
    assert fixed_shapes(TWO_INPUTS, given) == [(3, 4), (6,)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"input_shape=\{'a': \(96, 4\), 'b': \(6,\)\}.*a=96,4 --input_shape b=6"),
        ((3, 4), "has 1 shapes for 2 inputs"),
        ([(3, 4), (7,)], r"Input 'b' takes samples of shape \(6,\), got \(7,\)"),
        ([(3,), (6,)], r"Input 'a' takes samples of shape \(None, 4\), got \(3,\)"),
        ([(0, 4), (6,)], "Input 'a' takes"),
        ([(3.0, 4), (6,)], "whole numbers"),
        ({"a": (3, 4)}, "is for inputs 'a', the model has 'a', 'b'"),
    ],
)
def test_shapes_that_do_not_fit(given, message):
    with pytest.raises(ValueError, match=message):
        fixed_shapes(TWO_INPUTS, given)


def test_a_model_without_open_sizes_needs_no_shapes(float_net):
    assert fixed_shapes(float_net, None) is None
    assert fixed_shapes(float_net, (8, 8, 3)) is None
    with pytest.raises(ValueError, match="takes samples of shape"):
        fixed_shapes(float_net, (9, 8, 3))


def test_shapes_are_worked_out_along_the_graph(float_net):
    fixed = trace(float_net)
    assert with_input_shapes(fixed, [(8, 8, 3)]) == fixed


def test_a_size_too_small_is_told_by_layer(open_net):
    _, model = open_net
    with pytest.raises(ValueError, match=r"shape \(1, 1, 3\) do not fit layer 'pool'"):
        tfbinreg.to_tflite(model, input_shape=(1, 1, 3))
