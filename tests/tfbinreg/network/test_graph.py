import numpy as np
import pytest
import tf_keras as keras

from tfbinreg.network import graph
from tfbinreg.network.graph import Graph, Node, apply, clone_layer, rebuild, trace

layers = keras.layers


@pytest.fixture(scope="module")
def two_by_two():
    """Two inputs, of which the second is deeper, and two outputs, of which the first is deeper."""
    early = keras.Input((4,), name="early")
    late = keras.Input((3,), name="late")
    x = layers.Dense(4, name="a")(late)
    x = layers.Dense(4, name="b")(x)
    total = layers.Add(name="sum")([layers.Dense(4, name="c")(early), x])
    return keras.Model([early, late], [layers.ReLU(name="relu")(total), x], name="two")


def copy(model):
    """Rebuild `model` from clones of its layers with its weights."""
    pairs = []

    def call(node, tensors):
        if not node.inputs:
            return tensors[0]
        pairs.append((node.layer, clone_layer(node.layer)))
        return apply(pairs[-1][1], tensors)

    again = rebuild(trace(model), call)
    for source, layer in pairs:
        layer.set_weights(source.get_weights())
    return again


def test_nodes_come_after_their_inputs(float_net):
    traced = trace(float_net)
    assert isinstance(traced, Graph)
    assert traced.name == "residual"
    assert [node.index for node in traced.nodes] == list(range(len(float_net.layers)))
    assert {node.name for node in traced.nodes} == {layer.name for layer in float_net.layers}
    assert all(source < node.index for node in traced.nodes for source in node.inputs)
    assert [traced.nodes[index].name for index in traced.outputs] == ["head"]


def test_a_node_tells_its_layer(float_net):
    node = next(node for node in trace(float_net).nodes if node.name == "add")
    assert isinstance(node, Node)
    assert node.kind == "Add"
    sources = [trace(float_net).nodes[index].name for index in node.inputs]
    assert sources == ["depthwise_bn", "conv_relu"]  # the order of the call


def test_consumers(float_net):
    traced = trace(float_net)
    at = {node.name: node.index for node in traced.nodes}
    names = {node.name for node in traced.consumers(at["conv_relu"])}
    assert names == {"depthwise", "add"}
    assert traced.sole_consumer(at["conv_relu"]) is None  # two
    assert traced.sole_consumer(at["conv"]).name == "conv_bn"
    assert traced.sole_consumer(at["head"]) is None  # the model's output


def test_an_output_has_no_sole_consumer(two_by_two):
    traced = trace(two_by_two)
    (b,) = [node.index for node in traced.nodes if node.name == "b"]
    assert [node.name for node in traced.consumers(b)] == ["sum"]
    assert traced.sole_consumer(b) is None


def test_inputs_and_outputs_keep_the_models_order(two_by_two):
    traced = trace(two_by_two)
    assert [traced.nodes[index].name for index in traced.inputs] == ["early", "late"]
    assert [traced.nodes[index].name for index in traced.outputs] == ["relu", "b"]
    assert traced.inputs != tuple(sorted(traced.inputs))  # or this would show nothing


def test_a_rebuilt_model_is_the_same_function(two_by_two):
    again = copy(two_by_two)
    random = np.random.default_rng(0)
    inputs = [random.normal(size=(5, 4)), random.normal(size=(5, 3))]
    assert again.input_names == ["early", "late"]
    assert again.name == "two"
    for ours, theirs in zip(again(inputs), two_by_two(inputs), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_sequential_models_are_graphs_too():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Dense(3, input_shape=(4,)), layers.ReLU()])
    again = copy(model)
    assert not isinstance(again, keras.Sequential)
    inputs = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(again(inputs), model(inputs))


def test_rebuilding_makes_inputs_of_its_own(two_by_two):
    again = copy(two_by_two)
    assert [tensor.dtype for tensor in again.inputs] == [t.dtype for t in two_by_two.inputs]
    assert not {id(tensor) for tensor in again.inputs} & {id(t) for t in two_by_two.inputs}
    assert not {id(layer) for layer in again.layers} & {id(layer) for layer in two_by_two.layers}


def test_a_clone_is_new_but_for_the_changes():
    layer = layers.Conv2D(4, 3, activation="relu", use_bias=False, name="conv")
    clone = clone_layer(layer, activation="linear")
    assert clone is not layer
    assert not clone.built
    assert (clone.name, clone.filters, clone.use_bias) == ("conv", 4, False)
    assert clone.activation is keras.activations.linear
    assert layer.activation is keras.activations.relu


def test_apply_passes_one_tensor_or_the_list():
    assert apply(layers.ReLU(), [np.float32([-1.0])]).numpy() == [0.0]
    assert apply(layers.Add(), [np.float32([1.0]), np.float32([2.0])]).numpy() == [3.0]


def test_keras_is_the_one_of_compat():
    assert graph.keras is keras
