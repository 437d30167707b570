"""Factors folded into codes: small numbers by hand."""

import numpy as np
import pytest

from tfbinreg.core.channel_folding import channels_last, fold, original_layout
from tfbinreg.core.grid import Grid

SOURCE = Grid(8, True, np.array(0.01), -128, 127)
TARGET = Grid(8, True, np.array(0.05), -128, 127)
WEIGHTS = Grid(2, True, np.array([0.1, 1e-7, 0.2]), -2, 1, axis=1)
ROWS = np.array([[1, -2, 0], [-1, 1, 1]])


def folded(factor, offset):
    return fold(ROWS, WEIGHTS, np.array(factor), np.array(offset), SOURCE, TARGET)


def test_signs_go_to_the_codes_and_sizes_to_the_scales():
    rows, scale = folded([2.0, 1.0, -0.5], [0.0, 0.0, 0.0])
    np.testing.assert_array_equal(rows, ROWS * [1, 1, -1])
    np.testing.assert_allclose(scale, [0.2, 1e-7, 0.1], rtol=1e-6)


def test_tiny_weights_keep_their_codes_while_the_bias_fits():
    rows, scale = folded([1.0, 1.0, 1.0], [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(rows, ROWS)
    assert 1.0 / (0.01 * scale[1]) < 2**31


def test_tiny_weights_with_a_plain_bias_get_a_coarser_scale():
    rows, scale = folded([1.0, 1.0, 1.0], [0.0, 5.0, 0.0])
    np.testing.assert_array_equal(rows, ROWS * [1, 0, 1])
    assert scale[1] == np.float32(0.2)


def test_a_layer_of_tiny_weights_only():
    grid = Grid(2, True, np.array(1e-9), -2, 1)
    rows, scale = fold(ROWS, grid, np.ones(3), np.full(3, 4.0), SOURCE, TARGET)
    assert not rows.any() and scale.shape == ()
    assert 4.0 / (0.01 * float(scale)) <= 2**30 * (1 + 1e-6)


def test_a_pruned_channel_takes_the_scale_of_the_others():
    scales = np.array([0.1, 500.0, 0.2])
    grid = Grid(2, True, scales, -2, 1, axis=1, channel_bits=(2, 0, 2))
    rows, scale = fold(ROWS * [1, 0, 1], grid, np.ones(3), np.full(3, 0.3), SOURCE, TARGET)
    np.testing.assert_array_equal(rows, ROWS * [1, 0, 1])
    np.testing.assert_allclose(scale, [0.1, 0.2, 0.2], rtol=1e-6)


def test_a_pruned_layer_counts_its_biases_in_small_parts_of_a_level():
    grid = Grid(2, True, np.array([1e-9, 500.0, 1.0]), -2, 1, axis=1, channel_bits=(0, 0, 0))
    rows, scale = fold(ROWS * 0, grid, np.ones(3), np.full(3, 0.3), SOURCE, TARGET)
    assert not rows.any()
    np.testing.assert_allclose(scale * 0.01, 0.05 / 2**16, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "shape", "rows"),
    [
        ("Conv2D", (3, 3, 2, 4), (18, 4)),
        ("DepthwiseConv2D", (3, 3, 2, 4), (9, 8)),
        ("Conv2DTranspose", (3, 3, 4, 2), (18, 4)),
        ("Dense", (5, 3), (5, 3)),
    ],
)
def test_layouts_are_inverse(kind, shape, rows):
    codes = np.arange(np.prod(shape)).reshape(shape)
    flat = channels_last(kind, codes)
    assert flat.shape == rows
    np.testing.assert_array_equal(original_layout(kind, flat, shape), codes)
