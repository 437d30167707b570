"""Operations with a constant kernel, of TensorFlow and of Keras 3."""

import keras as keras_3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from exactness import assert_exact

import tfbinreg
from tfbinreg.frontend.normalize import normalize

IMAGE = (8, 6, 4)
ops = keras_3.ops


def kernel(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def rows(x):
    return x[:, 1]


TF = {
    "conv2d": lambda x: tf.nn.conv2d(x, kernel(3, 2, 4, 5), 2, "SAME"),
    "convolution": lambda x: tf.nn.convolution(x, filters=kernel(3, 3, 4, 5), padding="SAME"),
    "groups": lambda x: tf.nn.conv2d(x, kernel(1, 1, 2, 6), [1, 2, 2, 1], "VALID"),
    "conv1d": lambda x: tf.nn.conv1d(rows(x), kernel(3, 4, 5), 2, "SAME"),
    "depthwise": lambda x: tf.nn.depthwise_conv2d(x, kernel(3, 3, 4, 2), [1, 2, 2, 1], "SAME"),
    "dilated": lambda x: tf.nn.convolution(x, kernel(3, 3, 4, 5), padding="SAME", dilations=2),
    "dilated along rows": lambda x: tf.nn.convolution(x, kernel(2, 3, 4, 5), dilations=[2, 1]),
    "dilated of a small kernel": lambda x: tf.nn.convolution(
        x, kernel(1, 2, 4, 1), 1, "VALID", dilations=2
    ),
    "dilated signals": lambda x: tf.nn.convolution(rows(x), kernel(3, 4, 5), dilations=[2]),
    "dilated groups": lambda x: tf.nn.convolution(x, kernel(2, 2, 2, 6), dilations=2),
    "atrous": lambda x: tf.nn.atrous_conv2d(x, kernel(3, 2, 4, 5), 2, "SAME"),
    "interleaved by hand": lambda x: tf.batch_to_space(
        tf.nn.conv2d(
            tf.space_to_batch(x, [2, 2], [[1, 1], [2, 2]]), kernel(2, 2, 4, 3), 1, "VALID"
        ),
        [2, 2],
        [[0, 0], [0, 1]],
    ),
    "separable": lambda x: tf.nn.separable_conv2d(
        x, kernel(3, 3, 4, 2), kernel(1, 1, 8, 5), [1, 1, 1, 1], "SAME", dilations=[2, 2]
    ),
    "transposed": lambda x: tf.nn.conv2d_transpose(
        x, kernel(3, 3, 5, 4), (tf.shape(x)[0], 16, 12, 5), 2
    ),
    "transposed signals": lambda x: tf.nn.conv1d_transpose(
        rows(x), kernel(3, 5, 4), (tf.shape(x)[0], 13, 5), 2, "VALID"
    ),
    "matmul": lambda x: tf.matmul(x, kernel(4, 5)) + tf.linalg.matmul(a=x, b=kernel(4, 5)),
    "turned": lambda x: tf.matmul(rows(x), kernel(5, 4), transpose_b=True),
    "features": lambda x: tf.nn.bias_add(x[:, 1, 2] @ kernel(4, 5), kernel(5)),
}
KERAS3 = {
    "conv": lambda x: ops.conv(x, kernel(3, 2, 4, 5), 2, "same", dilation_rate=1),
    "dilated": lambda x: ops.conv(x, kernel(3, 3, 4, 6), padding="same", dilation_rate=(1, 2)),
    "signals": lambda x: ops.conv(rows(x), kernel(3, 4, 5), 2),
    "depthwise": lambda x: ops.depthwise_conv(x, kernel(3, 3, 4, 2), 2, "same"),
    "depthwise signals": lambda x: ops.depthwise_conv(rows(x), kernel(3, 4, 1), 2, "same"),
    "separable": lambda x: ops.separable_conv(
        x, kernel(3, 3, 4, 2), kernel(1, 1, 8, 5), 2, "same", data_format="channels_last"
    ),
    "matmul": lambda x: ops.matmul(x, kernel(4, 5)) + kernel(5),
}


@pytest.mark.parametrize(
    ("own", "wire"),
    [(keras, wire) for wire in TF.values()] + [(keras_3, wire) for wire in KERAS3.values()],
    ids=[f"tf {name}" for name in TF] + [f"keras3 {name}" for name in KERAS3],
)
def test_they_compute_the_same(own, wire):
    image = own.Input(IMAGE, name="image")
    normal, _ = normalize(own.Model(image, wire(image)))  # which compares the outputs
    assert any(hasattr(layer, "kernel") for layer in normal.layers if layer.weights) or any(
        hasattr(layer, "depthwise_kernel") for layer in normal.layers
    )


@pytest.mark.parametrize(
    ("wire", "what"),
    [
        (
            lambda x: tf.matmul(x, x, transpose_b=True),
            "product of two tensors; it has no exact",
        ),
        (lambda x: tf.matmul(kernel(1, 1, 3, 8), x), "product with a constant from the left; take"),
        (lambda x: tf.matmul(x, kernel(1, 1, 4, 3)), "product with a constant of shape (1, 1, 4"),
        (lambda x: tf.matmul(x, 0 * kernel(4, 3)), "product with zeros only; train it first"),
        (lambda x: tf.matmul(x, np.nan * kernel(4, 3)), "product with NaN or infinite values"),
        (
            lambda x: tf.nn.conv2d(x, kernel(3, 3, 4, 2), 1, [[0, 0], [1, 0], [1, 0], [0, 0]]),
            "convolution with padding [[0, 0], [1, 0], [1, 0], [0, 0]]; use 'valid' or 'same'",
        ),
        (
            lambda x: tf.nn.conv2d(x, kernel(1, 1, 8, 2), 1, "SAME", "NCHW"),
            "with data format NCHW; give it an image or a signal, channels last",
        ),
        (
            lambda x: tf.nn.conv2d(x, kernel(3, 3, 4, 2), 2, "SAME", dilations=2),
            "convolution with strides and dilations; use one of them",
        ),
        (
            lambda x: tf.nn.relu(tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]])),
            "it reads a part of space_to_batch_nd, convolution and batch_to_space_nd; take all",
        ),
        (
            lambda x: tf.nn.conv2d(
                tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]]), kernel(2, 2, 4, 3), 2, "VALID"
            ),
            "it reads a part of space_to_batch_nd, convolution and batch_to_space_nd; take all",
        ),
        (
            lambda x: tf.batch_to_space(
                tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]]), [2, 2], [[0, 0], [0, 0]]
            ),
            "batch_to_space_nd of anything but a convolution behind space_to_batch_nd; take all",
        ),
        (
            lambda x: tf.batch_to_space(
                tf.nn.conv2d(
                    tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]]), kernel(2, 2, 4, 3), 1, "VALID"
                ),
                [2, 2],
                [[1, 0], [0, 0]],
            ),
            "batch_to_space_nd with crops ((1, 0), (0, 0))",
        ),
        (
            lambda x: tf.nn.conv2d_transpose(
                x, kernel(3, 3, 5, 4), (2, 12, 12, 5), 1, "VALID", dilations=2
            ),
            "transposed convolution with dilations; use a dilation of 1",
        ),
        (
            lambda x: tf.nn.conv2d_transpose(x, kernel(3, 3, 5, 4), (2, 15, 16, 5), 2),
            "transposed convolution from (None, 8, 8, 4) to (None, 15, 16, 5); make it (None, 16",
        ),
    ],
)
def test_what_has_no_layer_is_refused(wire, what):
    image = keras.Input((8, 8, 4), name="image")
    model = keras.Model(image, wire(keras.layers.Conv2D(4, 1)(image)))
    with pytest.raises(ValueError, match="Cannot quantize") as caught:
        normalize(model)
    assert what in str(caught.value)


class Standardized(keras.layers.Conv2D):
    """A convolution that standardizes its kernel, as in nets without normalization."""

    def build(self, shape):
        super().build(shape)
        self.gain = self.add_weight(name="gain", shape=(self.filters,), initializer="ones")
        plain = self.convolution_op

        def standardized(inputs, own):
            mean, variance = tf.nn.moments(own, [0, 1, 2], keepdims=True)
            scale = tf.math.rsqrt(tf.maximum(variance * 9.0, 1e-4)) * self.gain
            return plain(inputs, (own - mean) * scale)

        self.convolution_op = standardized


def test_a_layer_that_computes_its_kernel_is_exact():
    image = keras.Input((8, 8, 3), name="image")
    x = Standardized(8, 3, name="first")(image)
    x = keras.layers.ReLU()(Standardized(8, 3, groups=2, padding="same", name="grouped")(x))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    inputs = np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 3)).astype(np.float32)
    quantized = tfbinreg.quantize_apply(model, calibration_data=inputs)
    assert_exact(quantized, [inputs], with_c=False)


def test_operations_that_move_pixels_and_kernels_are_exact():
    image = keras.Input((8, 8, 3), name="image")
    x = tf.nn.depth_to_space(keras.layers.Conv2D(12, 3, padding="same")(image), 2)
    x = tf.nn.relu(tf.nn.convolution(x, kernel(3, 3, 3, 4), padding="SAME", dilations=2))
    x = tf.nn.space_to_depth(x, 2)
    x = tf.reshape(
        tf.transpose(tf.reshape(x, (-1, 8, 8, 2, 2, 4)), [0, 1, 3, 2, 4, 5]), (-1, 16, 64)
    )
    x = tf.nn.conv1d_transpose(x, kernel(2, 3, 64), (tf.shape(x)[0], 32, 3), 2)
    model = keras.Model(image, keras.layers.GlobalAveragePooling1D()(x))
    inputs = np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 3)).astype(np.float32)
    quantized = tfbinreg.quantize_apply(model, calibration_data=inputs)
    assert_exact(quantized, [inputs])
