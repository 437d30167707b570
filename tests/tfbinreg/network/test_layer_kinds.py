import pytest
import tf_keras as keras

from tfbinreg.network import added_layers
from tfbinreg.network.layer_kinds import KINDS, Role, activation_name, check_activation, fixed_grid

layers = keras.layers
IMAGE, ROWS, ROW = (8, 8, 4), (8, 4), (6,)


def problems(layer, *shapes):
    return KINDS[type(layer).__name__].check(layer, [(None, *shape) for shape in shapes])


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
    (layers.RandomCrop(8, 8), IMAGE),
    (layers.Softmax(), ROW),
    (layers.Conv1D(4, 3, padding="causal"), ROWS),
    (layers.SeparableConv1D(4, 3), ROWS),
    (layers.DepthwiseConv1D(3), ROWS),
    (layers.Conv2DTranspose(2, 3, strides=2), IMAGE),
    (layers.Dense(3), ROWS),
    (layers.ReLU(1.0), IMAGE),
    (layers.ReLU(negative_slope=0.1), IMAGE),
    (layers.PReLU(shared_axes=(1, 2)), IMAGE),
    (layers.UpSampling2D(), IMAGE),
    (layers.Cropping2D(), IMAGE),
    (layers.Concatenate(), IMAGE, IMAGE),
    (layers.Multiply(), IMAGE, (1, 1, 4)),
    (layers.Add(), IMAGE, IMAGE, IMAGE),
    (layers.AveragePooling2D(3, padding="same"), IMAGE),
]

REFUSED = [
    (layers.Conv2DTranspose(2, 3, groups=2), [IMAGE], "grouped convolution", "groups=1"),
    (
        layers.Conv2D(2, 3, data_format="channels_first"),
        [IMAGE],
        "data_format 'channels_first'",
        "channels_last",
    ),
    (layers.DepthwiseConv2D(3, strides=(1, 2)), [IMAGE], "unequal strides", "both directions"),
    (layers.RandomCrop(6, 8), [IMAGE], "a resize at inference", "input pipeline"),
    (layers.BatchNormalization(axis=1), [IMAGE], "axis=1", "last axis"),
    (layers.ReLU(threshold=0.5), [IMAGE], "threshold", "plain ReLU"),
    (
        layers.MaxPooling2D(2, data_format="channels_first"),
        [IMAGE],
        "channels_first",
        "channels_last",
    ),
    (layers.Softmax(axis=0), [IMAGE], "axis=0", "one axis but the batch"),
    (layers.Dense(3), [(2, 5, 5, 6)], "input of shape (None, 2, 5, 5, 6)", "Flatten"),
    (layers.ReLU(6.0, negative_slope=0.1), [IMAGE], "negative_slope with max_value", "one of"),
    (layers.ReLU(0.0), [IMAGE], "max_value=0", "positive"),
    (layers.Add(), [IMAGE, ROW], "inputs of shapes", "same rank"),
    (layers.Concatenate(axis=0), [IMAGE, IMAGE], "axis=0", "another axis than the batch"),
    (layers.UpSampling2D(interpolation="bicubic"), [IMAGE], "'bicubic'", "bilinear"),
    (layers.PReLU(), [IMAGE], "shared_axes=None", "all axes but the last"),
    (layers.Conv2DTranspose(2, 3, 2, output_padding=1), [IMAGE], "output_padding", "crop"),
    (layers.Conv2DTranspose(2, 3, dilation_rate=2), [IMAGE], "dilation_rate", "of 1"),
]


def title(value):
    return type(value).__name__ if isinstance(value, layers.Layer) else ""


@pytest.mark.parametrize("case", SUPPORTED, ids=lambda case: title(case[0]))
def test_supported_layers_have_no_problem(case):
    layer, *shapes = case
    assert problems(layer, *shapes) == []


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: title(case[0]))
def test_unsupported_settings_come_with_a_remedy(case):
    layer, shapes, what, remedy = case
    ((found, advice),) = problems(layer, *shapes)
    assert what in found
    assert remedy in advice


def test_several_problems_of_one_layer_are_all_listed():
    layer = layers.Conv2DTranspose(4, 3, dilation_rate=2, data_format="channels_first")
    assert len(problems(layer, IMAGE)) == 2


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(5, 3),
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        layers.Dense(5),
        layers.Conv2DTranspose(5, 3),
    ],
    ids=title,
)
def test_kernel_rows_name_the_kernel_and_its_channel_axis(layer):
    layer.build((None, *(ROW if isinstance(layer, layers.Dense) else IMAGE)))
    row = KINDS[type(layer).__name__]
    channels = 4 if isinstance(layer, layers.DepthwiseConv2D) else 5
    assert row.role is Role.KERNEL
    assert getattr(layer, row.kernel).shape[row.channel_axis] == channels


def test_every_role_has_a_row_and_every_row_a_class():
    assert {row.role for row in KINDS.values()} == set(Role)
    assert all(hasattr(layers, name) or hasattr(added_layers, name) for name in KINDS)
    for row in KINDS.values():
        assert (row.kernel is not None) == (row.role is Role.KERNEL)


def test_activation_names():
    assert activation_name(layers.Dense(2)) == "linear"
    assert activation_name(layers.Conv2D(2, 1, activation="relu6")) == "relu6"
    assert activation_name(layers.Dense(2, activation=layers.ReLU())) == "ReLU"


def test_activations_are_known_by_their_canonical_names():
    assert check_activation("silu") == check_activation("hard_sigmoid_fifth") == []
    ((what, remedy),) = check_activation("gelu")
    assert what == "activation 'gelu'" and "hard_swish" in remedy


def test_fixed_grids_are_tflites():
    sigmoid, tanh = (fixed_grid(layers.Activation(name)) for name in ("sigmoid", "tanh"))
    assert (sigmoid.scale, sigmoid.zero_point) == (1 / 256, -128)
    assert (tanh.scale, tanh.zero_point) == (1 / 128, 0)
    assert fixed_grid(layers.Softmax()).zero_point == -128
