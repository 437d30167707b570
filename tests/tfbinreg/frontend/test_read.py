import keras as keras_3
import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg.frontend.normalize import normalize
from tfbinreg.frontend.program import Ref, refs
from tfbinreg.frontend.read import read

layers = keras.layers


def backbone(own, name="backbone"):
    return own.Sequential(
        [
            own.layers.Input((8, 8, 3)),
            own.layers.Conv2D(4, 3, name="conv"),
            own.layers.BatchNormalization(name="bn"),
            own.Sequential([own.layers.ReLU(name="relu")], name="tail"),
        ],
        name=name,
    )


@pytest.mark.parametrize("own", [keras, keras_3], ids=["tf_keras", "keras3"])
class TestNested:
    def test_inner_models_are_flattened_under_their_own_names(self, own):
        image = own.Input((8, 8, 3), name="image")
        x = own.layers.Flatten(name="flat")(backbone(own)(image))
        model = own.Model(image, own.layers.Dense(2, name="head")(x))
        program = read(model)
        names = [step.name for step in program.steps]
        assert names == ["image", "conv", "bn", "relu", "flat", "head"]
        assert [program.steps[i].name for i in program.outputs] == ["head"]
        normal, _ = normalize(model)
        assert [layer.name for layer in normal.layers] == names

    def test_names_that_are_taken_are_prefixed(self, own):
        image = own.Input((8, 8, 3), name="image")
        left, right = backbone(own, "left")(image), backbone(own, "right")(image)
        model = own.Model(image, own.layers.Add(name="sum")([left, right]))
        _, origin = normalize(model)
        assert {"conv", "bn", "relu", "right_conv", "right_bn"} <= set(origin)

    def test_a_model_used_twice_has_its_weights_once(self, own):
        inner, image = backbone(own), own.Input((8, 8, 3), name="image")
        model = own.Model(image, own.layers.Add()([inner(image), inner(image)]))
        normal, _ = normalize(model)
        assert len(normal.get_layer("conv").inbound_nodes) == 2
        assert len(normal.get_layer("bn").inbound_nodes) == 2
        assert sum(weight.name.startswith("conv") for weight in normal.weights) == 2

    def test_layers_without_weights_may_be_used_twice(self, own):
        relu, image = own.layers.ReLU(name="relu"), own.Input((8, 8, 3), name="image")
        x = own.layers.Conv2D(2, 1, name="b")(relu(own.layers.Conv2D(2, 1, name="a")(image)))
        normal, _ = normalize(own.Model(image, relu(x)))
        assert {"relu", "relu_"} <= {layer.name for layer in normal.layers}

    def test_the_model_itself_is_left_alone(self, own):
        model = backbone(own)
        before = [np.copy(weight) for weight in model.get_weights()]
        config = model.to_json()
        normal, _ = normalize(model)
        normal.set_weights([0 * weight for weight in normal.get_weights()])
        assert model.to_json() == config
        for now, then in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(now, then)


class TestKeras3:
    def test_weights_activations_and_options_are_carried_over(self):
        own = keras_3.layers
        model = keras_3.Sequential(
            [
                own.Input((8, 8, 3), name="image"),
                own.Conv2D(4, 3, activation="silu", kernel_regularizer="l2", name="conv"),
                own.SeparableConv2D(4, 3, activation="hard_silu", name="sep"),
                own.LeakyReLU(0.3),
                own.PReLU(shared_axes=(1, 2)),
                own.Dropout(0.5),
                own.Flatten(),
                own.Dense(4, activation="hard_sigmoid", use_bias=False),
                own.Dense(3, activation="softmax", dtype="float32", name="head"),
            ],
            name="net",
        )
        model.get_layer("sep").trainable = False
        normal, _ = normalize(model)
        assert normal.name == "net"
        np.testing.assert_array_equal(
            normal.get_layer("conv").get_weights()[0], np.asarray(model.layers[0].kernel)
        )
        assert isinstance(normal.get_layer("conv").kernel_regularizer, keras.regularizers.L2)
        assert not normal.get_layer("sep_pointwise").trainable

    def test_unknown_layers_and_operations_are_named(self):
        image = keras_3.Input((8, 8, 3), name="image")
        x = keras_3.layers.LayerNormalization(name="norm")(image)
        model = keras_3.Model(image, keras_3.ops.cumsum(x))
        with pytest.raises(ValueError, match=r"(?s)norm: layer class LayerNorm.*tion Cumsum is"):
            normalize(model)

    def test_several_outputs(self):
        image = keras_3.Input((8, 8, 3), name="image")
        x = keras_3.layers.Conv2D(2, 1)(image)
        model = keras_3.Model(image, [keras_3.layers.Flatten()(x), x])
        assert len(normalize(model)[0].outputs) == 2


class Doubled(keras.layers.Layer):
    """A layer of a user's own, with a layer inside."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Dense(3)

    def call(self, inputs):
        return self.inner(inputs) * 2.0


class Doubled3(keras_3.layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = keras_3.layers.Dense(3)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, inputs):
        return self.inner(inputs) * 2.0


@pytest.mark.parametrize(("own", "kind"), [(keras, Doubled), (keras_3, Doubled3)])
def test_a_registered_layer_is_rewritten(own, kind):
    model = own.Sequential([own.layers.Input((4,)), kind(name="mine")])

    @tfbinreg.register_layer(kind)
    def rewrite(layer, x):
        dense = layers.Dense(3, name="dense")
        x = dense(x)
        dense.set_weights([np.asarray(weight) for weight in layer.inner.get_weights()])
        return x * 2.0

    normal, origin = normalize(model)
    assert origin["dense"] == "mine"
    assert normal.layers[1].name == "dense"
    assert normal.layers[1].trainable
    model.get_layer("mine").trainable = False
    assert not normalize(model)[0].layers[1].trainable


def test_a_registered_layer_that_is_used_twice_has_its_weights_once():
    kind = type("Scaled", (layers.Layer,), {"call": lambda self, inputs: 2.0 * inputs})
    units = iter([4, 4, 4, 5])

    @tfbinreg.register_layer(kind)
    def rewrite(layer, x):
        return layers.Dense(next(units))(x)

    image = keras.Input((4,))
    mine = kind(name="mine")
    model = keras.Model(image, mine(mine(image)))
    program = read(model)
    assert [step.again for step in program.steps] == [None, None, program.steps[1].name]
    with pytest.raises(
        ValueError, match=r"'mine', which is .* and \[\(4, 5\), \(5,\)\] for another"
    ):
        read(model)


def test_refs_are_found_in_nested_arguments():
    assert refs(([Ref(1), 2], {"x": Ref(0)}, "no")) == [Ref(1), Ref(0)]


def test_names_of_keras_3_that_tf_keras_does_not_take():
    own = keras_3.layers
    image = keras_3.Input((4,), name="größe")
    x = own.Dense(3, name="_dense")(image)
    x = own.ReLU(name="x y")(own.Dense(3, name="x_y")(x))
    normal, origin = normalize(keras_3.Model(image, x))
    assert [layer.name for layer in normal.layers] == ["größe", "layer_dense", "x_y", "x_y_"]
    assert origin == {"größe": "größe", "layer_dense": "_dense", "x_y": "x_y", "x_y_": "x y"}
    again = keras.models.clone_model(normal)
    assert again(np.ones((1, 4))).shape == (1, 3)
