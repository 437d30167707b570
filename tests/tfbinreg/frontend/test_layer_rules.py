"""Every layer class: the normalized model computes the same, in layers of the table."""

import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg.frontend.normalize import normalize
from tfbinreg.network.added_layers import ChannelAffine, HardSwish, ResizeBilinear, Slice
from tfbinreg.network.layer_kinds import KINDS, Role

layers = keras.layers
IMAGE, ROWS, ROW = (8, 6, 3), (8, 3), (5,)


def randomized(model):
    """The model with weights everywhere, biases and variances too."""
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.1, 1, w.shape) * 0.5 for w in model.get_weights()])
    return model


def normalized(wire, *shapes):
    """The normal form of the model that `wire` makes; `normalize` compares their outputs."""
    inputs = [keras.Input(shape, name=f"in{index}") for index, shape in enumerate(shapes)]
    normal, _ = normalize(randomized(keras.Model(inputs, wire(*inputs), name="net")))
    assert all(KINDS[type(layer).__name__].role is not Role.REWRITE for layer in normal.layers)
    return normal


def kinds(model):
    return [type(layer).__name__ for layer in model.layers if layer.name[:2] != "in"]


each = layers.TimeDistributed

LAYERS = [
    (layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu"), IMAGE),
    (layers.Conv2D(6, 3, groups=3, padding="same", activation="relu"), IMAGE),
    (layers.Conv1D(4, 3, strides=2, activation="relu"), ROWS),
    (layers.Conv1D(6, 3, groups=3, padding="causal"), ROWS),
    (layers.Conv1D(4, 3, dilation_rate=2, padding="causal"), ROWS),
    (layers.DepthwiseConv1D(3, depth_multiplier=2, padding="same"), ROWS),
    (layers.SeparableConv1D(4, 3, depth_multiplier=2, strides=2, padding="same"), ROWS),
    (layers.Dense(4, activation="relu"), ROWS),
    (layers.Dense(4, activation="relu"), IMAGE),
    (layers.MaxPooling1D(2), ROWS),
    (layers.AveragePooling1D(2, padding="same"), ROWS),
    (layers.AveragePooling2D(3, strides=1, padding="same"), IMAGE),
    (layers.GlobalAveragePooling1D(), ROWS),
    (layers.GlobalMaxPooling1D(), ROWS),
    (layers.GlobalMaxPooling2D(keepdims=True), IMAGE),
    (layers.ZeroPadding1D((1, 2)), ROWS),
    (layers.Cropping1D((1, 2)), ROWS),
    (layers.UpSampling1D(2), ROWS),
    (layers.UpSampling2D((2, 3)), IMAGE),
    (layers.UpSampling2D((2, 3), interpolation="bilinear"), IMAGE),
    (layers.Resizing(11, 5), IMAGE),
    (ResizeBilinear((5, 9), align_corners=True, half_pixel_centers=False), IMAGE),
    (layers.ZeroPadding2D(((1, 0), (0, 2))), IMAGE),
    (layers.Cropping2D(((1, 0), (0, 2))), IMAGE),
    (Slice((1, 0, 0), (7, 6, 2), (2, 1, 1)), IMAGE),
    (layers.SpatialDropout1D(0.5), ROWS),
    (layers.Dropout(0.5, noise_shape=(None, 1, 1)), ROWS),
    (layers.BatchNormalization(), ROW),
    (layers.BatchNormalization(), ROWS),
    (layers.BatchNormalization(), IMAGE),
    (layers.Rescaling(1 / 127.5, -1), IMAGE),
    (layers.Rescaling([0.1, 0.2, 0.3], [1, 2, 3]), IMAGE),
    (layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 0.0]), IMAGE),
    (layers.Normalization(mean=2.0, variance=4.0, axis=None, invert=True), IMAGE),
    (layers.LeakyReLU(0.1), IMAGE),
    (layers.ReLU(negative_slope=0.3), IMAGE),
    (layers.PReLU(shared_axes=(1,)), ROWS),
    (layers.Softmax(), ROWS),
    (layers.Softmax(1), IMAGE),
    (layers.Permute((3, 1, 2)), IMAGE),
    (layers.Permute((2, 1)), ROWS),
    (layers.Reshape((4, 6, 6)), IMAGE),
    (layers.Reshape((24,)), ROWS),
    (layers.Flatten(), ROWS),
    (layers.Flatten(), ROW),
    (each(layers.Dense(4, activation="relu")), ROWS),
    (each(layers.BatchNormalization()), ROWS),
    (each(layers.Dropout(0.5)), ROWS),
    (each(layers.Conv1D(4, 3, strides=2, padding="causal", activation="relu")), IMAGE),
    (each(layers.SeparableConv1D(4, 3)), IMAGE),
    (each(layers.DepthwiseConv1D(3)), IMAGE),
    (each(layers.MaxPooling1D(2)), IMAGE),
    (each(layers.Flatten()), IMAGE),
    (HardSwish(), IMAGE),
    (ChannelAffine(), IMAGE),
]


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: type(case[0]).__name__)
def test_layers_compute_the_same(case):
    layer, shape = case
    normalized(type(layer).from_config(layer.get_config()), shape)


@pytest.mark.parametrize(
    "name",
    ["linear", "relu", "relu6", "softmax", "sigmoid", "tanh", "swish", "hard_sigmoid"],
)
@pytest.mark.parametrize("fused", [True, False])
def test_activations_compute_the_same(name, fused):
    def wire(x):
        if fused:
            return layers.Conv2D(4, 1, activation=name, name="conv")(x)
        return layers.Activation(name, name="act")(x)

    normal = normalized(wire, IMAGE)
    own = "conv" if fused else "act"
    made = [layer.name for layer in normal.layers if layer.name.startswith(own)]
    if name == "linear":
        assert made == (["conv"] if fused else [])
    else:
        assert len(made) >= 1 + fused


@pytest.mark.parametrize(
    "layer",
    [layers.Add(), layers.Multiply(), layers.Average(), layers.Maximum(), layers.Concatenate()],
)
def test_three_inputs_at_a_time(layer):
    def wire(*inputs):
        return layer([layers.ReLU()(layers.Conv2D(4, 1)(x)) for x in inputs])

    normal = normalized(wire, IMAGE, IMAGE, IMAGE)
    merges = [kind for kind in kinds(normal) if KINDS[kind].role in (Role.MERGE, Role.JOIN)]
    assert len(merges) == (1 if isinstance(layer, layers.Concatenate) else 2)


def test_what_shares_a_grid_that_is_prescribed_is_copied():
    def wire(x):
        x = layers.Conv2D(4, 1, name="conv")(x)
        return layers.Minimum(name="least")([x, layers.Activation("sigmoid", name="gate")(x)])

    assert kinds(normalized(wire, IMAGE)) == ["Conv2D", "Activation", "ChannelAffine", "Minimum"]


def test_one_dimensional_layers_stay_images_between_them():
    def wire(x):
        x = layers.Conv1D(4, 3, name="conv")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Add()([x, layers.SeparableConv1D(4, 3, padding="same")(x)])
        x = layers.MaxPooling1D(2)(layers.Concatenate()([x, layers.Activation("sigmoid")(x)]))
        return layers.Dense(2, name="head")(layers.GlobalAveragePooling1D()(x))

    normal = normalized(wire, ROWS)
    assert kinds(normal).count("Reshape") == 1  # of the input
    assert normal.get_layer("conv").kernel.shape == (1, 3, 3, 4)


def test_mobilenets_hard_swish_is_recognized():
    def wire(x):
        x = layers.Conv2D(4, 1)(x)
        gate = layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)
        x = layers.Multiply()([x, gate])
        other = layers.Conv2D(4, 1)(x)
        return other * layers.ReLU(6.0)(other + 3.0) / 6.0

    normal = normalized(wire, IMAGE)
    assert kinds(normal) == ["Conv2D", "HardSwish", "Conv2D", "HardSwish"]


def test_a_hard_sigmoid_gate_is_folded_into_the_convolution():
    def wire(x):
        squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = layers.ReLU(6.0)(layers.Conv2D(3, 1)(squeezed) + 3.0) * (1.0 / 6.0)
        return layers.Multiply()([x, gate])

    normal = normalized(wire, IMAGE)
    assert kinds(normal) == [
        "GlobalAveragePooling2D", "Conv2D", "ChannelAffine", "ReLU", "Multiply"
    ]  # fmt: skip
    (relu,) = [layer for layer in normal.layers if isinstance(layer, layers.ReLU)]
    assert float(relu.max_value) == 1.0


def test_chains_of_constants_are_one_layer_or_none():
    def wire(x):
        x = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=1.0)(layers.Rescaling(0.5)(x))
        x = layers.Conv2D(4, 1, name="conv")(3.0 - x / 2.0)
        return -((x + 1.0) * 2.0 - 2.0) / -2.0

    assert kinds(normalized(wire, IMAGE)) == ["ChannelAffine", "Conv2D"]


def test_a_prescribed_grid_or_an_input_is_not_concatenated_as_it_is():
    def wire(x):
        gate = layers.Activation("sigmoid")(layers.Conv2D(2, 1)(x))
        flat = layers.Flatten()(x)
        images = layers.Concatenate()([x, gate, layers.MaxPooling2D(1)(x)])
        return images, layers.Concatenate()([flat, layers.Dense(2)(flat)])

    normal = normalized(wire, IMAGE)
    assert kinds(normal).count("ChannelAffine") == 4


def test_a_norm_of_plain_features_becomes_an_image_unless_a_dense_takes_it():
    def wire(x):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(4)(x)))
        return layers.BatchNormalization()(layers.Concatenate()([x, layers.Dense(2)(x)]))

    assert kinds(normalized(wire, ROW)).count("Reshape") == 2


def test_options_of_the_kernel_are_kept():
    model = keras.Sequential(
        [
            layers.Input(ROWS),
            layers.Conv1D(4, 3, kernel_regularizer="l2", bias_constraint="non_neg", name="conv"),
            layers.SeparableConv1D(4, 3, pointwise_constraint="non_neg", name="sep"),
        ]
    )
    normal, _ = normalize(model)
    conv, pointwise = normal.get_layer("conv"), normal.get_layer("sep_pointwise")
    assert isinstance(conv.kernel_regularizer, keras.regularizers.L2)
    assert isinstance(conv.bias_constraint, keras.constraints.NonNeg)
    assert isinstance(pointwise.kernel_constraint, keras.constraints.NonNeg)


def test_constraints_keep_their_axes():
    norm = keras.constraints.MaxNorm
    model = keras.Sequential(
        [
            layers.Input(ROWS),
            layers.Conv1D(4, 3, kernel_constraint=norm(2.0, axis=[0, 1]), name="conv"),
            layers.DepthwiseConv1D(3, depthwise_constraint=norm(2.0, axis=0), name="depth"),
            layers.Dense(4, kernel_constraint=norm(2.0, axis=0), name="dense"),
            layers.SeparableConv1D(4, 3, pointwise_constraint=norm(2.0, axis=-1), name="sep"),
        ]
    )
    normal, _ = normalize(model)
    attributes = {"depth": "depthwise", "sep_pointwise": "kernel"}
    axes = {
        name: getattr(normal.get_layer(name), f"{attributes.get(name, 'kernel')}_constraint").axis
        for name in ("conv", "depth", "dense", "sep_pointwise")
    }
    assert axes == {"conv": [1, 2], "depth": [1], "dense": [2], "sep_pointwise": [-1]}


def test_every_regularizer_is_kept():
    rules = {"depthwise_regularizer": "l1", "bias_regularizer": "l2"}
    model = keras.Sequential(
        [
            layers.Input(ROWS),
            layers.DepthwiseConv1D(3, **rules),
            layers.SeparableConv1D(4, 3, pointwise_regularizer="l2", **rules),
            layers.PReLU(shared_axes=[1], alpha_regularizer="l2"),
        ]
    )
    normal, _ = normalize(randomized(model))
    ours, theirs = (sum(float(loss) for loss in net.losses) for net in (normal, model))
    assert len(normal.losses) == 6
    assert np.isclose(ours, theirs)


REFUSED_OVER_TIME = [
    (layers.Conv2D(4, 3), (2, 8, 6, 3), "use 1 to 3 axes a sample"),
    (layers.PReLU(), ROWS, "TimeDistributed PReLU"),
    (layers.DepthwiseConv1D(3, strides=2), IMAGE, "strides inside TimeDistributed"),
    (layers.Dense(4, activity_regularizer="l2"), ROWS, "put it outside"),
    (layers.LayerNormalization(), ROWS, "layer class LayerNormalization"),
]


@pytest.mark.parametrize("case", REFUSED_OVER_TIME, ids=lambda case: type(case[0]).__name__)
def test_what_time_distributed_cannot_hold(case):
    layer, shape, message = case
    with pytest.raises(ValueError, match=message):
        normalized(each(layer, name="each"), shape)


@pytest.mark.parametrize(
    "wire",
    [
        lambda x: (x * 2.0 + 1.0, x * 2.0 - 1.0),
        lambda x: (y := x * 2.0, y + 1.0, y - 1.0)[1:],
        lambda x: (y := layers.Activation("hard_sigmoid")(x), y * 0.5 + 1.0),
        lambda x: (y := layers.Rescaling(0.5)(x), layers.ReLU()(y), y + 1.0),
    ],
)
def test_constants_behind_a_tensor_that_others_take_are_not_folded(wire):
    """A ChannelAffine of plain features that no Dense takes alone needs an image."""
    inputs = keras.Input(ROW, name="in0")
    model = randomized(keras.Model(inputs, wire(layers.Dense(2, name="dense")(inputs))))
    normal, _ = normalize(model)
    for layer in normal.layers:
        if isinstance(layer, ChannelAffine) and len(layer.input.shape) == 2:
            (node,) = layer._inbound_nodes
            (source,) = node.parent_nodes
            assert len(source.layer._outbound_nodes) == 1, layer.name
    features = np.random.default_rng(0).normal(size=(32, *ROW)).astype(np.float32)
    quantized = tfbinreg.quantize_apply(model, calibration_data=features)
    tfbinreg.to_tflite(quantized)
