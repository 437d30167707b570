import pytest
import tf_keras as keras

from tfbinreg.kinds import KINDS, Role, activation_name

layers = keras.layers
IMAGE, ROW = (8, 8, 4), (6,)


def called(layer, *shapes):
    """`layer` after a call on inputs of these shapes, as in a model."""
    inputs = [keras.Input(shape) for shape in shapes]
    layer(inputs[0] if len(inputs) == 1 else inputs)
    return layer


def problems(layer):
    return KINDS[type(layer).__name__].check(layer)


SUPPORTED = [
    (layers.Conv2D(2, 3, strides=(1, 2), activation="relu6"), IMAGE),
    (layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, activation="relu"), IMAGE),
    (layers.SeparableConv2D(2, 3, activation="relu"), IMAGE),
    (layers.Dense(3, activation="softmax"), ROW),
    (layers.BatchNormalization(), IMAGE),
    (layers.BatchNormalization(axis=3), IMAGE),
    (layers.ReLU(), IMAGE),
    (layers.ReLU(6.0), IMAGE),
    (layers.Activation("relu6"), IMAGE),
    (layers.Add(), IMAGE, IMAGE),
    (layers.AveragePooling2D(2), IMAGE),
    (layers.AveragePooling2D(2, padding="same"), IMAGE),
    (layers.AveragePooling2D(3, padding="valid"), IMAGE),
    (layers.GlobalAveragePooling2D(), IMAGE),
    (layers.MaxPooling2D(3, padding="same"), IMAGE),
    (layers.GlobalMaxPooling2D(), IMAGE),
    (layers.ZeroPadding2D(1), IMAGE),
    (layers.Flatten(), IMAGE),
    (layers.Reshape((4, 64)), IMAGE),
    (layers.Dropout(0.5), IMAGE),
    (layers.SpatialDropout2D(0.5), IMAGE),
    (layers.Softmax(), ROW),
]

REFUSED = [
    (layers.Conv2D(2, 3, activation="tanh"), [IMAGE], "activation 'tanh'", "relu6"),
    (layers.Conv2D(2, 3, groups=2), [IMAGE], "grouped convolution", "DepthwiseConv2D"),
    (
        layers.Conv2D(2, 3, data_format="channels_first"),
        [IMAGE],
        "data_format 'channels_first'",
        "channels_last",
    ),
    (layers.DepthwiseConv2D(3, strides=(1, 2)), [IMAGE], "unequal strides", "both directions"),
    (
        layers.SeparableConv2D(2, 3, pointwise_regularizer="l2"),
        [IMAGE],
        "weight regularizer",
        "DepthwiseConv2D",
    ),
    (layers.Dense(3), [(5, 6)], "input of shape (None, 5, 6)", "Flatten"),
    (layers.Dense(3, activation=keras.activations.gelu), [ROW], "activation 'gelu'", "relu"),
    (layers.BatchNormalization(axis=1), [IMAGE], "axis=1", "last axis"),
    (layers.ReLU(1.0), [IMAGE], "max_value=1.0", "None or 6"),
    (layers.ReLU(negative_slope=0.1), [IMAGE], "negative_slope", "plain ReLU"),
    (layers.ReLU(threshold=0.5), [IMAGE], "threshold", "plain ReLU"),
    (layers.Activation("sigmoid"), [IMAGE], "activation 'sigmoid'", "linear"),
    (layers.Add(), [IMAGE, IMAGE, IMAGE], "3 inputs", "two tensors"),
    (
        layers.AveragePooling2D(3, padding="same"),
        [IMAGE],
        "padding='same' with windows over the border",
        "valid",
    ),
    (layers.AveragePooling2D(3, strides=2, padding="same"), [IMAGE], "over the border", "valid"),
    (layers.AveragePooling2D(2, padding="same"), [(None, None, 4)], "over the border", "valid"),
    (
        layers.MaxPooling2D(2, data_format="channels_first"),
        [IMAGE],
        "channels_first",
        "channels_last",
    ),
    (layers.Softmax(axis=1), [IMAGE], "axis=1", "last axis"),
]


def title(value):
    return type(value).__name__ if isinstance(value, layers.Layer) else ""


@pytest.mark.parametrize("case", SUPPORTED, ids=lambda case: title(case[0]))
def test_supported_layers_have_no_problem(case):
    layer, *shapes = case
    assert problems(layer) == []  # before it is built
    assert problems(called(layer, *shapes)) == []


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: title(case[0]))
def test_unsupported_settings_come_with_a_remedy(case):
    layer, shapes, what, remedy = case
    if getattr(layer, "data_format", None) != "channels_first":  # runs on no CPU
        called(layer, *shapes)
    ((found, advice),) = problems(layer)
    assert what in found
    assert remedy in advice


def test_several_problems_of_one_layer_are_all_listed():
    layer = layers.Conv2D(4, 3, groups=2, activation="elu", data_format="channels_first")
    assert len(problems(layer)) == 3


@pytest.mark.parametrize(
    "layer",
    [layers.Conv2D(5, 3), layers.DepthwiseConv2D(3, depth_multiplier=2), layers.Dense(5)],
    ids=title,
)
def test_kernel_rows_name_the_kernel_and_its_channel_axis(layer):
    called(layer, ROW if isinstance(layer, layers.Dense) else IMAGE)
    row = KINDS[type(layer).__name__]
    channels = 4 if isinstance(layer, layers.DepthwiseConv2D) else 5
    assert row.role is Role.KERNEL
    assert getattr(layer, row.kernel).shape[row.channel_axis] == channels


def test_every_role_has_a_row_and_every_row_a_keras_class():
    assert {row.role for row in KINDS.values()} == set(Role)
    assert all(hasattr(layers, name) for name in KINDS)
    for row in KINDS.values():
        assert (row.kernel is not None) == (row.role is Role.KERNEL)


def test_activation_names():
    assert activation_name(layers.Dense(2)) == "linear"
    assert activation_name(layers.Conv2D(2, 1, activation="relu6")) == "relu6"
    assert activation_name(layers.Dense(2, activation=layers.ReLU())) == "ReLU"
