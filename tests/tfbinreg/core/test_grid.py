import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfbinreg.core import grid
from tfbinreg.core.grid import CodedTensor, Grid

BITS = st.integers(2, 8)


def weight_grid(bits, scale=0.125, axis=None):
    return Grid(bits, True, scale, *grid.weight_code_range(bits), axis)


@pytest.mark.parametrize("bits", [2, 8, np.int64(4), np.uint8(3)])
def test_bits_become_a_plain_int(bits):
    assert type(grid.check_bits(bits)) is int
    assert grid.check_bits(bits) == bits


@pytest.mark.parametrize("bits", [1, 9, -2, 0, "two", "4", 4.0, True, None, np.float32(4)])
def test_other_bits_are_refused_by_name(bits):
    with pytest.raises(ValueError, match="head bits must be an integer from 2 to 8") as caught:
        grid.check_bits(bits, "head bits")
    assert repr(bits) in str(caught.value)


def test_code_ranges():
    assert [grid.code_range(bits, True) for bits in (2, 4, 8)] == [(-2, 1), (-8, 7), (-128, 127)]
    assert [grid.code_range(bits, False) for bits in (2, 4, 8)] == [(0, 3), (0, 15), (0, 255)]
    weights = [grid.weight_code_range(bits) for bits in (2, 3, 7, 8)]
    assert weights == [(-2, 1), (-4, 3), (-64, 63), (-127, 127)]


@pytest.mark.parametrize("scale", [0.0, -0.5, np.nan, np.inf])
def test_scale_must_be_finite_and_positive(scale):
    with pytest.raises(ValueError, match="finite, positive scales"):
        weight_grid(4, scale)
    with pytest.raises(ValueError, match="finite, positive scales"):
        weight_grid(4, [0.5, scale], axis=3)


@pytest.mark.parametrize(("scale", "axis"), [([0.5, 0.25], None), (0.5, 1)])
def test_scale_must_fit_the_axis(scale, axis):
    with pytest.raises(ValueError, match="does not fit axis"):
        weight_grid(4, scale, axis)


def test_a_grid_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        weight_grid(4).bits = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        CodedTensor(np.zeros(2, np.int8), np.float32(1), 0, 2).bits = 3


def test_scale_is_float32():
    assert weight_grid(4, 0.1).scale.dtype == np.float32
    assert weight_grid(4, 0.1).scale == np.float32(0.1)


@pytest.mark.parametrize(
    ("bits", "levels", "qmax_abs", "prescale"),
    [
        (2, 4, 2, 32),
        (3, 8, 4, 16),
        (4, 16, 8, 8),
        (5, 32, 16, 4),
        (7, 128, 64, 1),
        (8, 255, 127, 1),
    ],
)
def test_weight_grid_numbers(bits, levels, qmax_abs, prescale):
    own = weight_grid(bits)
    assert (own.levels, own.qmax_abs, grid.prescale(bits)) == (levels, qmax_abs, prescale)
    assert own.qmin * prescale >= -127
    assert own.qmax * prescale <= 127


@pytest.mark.parametrize(("bits", "prescale"), [(2, 4), (3, 2), (4, 1), (5, 4), (8, 1)])
def test_codes_that_int4_holds(bits, prescale):
    assert grid.prescale(bits, 4) == prescale
    own = weight_grid(bits)
    assert bits > 4 or (own.qmin * prescale, own.qmax * prescale <= 7) == (-8, True)


@pytest.mark.parametrize(("bits", "zero_point"), [(2, 124), (4, 112), (8, -128)])
def test_unsigned_codes_end_at_the_top_of_int8(bits, zero_point):
    own = Grid(bits, False, 0.5, *grid.code_range(bits, False))
    assert own.zero_point == zero_point
    assert own.qmax + own.zero_point == 127


def test_codes_round_halves_up_and_clip():
    values = [-9.0, -0.3125, -0.25, -0.1875, -0.0625, 0.0, 0.0625, 0.1875, 0.3, 9.0]
    own = weight_grid(3)
    codes = own.codes(values)
    assert codes.dtype == np.int32
    assert codes.tolist() == [-4, -2, -2, -1, 0, 0, 1, 2, 2, 3]
    np.testing.assert_array_equal(own.values([-4, 0, 3]), np.float32([-0.5, 0, 0.375]))


def test_codes_per_channel():
    own = weight_grid(3, [0.5, 0.25, 1.0], axis=1)
    assert own.broadcast_scale(4).shape == (1, 3, 1, 1)
    values = np.full((2, 3), 0.75)
    assert own.codes(values).tolist() == [[2, 3, 1]] * 2
    np.testing.assert_array_equal(own.values(own.codes(values)), [[1.0, 0.75, 1.0]] * 2)


@given(BITS, st.booleans(), st.floats(2.0**-20, 2.0**10), st.integers(0, 2**32 - 1))
def test_every_level_keeps_its_code_and_values_stay_near(bits, signed, scale, seed):
    own = Grid(bits, signed, scale, *grid.code_range(bits, signed))
    codes = np.arange(own.qmin, own.qmax + 1)
    np.testing.assert_array_equal(own.codes(own.values(codes)), codes)
    inside = np.random.default_rng(seed).uniform(own.qmin, own.qmax, 50) * own.scale
    distance = np.abs(own.values(own.codes(inside)) - inside)
    assert np.all(distance <= own.scale * 0.5001)
