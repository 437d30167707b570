"""Normalizations as factors and offsets, by arrays and by tensors."""

import numpy as np
import pytest
import tf_keras as keras

from tfbinreg.network.added_layers import ChannelAffine
from tfbinreg.network.normalizations import (
    ARRAYS,
    TENSORS,
    Affine,
    Statistics,
    affine_of,
    fold_norms,
)

VALUES = {
    "gamma": [2.0, -0.5, 0.0],
    "beta": [0.1, 0.2, 0.3],
    "moving_mean": [1.0, -1.0, 3.0],
    "moving_variance": [0.5, 2.0, 0.0],
    "scale": [3.0, -1.0, 0.5],
    "offset": [0.0, 4.0, -2.0],
}


def made(layer):
    """A layer for three channels with the values above."""
    layer.build((None, 3))
    for weight in layer.weights:
        weight.assign(VALUES[weight.name.split("/")[-1].split(":")[0]])
    return layer


def norms():
    own = keras.layers.BatchNormalization
    return [
        made(own(epsilon=0.01)),
        made(own(scale=False)),
        made(own(center=False)),
        made(ChannelAffine()),
    ]


@pytest.mark.parametrize("numbers", [ARRAYS, TENSORS], ids=["arrays", "tensors"])
@pytest.mark.parametrize("index", range(4))
def test_one_is_what_the_layer_computes(index, numbers):
    norm, x = norms()[index], np.array([[0.5, -1.0, 2.0], [3.0, 0.0, -4.0]], np.float32)
    found = affine_of(norm, numbers)
    np.testing.assert_allclose(found.factor * x + found.offset, norm(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("numbers", [ARRAYS, TENSORS], ids=["arrays", "tensors"])
def test_several_are_one(numbers):
    x = np.array([[0.5, -1.0, 2.0]], np.float32)
    start = Affine(np.ones(3, np.float32), np.array([1.0, 2.0, 3.0], np.float32))
    expected = x + start.offset
    for norm in norms():
        expected = norm(expected)
    found = fold_norms(start, norms(), numbers)
    np.testing.assert_allclose(found.factor * x + found.offset, expected, rtol=1e-4)


def test_statistics_take_the_place_of_the_moving_ones():
    given = Statistics(np.array([1.0, 2.0, 3.0]), np.array([4.0, 4.0, 4.0]))
    found = affine_of(norms()[0], ARRAYS, given)
    np.testing.assert_allclose(found.factor, np.array(VALUES["gamma"]) / np.sqrt(4.01))
    np.testing.assert_allclose(found.offset, VALUES["beta"] - found.factor * given.mean, rtol=1e-6)


def test_arrays_are_float64():
    assert affine_of(norms()[0], ARRAYS).factor.dtype == np.float64
