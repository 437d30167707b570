"""Operations on tensors, of TensorFlow in tf_keras models and of Keras 3."""

import keras as keras_3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfbinreg.frontend.normalize import normalize

IMAGE = (8, 6, 4)
ops = keras_3.ops

TF = {
    "arithmetic": lambda x: (2.0 - x) * 3.0 / 4.0 + x * x - (-x),
    "per channel": lambda x: x * np.float32([1, 2, 3, 4]) + tf.constant([[[[1.0, 0, 0, 2]]]]),
    "activations": lambda x: tf.nn.relu(x) + tf.nn.relu6(x) + tf.nn.sigmoid(x) + tf.tanh(x),
    "silu": lambda x: tf.nn.silu(x) + tf.nn.leaky_relu(x, 0.1),
    "softmax": lambda x: tf.nn.softmax(x, axis=-1),
    "clip": lambda x: tf.clip_by_value(x, 0.0, 2.0),
    "shapes": lambda x: tf.squeeze(tf.expand_dims(tf.reshape(x, (-1, 4, 48)), 1), axis=[1]),
    "concat": lambda x: tf.concat([x, tf.nn.relu(x)], axis=-1),
    "concat rows": lambda x: tf.concat(
        [x[:, 0], tf.reshape(x, (-1, 48, 4)), tf.nn.relu(x)[:, 1]], 1
    ),
    "mean": lambda x: tf.reduce_mean(x, axis=[1, 2]) + tf.reduce_mean(x, [1, 2], keepdims=False),
    "whole": lambda x: tf.reduce_max(x, (1, 2)) + tf.reduce_sum(x, axis=[1, 2]),
    "over channels": lambda x: tf.reduce_sum(x, -1) + tf.reduce_mean(x, 3, keepdims=True)[..., 0],
    "split": lambda x: tf.add(*tf.split(x, 2, axis=-1)) + tf.split(x, [1, 2, 1], 3)[1],
    "split rows": lambda x: tf.split(x, [3, 5], 1)[1],
    "indices": lambda x: x[:, 0] + x[:, -1, :, :] + x[:, None, 2][:, 0] + x[:, 1, ..., ::1],
    "pad": lambda x: tf.pad(x, [[0, 0], [1, 0], [2, 1], [0, 0]], "CONSTANT"),
    "pad channels": lambda x: tf.pad(x, [[0, 0], [0, 0], [0, 0], [1, 2]]),
    "pad features": lambda x: tf.pad(tf.reduce_mean(x, [1, 2]), [[0, 0], [1, 1]])[:, 1:],
    "pad nothing": lambda x: tf.pad(x, [[0, 0]] * 4),
    "of lists": lambda x: (
        tf.reduce_sum(tf.split(x, 2, -1), 0)
        + tf.reduce_mean([x[..., :2], x[..., 1:3]], axis=[0])
        - tf.reduce_max([x[..., :2], x[..., 2:]], axis=0)
    ),
    "pad rows": lambda x: tf.pad(tf.reshape(x, (-1, 48, 4)), tf.constant([[0, 0], [1, 2], [0, 0]])),
    "resize": lambda x: tf.image.resize(tf.image.resize(x, (16, 18), "nearest"), (16, 18)),
    "bilinear": lambda x: tf.image.resize(tf.image.resize(x, (13, 5)), (16, 10), "bilinear"),
    "bilinear of TensorFlow 1": lambda x: tf.compat.v1.image.resize_bilinear(
        tf.compat.v1.image.resize_bilinear(
            tf.compat.v1.image.resize(x, (16, 10), 0, align_corners=True), (5, 7)
        ),
        (9, 14),
        half_pixel_centers=True,
    ),
    "nearest of TensorFlow 1": lambda x: tf.compat.v1.image.resize(x, (16, 12), 1),
    "sizes": lambda x: tf.reshape(x, (tf.shape(x)[0], tf.shape(x)[1] * 6, 4)),
    "extremes": lambda x: tf.maximum(x[:, 1:], x[:, :-1]) - tf.minimum(x[:, 1:], x[:, :-1]),
    "transpose": lambda x: tf.transpose(tf.transpose(x, [0, 3, 1, 2]), perm=[0, 2, 1, 3])[:, :5],
    "blocks": lambda x: tf.nn.depth_to_space(x, 2) + tf.nn.depth_to_space(x, block_size=2),
    "blocks back": lambda x: tf.nn.space_to_depth(x[:, 2:], 2),
    "parts of six axes": lambda x: (
        tf.reshape(x, (-1, 4, 2, 3, 2, 4))[:, :, :, 1:, 1]
        + tf.reshape(x, (-1, 4, 2, 3, 2, 4))[:, :, :, ::2, 0]
    ),
    "six axes": lambda x: tf.transpose(tf.reshape(x, (-1, 8, 6, 2, 2, 1)), [0, 1, 3, 2, 4, 5]),
    "softmax of rows": lambda x: tf.nn.softmax(x, axis=1) + tf.nn.softmax(x, -2),
    "slices": lambda x: x[:, 1:, ::2, :3] + x[:, :7, ::2, 1:] + tf.identity(x)[..., 1:][:, 1:, ::2],
}
KERAS3 = {
    "arithmetic": lambda x: (2.0 - x) * 3.0 / 4.0 + x * x - (-x),
    "per channel": lambda x: ops.multiply(x, np.float32([1, 2, 3, 4])),
    "activations": lambda x: ops.relu(x) + ops.relu6(x) + ops.sigmoid(x) + ops.tanh(x),
    "silu": lambda x: ops.silu(x) + ops.leaky_relu(x, 0.1),
    "hard": lambda x: ops.hard_silu(x) + ops.hard_sigmoid(x),
    "softmax": lambda x: ops.softmax(x, axis=-1),
    "clip": lambda x: ops.clip(x, 0.0, 2.0),
    "shapes": lambda x: ops.squeeze(ops.expand_dims(ops.reshape(x, (-1, 4, 48)), 1), axis=1),
    "concat": lambda x: ops.concatenate([x, ops.relu(x)], axis=-1),
    "mean": lambda x: ops.mean(x, axis=(1, 2)) + ops.mean(x, axis=[1, 2]),
    "whole": lambda x: ops.max(x, (1, 2)) + ops.sum(x, axis=[1, 2]),
    "split": lambda x: ops.add(*ops.split(x, 2, axis=-1)) + ops.split(x, [1, 3], 3)[1],
    "indices": lambda x: x[:, 0] + x[:, -1, :, :] + x[:, None, 2][:, 0],
    "pad": lambda x: ops.pad(x, [[0, 0], [1, 0], [2, 1], [0, 0]]),
    "resize": lambda x: ops.image.resize(x, (16, 18), interpolation="nearest"),
    "bilinear": lambda x: keras_3.layers.Resizing(7, 11)(ops.image.resize(x, (13, 5))),
    "extremes": lambda x: ops.maximum(x[:, 1:], x[:, :-1]) - ops.minimum(x[:, 1:], x[:, :-1]),
    "transpose": lambda x: ops.transpose(x, (0, 3, 1, 2)),
    "blocks": lambda x: ops.space_to_depth(ops.depth_to_space(x, 2), 2),
    "softmax of rows": lambda x: ops.softmax(x, axis=1) + keras_3.layers.Softmax(2)(x),
    "slices": lambda x: x[:, 1:, ::2, :3] + x[:, :7, ::2, 1:],
}


@pytest.mark.parametrize(
    ("own", "wire"),
    [(keras, wire) for wire in TF.values()] + [(keras_3, wire) for wire in KERAS3.values()],
    ids=[f"tf {name}" for name in TF] + [f"keras3 {name}" for name in KERAS3],
)
def test_operations_compute_the_same(own, wire):
    image = own.Input(IMAGE, name="image")
    x = own.layers.Conv2D(4, 1, name="conv")(image)
    normal, origin = normalize(own.Model(image, wire(x)))
    assert {"image", "conv"} <= set(origin)
    assert isinstance(normal, keras.Model)


@pytest.mark.parametrize(
    ("wire", "what"),
    [
        (lambda x: x / x, "division by a tensor"),
        (lambda x: x[:, 1:] / x[:, :-1], "division by a tensor"),
        (lambda x: tf.reduce_mean(x, axis=2), "mean over axis 2"),
        (lambda x: tf.concat([x, x], axis=0), "axis=0; concatenate another axis"),
        (lambda x: x[:, tf.shape(x)[2] - 3], "index :, a tensor; slice with ranges"),
        (lambda x: tf.reshape(x, (-1, 4)), "which puts samples together; leave the batch alone"),
        (lambda x: x[:, 2:2, 1:], "index :, 2:2, 1:, : of shape"),
        (lambda x: tf.cast(tf.shape(x), tf.float32) * 1.0 + x, "tensors of shapes"),
        (lambda x: x + tf.ones_like(x)[0], "ones_like"),
        (lambda x: tf.stack([x, x], -1), "stack of tensors"),
        (lambda x: tf.reduce_sum(x, 1), "sum over axis 1"),
        (lambda x: tf.reduce_max(x, 1), "max over axis 1"),
        (lambda x: tf.split(x, 1, 0)[0], "split of axis 0"),
        (lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT"), "mode 'REFLECT'"),
        (lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 1]]), "pad height and width, or one"),
        (lambda x: tf.pad(x, [[1, 0], [0, 0], [0, 0], [0, 0]]), "leave the batch alone"),
        (lambda x: tf.reduce_sum([x, x], 1), "sum of a list of tensors over axis 1; take it over"),
        (lambda x: tf.nn.relu([x, x]), "relu of a list of tensors; concatenate or add"),
        (lambda x: tf.pad(x, [[0, 0]] * 4, "CONSTANT", 1.0), "with [1.0]; pad with zeros"),
        (lambda x: tf.pad(x, [[0, 0]] * 4, constant_values=1.0), "with [1.0]; pad with zeros"),
        (lambda x: tf.image.resize(x, (16, 12), "bicubic"), "interpolation 'bicubic'"),
        (lambda x: tf.image.resize(x, (16, 12), antialias=True), "resize with antialias; leave"),
        (lambda x: tf.image.resize(x, (12, 12), "nearest"), "resize from (8, 6) to (12, 12)"),
        (keras.layers.Resizing(8, 12, crop_to_aspect_ratio=True), "crop_to_aspect_ratio; resize"),
        (lambda x: x[:, ::-1], "runs backwards"),
        (lambda x: x[1:], "index"),
        (lambda x: tf.nn.softmax(x, axis=0), "axis=0; take the softmax over one axis"),
        (keras.layers.Softmax((1, 2)), "axis=[1, 2]; work over one axis but the batch"),
        (tf.transpose, "transpose to the reverse order; leave the batch"),
        (lambda x: tf.transpose(x, [1, 0, 2, 3]), "transpose to [1, 0, 2, 3]; leave the batch"),
        (
            lambda x: tf.transpose(tf.reshape(x, (-1, 8, 6, 2, 2, 1)), [0, 5, 4, 3, 2, 1]),
            "transpose of shape (None, 8, 6, 2, 2, 1) to [0, 5, 4, 3, 2, 1]; take 5 axes at most",
        ),
        (
            lambda x: tf.reshape(x, (-1, 4, 2, 3, 2, 4))[:, :, 1:, :, 1:],
            "slice of axes [2, 4] of shape (None, 4, 2, 3, 2, 4); slice tensors of 5 axes at most",
        ),
        (
            lambda x: tf.nn.space_to_depth(x, 2, "NCHW"),
            "space_to_depth of shape (None, 8, 6, 4) with data format NCHW; give it an image of",
        ),
        (lambda x: x + np.ones((1, 8, 1, 1), np.float32), "constant of shape"),
        (
            tf.cumsum,
            "operation tf.math.cumsum is not supported; use a layer, or an operation that ",
        ),
        (tf.nn.log_softmax, "in docs/supported.md (softmax"),
        (lambda x: x + tf.reshape(x, (-1, 192))[:, :1], "tensors of shapes"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(wire, what):
    image = keras.Input(IMAGE, name="image")
    model = keras.Model(image, wire(keras.layers.Conv2D(4, 1)(image)))
    with pytest.raises(ValueError, match=r"Cannot quantize model .*\n  - .*; ") as caught:
        normalize(model)
    assert what in str(caught.value)


def test_known_axes_of_tensors_of_open_sizes_are_cut():
    image = keras.Input((None, None, 3), name="image")
    x = keras.layers.Conv2D(4, 1)(image)
    model = keras.Model(image, tf.add(*tf.split(x, 2, -1)) + x[..., 1:3])
    normal, _ = normalize(model)
    assert normal.output_shape == (None, None, None, 2)
    again = keras.models.clone_model(normal)
    assert again(np.ones((1, 5, 6, 3), np.float32)).shape == (1, 5, 6, 2)
    with pytest.raises(ValueError, match=r"index :, 1:, :, : of a tensor of shape \(None, None"):
        normalize(keras.Model(image, x[:, 1:]))


def test_images_of_open_sizes_are_resized_by_a_factor():
    image = keras.Input((None, None, 3), name="image")
    x = keras.layers.UpSampling2D((2, 3), interpolation="bilinear")(image)
    normal, _ = normalize(keras.Model(image, x))
    assert normal.output_shape == (None, None, None, 3)
    assert normal(np.ones((1, 5, 6, 3), np.float32)).shape == (1, 10, 18, 3)
    with pytest.raises(ValueError, match=r"resize from \(None, None\) to \(16, 12\); use UpSampl"):
        normalize(keras.Model(image, tf.image.resize(x, (16, 12))))


def test_a_batch_of_a_fixed_size():
    image = keras.Input(batch_shape=(1, 4, 4, 3))
    x = tf.reshape(keras.layers.Conv2D(2, 1)(image), (1, -1))
    normal, _ = normalize(keras.Model(image, keras.layers.Dense(2)(x)))
    assert normal.output_shape == (1, 2)
