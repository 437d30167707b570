"""What becomes one operation, and what does not."""

import pytest
import tf_keras as keras

from tfbinreg.network.added_layers import ChannelAffine
from tfbinreg.network.fusing import can_fuse, fused_chains, is_input
from tfbinreg.network.graph import trace
from tfbinreg.network.layer_kinds import KINDS, Role

layers = keras.layers


def graph(wire):
    image = keras.Input((4, 4, 2), name="image")
    return trace(keras.Model(image, wire(image)))


def chains(wire):
    """The operations of a net, as the names of their layers."""
    net = graph(wire)
    return [[net.nodes[i].name for i in chain] for chain in fused_chains(net).values()]


def norm(name, x):
    return layers.BatchNormalization(name=name)(x)


def conv(x):
    return layers.Conv2D(2, 1, name="conv")(x)


def relu(x):
    return layers.ReLU(name="relu")(x)


def test_normalizations_and_a_relu_join_the_kernel_before_them():
    assert chains(lambda x: relu(norm("b", norm("a", conv(x))))) == [
        ["image"], ["conv", "a", "b", "relu"]
    ]  # fmt: skip


def test_nothing_is_fused_behind_a_relu_or_where_others_look():
    assert chains(lambda x: norm("a", relu(conv(x)))) == [["image"], ["conv", "relu"], ["a"]]
    assert chains(lambda x: [y := conv(x), relu(y)]) == [["image"], ["conv"]]


def test_augmentation_joins_an_input_and_constants_on_it_only():
    def wire(x):
        x = layers.RandomFlip(name="flip")(ChannelAffine(name="scaled")(x))
        return layers.GaussianNoise(0.1, name="noise")(conv(x))

    assert chains(wire) == [["image"], ["scaled", "flip"], ["conv"]]
    net = graph(wire)
    assert [is_input(net, chain) for chain in fused_chains(net).values()] == [True, True, False]


@pytest.mark.parametrize(
    ("start", "role", "fuses"),
    [
        ("Conv2D", Role.NORM, True),
        ("BatchNormalization", Role.NORM, True),
        ("Add", Role.NORM, False),
        ("Add", Role.RELU, True),
        ("LeakyReLU", Role.RELU, False),
        ("Conv2D", Role.SAME, False),
    ],
)
def test_what_an_operation_can_contain(start, role, fuses):
    assert can_fuse(KINDS[start], role) is fuses
