"""Pooling of TensorFlow and Keras 3, and padding with -inf before it."""

import keras as keras_3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from exactness import assert_exact

import tfbinreg
from tfbinreg.frontend.normalize import normalize

IMAGE = (8, 6, 4)
BORDER, ROWS = [[0, 0], [1, 1], [2, 0], [0, 0]], [[0, 0], [2, 1], [0, 0]]
EXPLICIT = [[0, 0], [0, 1], [1, 1], [0, 0]]
ops, layers, layers_3 = keras_3.ops, keras.layers, keras_3.layers
INF = float("inf")


def lowest(x, border=BORDER, constant=-INF):
    return tf.pad(x, border, constant_values=constant)


def lowest_3(x, border=BORDER, constant=-INF):
    return ops.pad(x, border, constant_values=constant)


TF = {
    "max": lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME") + tf.nn.max_pool(x, (3, 3), 2, "SAME"),
    "max of signals": lambda x: tf.nn.max_pool1d(x[:, 1], 3, 2, "VALID"),
    "average": lambda x: tf.nn.avg_pool(x, [1, 2, 1, 1], [1, 2, 1, 1], padding="VALID"),
    "average of TensorFlow 1": lambda x: tf.compat.v1.nn.avg_pool(x, [1, 2, 2, 1], 1, "SAME"),
    "max of TensorFlow 1": lambda x: tf.compat.v1.nn.max_pool(
        x, ksize=3, strides=1, padding="SAME"
    ),
    "by name": lambda x: tf.nn.max_pool2d(input=x, ksize=3, strides=1, padding="SAME"),
    "all of it": lambda x: tf.nn.avg_pool2d(x, (8, 6), 1, "VALID"),
    "explicit": lambda x: tf.nn.max_pool2d(x, 2, 2, EXPLICIT),
    "explicit, padded": lambda x: tf.nn.max_pool2d(lowest(x), 4, 2, EXPLICIT),
}
KERAS3 = {
    "max": lambda x: ops.max_pool(x, 3, 2, "same") + ops.max_pool(x, (3, 2), (2, 2), "same"),
    "average": lambda x: ops.average_pool(x, 2) + ops.average_pool(x, (2, 2), padding="valid"),
    "signals": lambda x: ops.max_pool(x[:, 1], 2),
}
PADDED = {
    "layer": lambda x: layers.MaxPooling2D(3, 2)(lowest(x)),
    "same": lambda x: layers.MaxPooling2D((4, 3), 2, padding="same")(lowest(x)),
    "signals": lambda x: layers.MaxPooling1D(3, 1)(lowest(x[:, 1], ROWS)),
    "function": lambda x: tf.nn.max_pool2d(lowest(x), 3, 1, "VALID"),
    "TensorFlow 1": lambda x: tf.nn.max_pool2d(
        tf.compat.v1.pad(x, BORDER, "CONSTANT", None, -INF), 3, 1, "VALID"
    ),
    "number of NumPy": lambda x: layers.MaxPooling2D(3)(lowest(x, constant=np.float32(-1e9))),
    "tensor": lambda x: layers.MaxPooling2D(3)(lowest(x, constant=tf.constant(-65504.0))),
    "least number": lambda x: layers.MaxPooling2D(3)(lowest(x, constant=x.dtype.min)),
    "two poolings": lambda x: (
        layers.MaxPooling2D(3, 2)(lowest(x)) + layers.MaxPooling2D(3, 2)(lowest(x))
    ),
    "below a ReLU": lambda x: layers.MaxPooling2D(3)(lowest(tf.nn.relu(x), constant=-0.5)),
    "below a ReLU that is pooled": lambda x: layers.MaxPooling2D(3)(
        lowest(layers.MaxPooling2D(2, 1)(layers.ReLU(6.0)(x)), constant=-1e-3)
    ),
    "below tanh": lambda x: layers.MaxPooling2D(3)(lowest(tf.tanh(x), constant=-1)),
    "over time": lambda x: layers.TimeDistributed(layers.MaxPooling1D(3, 2))(
        lowest(x, [[0, 0], [0, 0], [1, 1], [0, 0]])
    ),
}
PADDED_3 = {
    "padded layer": lambda x: layers_3.MaxPooling2D(3, strides=2)(lowest_3(x)),
    "padded function": lambda x: ops.max_pool(lowest_3(x, constant=-1e9), 3, 2),
    "padded signals": lambda x: layers_3.MaxPooling1D(4, 2, padding="same")(
        lowest_3(x[:, 0], ROWS)
    ),
}
ALL = [
    *((keras, name, wire) for name, wire in {**TF, **PADDED}.items()),
    *((keras_3, name, wire) for name, wire in {**KERAS3, **PADDED_3}.items()),
]


@pytest.mark.parametrize(
    ("own", "wire"),
    [(own, wire) for own, _, wire in ALL],
    ids=[f"{own.__name__} {name}" for own, name, _ in ALL],
)
def test_they_compute_the_same(own, wire):
    image = own.Input(IMAGE, name="image")
    x = own.layers.Conv2D(4, 1, bias_initializer="ones")(image)
    normalize(own.Model(image, wire(x)))  # which compares the outputs


def poolings(wire):
    """The classes of the pooling layers of a normalized net, each with its padding."""
    image = keras.Input(IMAGE, name="image")
    normal, _ = normalize(keras.Model(image, wire(layers.Conv2D(4, 1)(image))))
    return [
        (type(layer).__name__, getattr(layer, "padding", None) or layer.margins)
        for layer in normal.layers
        if "Pooling" in type(layer).__name__ and "Global" not in type(layer).__name__
    ]


def test_a_border_is_a_part_of_the_pooling_and_left_out_where_same_padding_has_it():
    inner = [[0, 0], [1, 1], [1, 1], [0, 0]]
    pool = layers.MaxPooling2D
    assert poolings(PADDED["layer"]) == [("PaddedMaxPooling2D", ((1, 1), (2, 0)))]
    assert poolings(PADDED["same"]) == [("PaddedMaxPooling2D", ((2, 2), (2, 1)))]
    assert poolings(lambda x: pool(3, 1)(lowest(x, inner))) == [("MaxPooling2D", "same")]
    assert poolings(lambda x: pool(3, 2)(lowest(x, inner))) == [
        ("PaddedMaxPooling2D", ((1, 1), (1, 1)))
    ]
    assert poolings(lambda x: pool(3, 2)(lowest(x, np.zeros((4, 2), int)))) == [
        ("MaxPooling2D", "valid")
    ]
    assert poolings(lambda x: layers.GlobalMaxPooling2D()(lowest(x))) == []
    assert poolings(TF["explicit"]) == [("PaddedMaxPooling2D", ((0, 1), (1, 1)))]


@pytest.mark.parametrize(
    ("wire", "what"),
    [
        (lambda x: layers.Conv2D(2, 3, name="reader")(lowest(x)), "reader: it reads a tensor that"),
        (lambda x: layers.AveragePooling2D(3, name="reader")(lowest(x)), "reader: it reads"),
        (lambda x: layers.ReLU(name="reader")(lowest(x)), "reader: it reads a tensor that is pad"),
        (
            lambda x: layers.Add(name="reader")([lowest(x), lowest(x)]),
            "reader: it reads a tensor that is padded with a number below all of its own; pad",
        ),
        (
            lowest,
            "reading a tensor that is padded with a number below all of its own; pad with zeros",
        ),
        (lambda x: tf.reduce_max([lowest(x), lowest(x)], 0), "reading a tensor that is padded"),
        (lambda x: lowest(x, constant=-3.0), "with [-3.0]; pad with zeros, or with -inf before a"),
        (lambda x: lowest(tf.tanh(x), constant=-0.9), "with [-0.9"),
        (lambda x: lowest(x, constant=INF), "with [inf]; pad with zeros, or with -inf"),
        (lambda x: lowest(x, constant=np.nan), "with [nan]; pad with zeros, or with -inf"),
        (lambda x: lowest(x, constant=x[0, 0, 0, 0]), "index"),
        (lambda x: lowest(x, [[0, 0], [0, 0], [0, 0], [1, 0]]), "pad height and width alone"),
        (
            lambda x: layers.MaxPooling2D(2, name="pool")(lowest(x)),
            "pool: max pooling of (2, 2) with a border of ((1, 1), (2, 0)), which a window fits in",
        ),
        (lambda x: tf.nn.max_pool2d(x, 2, 1, "SAME", "NCHW"), "max pooling of shape (None, 8, 6"),
    ],
)
def test_what_no_pooling_takes_is_refused_by_name(wire, what):
    image = keras.Input(IMAGE, name="image")
    model = keras.Model(image, wire(layers.Conv2D(4, 1)(image)))
    with pytest.raises(ValueError, match="Cannot quantize") as caught:
        normalize(model)
    assert what in str(caught.value)


def test_sizes_may_be_open_but_for_two_paddings():
    image = keras.Input((None, None, 3), name="image")
    normal, _ = normalize(keras.Model(image, layers.MaxPooling2D(3, 2)(lowest(image))))
    assert normal(np.ones((1, 6, 8, 3), np.float32)).shape == (1, 3, 4, 3)
    assert normal.output_shape == (None, None, None, 3)
    twice = layers.MaxPooling2D(3, 2, padding="same")(lowest(image))
    with pytest.raises(ValueError, match=r"sizes \(None, None\) before 'same' pooling; fix the m"):
        normalize(keras.Model(image, twice))


@pytest.mark.parametrize("bits", [8, 2])
def test_a_padded_pooling_trains_is_saved_and_is_exact(bits, tmp_path):
    keras.utils.set_random_seed(0)
    image = keras.Input(IMAGE, name="image")
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, bias_initializer="normal")(image))
    x = layers.MaxPooling2D(3, 2, name="pool")(lowest(x - 2.0))  # a wrong border would be seen
    y = layers.MaxPooling2D(3, 2, name="second")(lowest(layers.ReLU()(x), constant=-1e9))
    x = layers.Concatenate()([layers.Flatten()(x), layers.Flatten()(y)])
    model = keras.Model(image, layers.Dense(3)(x))
    inputs = np.random.default_rng(0).uniform(-1, 1, (16, *IMAGE)).astype(np.float32)
    quantized = tfbinreg.quantize_apply(model, activation_bits=bits, calibration_data=inputs)
    quantized.compile(keras.optimizers.SGD(0.01), "mse")
    losses = quantized.fit(inputs, np.zeros((16, 3)), epochs=2, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses)) and losses[1] < losses[0]
    assert all(np.all(np.isfinite(weight)) for weight in quantized.get_weights())
    again = tfbinreg.requantize(quantized)
    np.testing.assert_array_equal(again(inputs), quantized(inputs))
    file = assert_exact(quantized, [inputs])
    quantized.save(tmp_path / "net.keras")
    loaded = tfbinreg.load_model(tmp_path / "net.keras")
    assert tfbinreg.to_tflite(loaded) == tfbinreg.to_tflite(quantized)
    borders = [op for op in file.main.ops if op.name == "PADV2"]
    assert [file.main.tensors[op.inputs[2]].data.tolist() for op in borders] == [-128, -128]
