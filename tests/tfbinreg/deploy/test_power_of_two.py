"""Nets whose scales are powers of two: training computes what the integers compute, but for halves.

Before `finalize` inference rounds halves up. LiteRT rounds them to even, and TFLM away from zero,
after a first rounding of twice the value. With powers of two sums lie on halves often.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from quick import slow

import tfbinreg
from tfbinreg import recipes
from tfbinreg.core.target import LITERT, TFLM

layers = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(128, 8, 8, 4)).astype(np.float32)


def _normalized(layer):
    return lambda x: layers.ReLU(name="here")(layers.BatchNormalization(name="norm")(layer(x)))


def _added(x):
    return layers.ReLU(name="here")(layers.Add(name="sum")([x, layers.Cropping2D(1)(_padded(x))]))


def _padded(x):
    return layers.ZeroPadding2D(((2, 0), (0, 2)))(x)


PARTS = {
    "convolution": _normalized(layers.Conv2D(6, 3, use_bias=False, name="part")),
    "depthwise": _normalized(layers.DepthwiseConv2D(3, use_bias=False, name="part")),
    "addition": _added,
    "maximum": layers.MaxPooling2D(2, name="here"),
    "average": layers.AveragePooling2D(2, name="here"),
    "mean": layers.GlobalAveragePooling2D(name="here"),
    "dense": lambda x: layers.Dense(5, name="here")(layers.Flatten(name="flat")(x)),
}


def compared(part, bits, target):
    """What a part gives before and after `finalize`, and what it rounds before, all in steps."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 4), name="image")
    here = PARTS[part](image)
    flat = here if len(here.shape) == 2 else layers.Flatten(name="last_flat")(here)
    outputs = [here] if part == "dense" else [here, layers.Dense(2, name="head")(flat)]
    source = keras.Model(image, outputs, name="net")
    recipe = dataclasses.replace(recipes.hardware_friendly(bits), target=target)
    model = tfbinreg.quantize_apply(source, recipe, calibration_data=IMAGES)
    names = {layer.name for layer in model.layers}
    grid = model.get_layer("here_grid" if "here_grid" in names else "image_grid")
    step = float(grid.stored_grid()[0])
    assert step == 2.0 ** round(np.log2(step))
    raw = keras.Model(model.inputs, grid.get_input_at(len(grid.inbound_nodes) - 1))
    rounded, before = raw(IMAGES, training=False), tf.nest.flatten(model(IMAGES))[0]
    tfbinreg.finalize(model)
    after = tf.nest.flatten(model(IMAGES))[0]
    return [np.asarray(array, np.float64) / step for array in (rounded, before, after)]


@pytest.mark.parametrize("target", [LITERT, TFLM])
@pytest.mark.parametrize("bits", [3, *slow(8)])
@pytest.mark.parametrize("part", PARTS)
def test_they_differ_at_halves_alone(part, bits, target):
    rounded, before, after = compared(part, bits, target)
    differ = before != after
    assert np.max(np.abs(after - before)) <= 1.0
    if part in ("maximum", "average"):
        assert not differ.any()  # these follow the runtimes already
        return
    values, rest = rounded[differ], rounded[differ] % 1.0
    if target == LITERT:
        assert np.all(rest == 0.5)
    elif bits == 3 and part != "mean":
        assert np.all((rest == 0.5) & (values < 0))  # sums are multiples of the pre-scale
    else:  # what lies a little below a half is one after the first rounding
        assert np.all(((rest == 0.5) & (values < 0)) | ((rest < 0.5) & (rest >= 0.375)))
