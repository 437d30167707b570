"""Functions of one value become one table, in whatever operations they are written."""

import json

import keras as keras_3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from exactness import assert_exact
from quick import slow
from random_nets import randomize

import tfbinreg
from tfbinreg.frontend.normalize import normalize

ops = keras_3.ops
BOTH = pytest.mark.parametrize("own", [keras, keras_3], ids=["tf_keras", "Keras 3"])


def net(own, wire):
    """A net with something between two convolutions; `normalize` compares the outputs."""
    image = own.Input((6, 6, 3), name="image")
    x = wire(own.layers.Conv2D(4, 3, name="before")(image))
    model = own.Model(image, own.layers.Conv2D(2, 1, name="behind")(x))
    randomize(model, 1)
    return model


def between(model):
    """The layers between the two convolutions, with the names of functions in them."""
    normal, _ = normalize(model)
    return [
        json.loads(layer.expression)[0]
        if type(layer).__name__ == "ValueFunction"
        else type(layer).__name__
        for layer in normal.layers[2:-1]
    ]


def mish(x):
    return x * tf.tanh(tf.math.softplus(x))


def torch_gelu(x):
    return 0.5 * x * (1.0 + tf.math.erf(x / np.sqrt(2.0)))


def reused(x):
    y = tf.nn.elu(x)
    return y * tf.sigmoid(y) - y


ONE_TABLE = {
    "mish": mish,
    "gelu": torch_gelu,
    "silu by exp": lambda x: x / (1.0 + tf.exp(-x)),
    "maximum": lambda x: tf.maximum(x, 0.3 * x),
    "minimum": lambda x: tf.minimum(tf.abs(x), 2.0),
    "where": lambda x: tf.where(x > 0.5, x, 0.3 * x),
    "mask": lambda x: x * tf.cast(x < 0.2, x.dtype),
    "clip": lambda x: tf.clip_by_value(x, -1.0, 1.0),
    "power": lambda x: tf.abs(x) ** 1.5 - tf.sign(x),
    "reused": reused,
    "reciprocal": lambda x: 2.0 / (tf.square(x) + 1.0),
    "relu inside": lambda x: tf.sqrt(tf.nn.relu(x) + 1.0) + tf.nn.relu6(tf.abs(x)),
    "layer": keras.layers.ELU(0.5),
    "threshold": keras.layers.ThresholdedReLU(0.5),
}
ONE_TABLE_3 = {
    "mish": lambda x: x * ops.tanh(ops.softplus(x)),
    "gelu": ops.gelu,
    "options": lambda x: ops.elu(x, alpha=0.3) + ops.celu(x, 0.4) - ops.hard_shrink(x, 0.2),
    "threshold": lambda x: ops.threshold(x, 0.3, -1.0),
    "where": lambda x: ops.where(ops.greater(x, 0.5), x, 0.3 * x),
    "layer": keras_3.layers.ELU(0.5),
}


@pytest.mark.parametrize(
    ("own", "wire"),
    [(keras, wire) for wire in ONE_TABLE.values()] + [(keras_3, w) for w in ONE_TABLE_3.values()],
    ids=[f"tf {name}" for name in ONE_TABLE] + [f"keras3 {name}" for name in ONE_TABLE_3],
)
def test_one_table(own, wire):
    assert len(between(net(own, wire))) == 1


def test_what_layers_compute_is_left_to_them():
    assert between(net(keras, lambda x: x * tf.sigmoid(1.702 * x))) == [
        *("ChannelAffine", "Activation", "Multiply"),
    ]
    hard = between(net(keras, lambda x: tf.nn.relu6(x + 3.0) / 6.0))
    assert hard == ["ChannelAffine", "ReLU"]


def test_other_tensors_end_a_table():
    def wire(x):
        y = keras.layers.Conv2D(4, 1, name="other")(x)
        return tf.nn.elu(x) * tf.nn.softplus(y) + tf.nn.elu(x * np.float32([1, 2, 3, 4]))

    found = between(net(keras, wire))
    assert sorted(found) == sorted(
        ["Conv2D", "elu", "softplus", "Multiply", "ChannelAffine", "elu", "Add"]
    )


NAMES = ("elu", "selu", "gelu", "softplus", "softsign", "exponential", "mish")


@BOTH
@pytest.mark.parametrize("name", [*NAMES[:1], *slow(*NAMES[1:])])
@pytest.mark.parametrize("fused", [True, False])
def test_activation_functions_by_name(own, name, fused):
    layers = own.layers
    if fused:
        model = net(own, layers.Dense(4, activation=name, name="act"))
        assert len(between(model)) == 2
        own_name = "act_function" if name == "mish" else f"act_{name}"  # mish is known by name
        assert own_name in [layer.name for layer in normalize(model)[0].layers]
    else:
        model = net(own, layers.Activation(name, name="act"))
        assert len(between(model)) == 1
        assert normalize(model)[0].layers[-2].name == "act"


def test_activation_functions_of_the_users_own():
    swish = type("function", (), {"__call__": lambda self, x: x + tf.abs(x)})()
    swish.__name__ = "swish"  # not what Keras calls by this name
    model = net(keras, keras.layers.Conv2D(3, 1, activation=swish, name="act"))
    assert between(model) == ["Conv2D", "add"]
    leaky = keras.layers.LeakyReLU(0.3)
    calls = len(leaky._inbound_nodes)
    assert between(net(keras, keras.layers.Activation(leaky, name="act"))) == ["LeakyReLU"]
    assert len(leaky._inbound_nodes) == calls
    assert between(net(keras, keras.layers.Activation(lambda x: x, name="act"))) == []


def test_regularizers_of_outputs_see_what_the_function_makes():
    options = {"activation": "gelu", "activity_regularizer": keras.regularizers.L1(0.5)}
    for layer in (keras.layers.Conv2D(3, 1, **options), keras.layers.Activation(**options)):
        assert between(net(keras, layer))[-2:] == ["gelu", "ActivityRegularization"]


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda x: x / tf.reduce_max(x), "act: division by a tensor"),
        (
            lambda x: x * {}["a"] if hasattr(x, "_keras_history") else x,
            r"act: activation '<lambda>' \(it says: .*\); use one of linear, ",
        ),
        (
            tf.math.bessel_i0,
            "act: operation tf.math.bessel_i0 is not supported in activation 'bessel_i0'",
        ),
        (lambda x: tf.abs(x) ** tf.constant([1.0, 2.0, 1.0]), r"act: power with .* shape \(3,\)"),
        (lambda x: tf.atan2(x[..., :1], x), "act: operation tf.math.atan2 is not supported"),
    ],
)
def test_refusals_say_which_function_of_which_layer(function, what):
    with pytest.raises(ValueError, match=what):
        normalize(net(keras, keras.layers.Conv2D(3, 1, activation=function, name="act")))


@BOTH
@pytest.mark.parametrize("bits", [8, *slow(3)])
def test_runtimes_and_c_compute_the_same(own, bits):
    layers = own.layers

    def wire(x):
        x = layers.Activation("gelu", name="gelu")(layers.BatchNormalization()(x))
        x = layers.Conv2D(4, 3, activation="mish", name="mish")(x)
        return layers.Activation("softplus", name="soft")(layers.MaxPooling2D(2)(x))

    model = net(own, wire)
    images = np.random.default_rng(0).normal(size=(32, 6, 6, 3)).astype(np.float32)
    recipe = tfbinreg.Recipe(weight_bits=bits)
    quantized = tfbinreg.quantize_apply(model, recipe, calibration_data=images)
    file = assert_exact(quantized, [images])
    assert [op.name for op in file.main.ops].count("GATHER") == 3


def test_a_function_without_a_number_is_refused_by_its_layer():
    model = net(keras, lambda x: keras.layers.Activation(tf.math.log, name="log")(x * x + 1.0))
    images = np.random.default_rng(0).normal(size=(32, 6, 6, 3)).astype(np.float32)
    quantized = tfbinreg.quantize_apply(model, calibration_data=images)
    with pytest.raises(
        ValueError, match=r"log: its function makes no number of -.*clip its inputs"
    ):
        tfbinreg.finalize(quantized)
