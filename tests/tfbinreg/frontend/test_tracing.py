"""Layers of somebody else's, of either Keras, read by what they compute."""

import keras as keras_3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfbinreg.frontend.normalize import normalize

BOTH = pytest.mark.parametrize("own", [keras, keras_3], ids=["tf_keras", "Keras 3"])


def residual(own):
    """A layer class with layers and a variable inside, and two outputs; it may be nested."""
    layers = own.layers

    class Residual(layers.Layer):
        def __init__(self, inner=None, **options):
            super().__init__(**options)
            self.first = layers.Conv2D(4, 3, padding="same", name="first")
            self.norm = layers.BatchNormalization(name="norm")
            self.inner = inner

        def build(self, shape):
            self.first.build(shape)
            self.norm.build(shape)
            self.gain = self.add_weight(name="gain", shape=(), initializer="ones")
            self.gain.assign(0.5)
            super().build(shape)

        def call(self, inputs, training=None):
            x = self.norm(self.first(inputs), training=training)
            if training:
                x = x + 1.0
            if self.inner is not None:
                x, _ = self.inner(x, training=training)
            return x * self.gain + inputs, x

    return Residual


def net(own):
    """A net of two such layers, one inside the other, and a Lambda."""
    kind, layers = residual(own), own.layers
    image = own.Input((6, 6, 3), name="image")
    x = layers.Conv2D(4, 1, name="conv")(image)
    first, second = kind(kind(name="nested"), name="block")(x)
    x = layers.Add(name="sum")([first, second])
    return own.Model(image, layers.Lambda(lambda x: x[:, 0] * 2.0, name="lambda")(x))


@BOTH
def test_what_they_compute_is_read_with_their_layers(own):
    model = net(own)
    normal, origin = normalize(model)  # which compares the outputs
    kinds = [type(layer).__name__ for layer in normal.layers]
    assert kinds.count("BatchNormalization") == 2 and kinds.count("Conv2D") == 3
    assert [origin[name] for name in ("conv", "first", "norm")] == ["conv", "block", "block"]
    assert "block_nested_first" in origin


@BOTH
def test_the_users_layers_are_left_as_they_were(own):
    model = net(own)
    parts = list(model._flatten_layers())
    before = [len(part._inbound_nodes) for part in parts]
    normalize(model)
    assert [len(part._inbound_nodes) for part in parts] == before
    again = normalize(model)[0]
    assert len(again.layers) == len(normalize(model)[0].layers)


@BOTH
def test_what_is_frozen_stays_frozen(own):
    model = net(own)
    model.get_layer("block").trainable = False
    normal, _ = normalize(model)
    assert not normal.get_layer("first").trainable and normal.get_layer("conv").trainable


@BOTH
def test_a_block_that_is_used_twice_has_its_weights_once(own):
    block = residual(own)(name="block")
    image = own.Input((6, 6, 4))
    x, _ = block(image)
    normal, _ = normalize(own.Model(image, block(x)[0]))
    assert len(normal.get_layer("first").inbound_nodes) == 2


def branching(self, x):
    total = tf.reduce_sum(x) if isinstance(self, keras.layers.Layer) else keras_3.ops.sum(x)
    return x if total > 0 else -x


def cumulated(self, x):
    return tf.cumsum(x) if isinstance(self, keras.layers.Layer) else keras_3.ops.cumsum(x)


@BOTH
@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda self, x: x / x, "mine: division by a tensor; divide by a constant"),
        (
            cumulated,
            r"mine: operation \S+ is not supported in the call of layer class Mine; use a layer, .*"
            "; or say how with tfbinreg.register_layer",
        ),
        (branching, r"layer class Mine is not supported \(its call: it branches on the values of"),
        (lambda self, x: {}["a"], r"layer class Mine is not supported \(its call: 'a'\)"),
        (lambda self, x: 3.0, r"layer class Mine is not supported \(its call: "),
    ],
)
def test_what_cannot_be_read_is_refused_by_the_layers_name(own, call, what):
    kind = type("Mine", (own.layers.Layer,), {"call": lambda self, x: x})
    model = own.Sequential([own.Input((6, 6, 4)), kind(name="mine")])
    kind.call = call
    with pytest.raises(ValueError, match=what) as caught:
        normalize(model)
    assert len(str(caught.value).splitlines()) == 2
    assert caught.value.counts == {"Mine": 1}


def test_a_sequential_inside_may_be_built_for_another_size():
    class Branches(keras_3.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            layers = keras_3.layers
            self.pad = layers.ZeroPadding2D(1)
            self.wide = layers.Conv2D(4, 3, 2)
            inner = [layers.Conv2D(4, 1, 2), layers.BatchNormalization(), layers.ReLU()]
            self.narrow = keras_3.Sequential(inner)

        def build(self, shape):
            padded = self.pad.compute_output_shape(shape)
            self.wide.build(padded)
            self.narrow.build(padded)

        def call(self, x):
            return self.wide(self.pad(x)) + self.narrow(x)

    image = keras_3.Input((6, 6, 3))
    normal, _ = normalize(keras_3.Model(image, Branches(name="branches")(image)))
    assert [type(layer).__name__ for layer in normal.layers].count("BatchNormalization") == 1
    assert "__call__" not in vars(keras_3.Sequential)


@BOTH
def test_variables_may_be_on_the_left_of_operators(own):
    class Affine(own.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(name="scale", shape=(4,), initializer="ones")
            super().build(shape)

        def call(self, x):
            return 2.0 - (self.scale * x + self.scale) + (self.scale - x)

    image = own.Input((6, 6, 3))
    options = {"dtype": keras_3.DTypePolicy("float32")} if own is keras_3 else {}
    x = own.layers.Identity(name="same", **options)(own.layers.Conv2D(4, 1)(image))
    normalize(own.Model(image, Affine()(x)))  # which compares the outputs


@BOTH
def test_layers_inside_are_counted_with_the_users_layer(own):
    class Mine(own.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.inner = own.layers.LayerNormalization()

        def call(self, x):
            return self.inner(x)

    image = own.Input((6, 6, 4))
    model = own.Model(image, Mine(name="second")(Mine(name="first")(image)))
    with pytest.raises(ValueError, match="refused: 2 LayerNormalization in Mine"):
        normalize(model)


def test_variables_are_cast_as_in_a_call():
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = net(keras)
        normal, _ = normalize(model)
    finally:
        keras.mixed_precision.set_global_policy(policy)
    assert normal.get_layer("first").compute_dtype == "float16"


def test_functions_of_another_library_are_told():
    layer = keras_3.layers.Lambda(tf.exp, output_shape=(4,), name="mine")
    model = keras_3.Sequential([keras_3.Input((4,)), layer])
    with pytest.raises(ValueError, match=r"mine: layer class Lambda is not .* \(its call: .*Keras"):
        normalize(model)


def test_variables_are_numbers(own=keras):
    kind = residual(own)
    image = own.Input((6, 6, 4))
    model = own.Model(image, kind(name="block")(image)[0])
    values = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    model.get_layer("block").gain.assign(-3.0)
    normal, _ = normalize(model)
    np.testing.assert_allclose(normal(values), model(values), rtol=1e-5, atol=1e-5)


def test_branches_that_their_library_fuses_are_told():
    module = {"__module__": "kimm._src.layers"}
    kind = type("ReparameterizableConv2D", (keras_3.layers.Layer,), module)
    kind.call = lambda self, x: {}["branch"]
    kind.compute_output_spec = lambda self, x: keras_3.KerasTensor(x.shape)
    model = keras_3.Sequential([keras_3.Input((4,)), kind(name="mine")])
    with pytest.raises(ValueError, match=r"mine: .*kimm.utils.get_reparameterized_model\(model\)"):
        normalize(model)
