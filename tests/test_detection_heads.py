"""Heads of detectors: exact codes in the file, the outputs of the runtimes and of the C."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from exactness import assert_exact
from quick import slow

import tfbinreg
import tflite_tools

layers = keras.layers
BINS, CLASSES, ANCHORS = 8, 3, 2


def backbone(image):
    """Two levels, the second of half the size."""
    fine = layers.Conv2D(8, 3, 2, "same", activation="relu")(image)
    return fine, layers.Conv2D(12, 3, 2, "same", activation="relu")(fine)


def ssd(image):
    """Boxes and shares of classes for every anchor of every cell of both levels."""
    boxes, scores = [], []
    for x in backbone(image):
        boxes.append(layers.Reshape((-1, 4))(layers.Conv2D(ANCHORS * 4, 3, 1, "same")(x)))
        scores.append(
            layers.Reshape((-1, CLASSES))(layers.Conv2D(ANCHORS * CLASSES, 3, 1, "same")(x))
        )
    boxes = layers.Concatenate(axis=1, name="boxes")(boxes)
    return boxes, layers.Softmax(name="scores")(layers.Concatenate(axis=1)(scores))


def dfl_convolution(image):
    """Distances as means over bins, by a convolution that counts them (distribution focal loss)."""
    _, x = backbone(image)
    shares = layers.Softmax()(layers.Reshape((-1, 4, BINS))(layers.Conv2D(4 * BINS, 1)(x)))
    mean = layers.Conv2D(1, 1, use_bias=False, trainable=False, name="bins")
    distances = layers.Reshape((-1, 4), name="boxes")(mean(shares))
    mean.set_weights([np.arange(BINS, dtype=np.float32).reshape(1, 1, BINS, 1)])
    return distances, layers.Conv2D(CLASSES, 1, activation="sigmoid", name="scores")(x)


def dfl_sum(image):
    """The same as a sum over the last axis."""
    _, x = backbone(image)
    shares = tf.nn.softmax(tf.reshape(layers.Conv2D(4 * BINS, 1)(x), (-1, 16, 4, BINS)))
    distances = tf.reduce_sum(shares * np.arange(BINS, dtype=np.float32), -1)
    return distances, layers.Conv2D(CLASSES, 1, activation="sigmoid", name="scores")(x)


@pytest.mark.parametrize("head", [ssd, *slow(dfl_convolution, dfl_sum)])
def test_heads_are_exact(head):
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    model = keras.Model(image, head(image))
    images = np.random.default_rng(0).uniform(0, 1, (24, 16, 16, 3)).astype(np.float32)
    quantized = tfbinreg.quantize_apply(model, weight_bits=4, calibration_data=images)
    file = assert_exact(quantized, [images])
    stored, codes = tflite_tools.read_codes(file.data), tfbinreg.integer_codes(quantized)
    assert stored.keys() == codes.keys()
    for name, own in codes.items():
        np.testing.assert_array_equal(stored[name], own.codes)
