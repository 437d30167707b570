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


def test_bits_of_a_kernel_are_a_number_or_one_for_each_channel():
    for same in ([0, 1, 8], (0, 1, 8), np.array([0, 1, 8])):
        bits = grid.check_weight_bits(same)
        assert bits == (0, 1, 8) and all(type(own) is int for own in bits)
    assert [grid.check_weight_bits(own) for own in (0, np.int64(1), 8)] == [0, 1, 8]
    for wrong, what in [
        (9, "head bits must"),
        ((2, 9), r"head bits\[1\] must"),
        ("2", "head bits"),
    ]:
        with pytest.raises(ValueError, match=f"{what}.* be an integer from 0 to 8"):
            grid.check_weight_bits(wrong, "head bits")
    with pytest.raises(ValueError, match="head bits must be a number, or one for each channel"):
        grid.check_weight_bits([], "head bits")


def test_bits_of_a_kernel_in_words():
    told = {4: "4", (2, 8, 4): "2-8", (0, 4, 0): "0-4, 2 pruned", (3, 3): "3", (0,): "0, 1 pruned"}
    assert {bits: grid.bits_text(bits) for bits in told} == told
    assert [grid.widest(bits) for bits in (3, (1, 4), (0, 0))] == [3, 4, 1]


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
    assert (own.level_count, own.qmax_abs, grid.prescale(own.qmin, own.qmax)) == (
        levels,
        qmax_abs,
        prescale,
    )
    assert own.qmin * prescale >= -127
    assert own.qmax * prescale <= 127


@pytest.mark.parametrize(("bits", "prescale"), [(2, 4), (3, 2), (4, 1), (5, 4), (8, 1)])
def test_codes_that_int4_holds(bits, prescale):
    own = weight_grid(bits)
    assert grid.prescale(own.qmin, own.qmax, 4) == prescale
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


UNEVEN = (-4, -1, 0, 1, 4)


def test_a_codebook_takes_the_nearest_level_and_ties_go_up():
    own = Grid.codebook(UNEVEN, 0.5)
    assert (own.bits, own.qmin, own.qmax, own.level_count) == (3, -4, 4, 5)
    ratios = [-9, -4, -2.6, -2.5, -2.4, -0.6, -0.5, 0.4, 0.5, 2.4, 2.5, 9]
    codes = own.codes(np.multiply(ratios, 0.5))
    assert codes.dtype == np.int32
    assert codes.tolist() == [-4, -4, -4, -1, -1, -1, 0, 0, 1, 1, 4, 4]
    np.testing.assert_array_equal(own.values([-4, 1]), np.float32([-2.0, 0.5]))


def test_a_codebook_of_all_codes_is_the_evenly_spaced_grid():
    even = weight_grid(3)
    own = Grid.codebook(range(-4, 4), 0.125)
    values = np.linspace(-1.0, 1.0, 1025)
    np.testing.assert_array_equal(own.codes(values), even.codes(values))
    assert (own.bits, own.qmin, own.qmax) == (even.bits, even.qmin, even.qmax)


def test_one_bit_is_a_sign():
    own = Grid.codebook((-1, 1), [0.5, 2.0], axis=1)
    assert (own.bits, grid.prescale(own.qmin, own.qmax), own.code_bits(10)) == (1, 64, 10)
    assert own.codes([[-0.1, 0.0], [7.0, -0.0]]).tolist() == [[-1, 1], [1, 1]]


def test_bits_per_channel():
    own = Grid(4, True, np.ones(4), -8, 7, 1, channel_bits=(0, 1, 2, 4))
    codes = own.codes(np.outer([-9.0, -0.2, 0.3, 9.0], np.ones(4)))
    assert codes.T.tolist() == [[0, 0, 0, 0], [-1, -1, 1, 1], [-2, 0, 0, 1], [-8, 0, 0, 7]]
    assert own.code_bits(8) == 14
    turned = Grid(4, True, np.ones(4), -8, 7, -1, channel_bits=(0, 1, 2, 4))
    np.testing.assert_array_equal(turned.codes(np.eye(4) * 3), own.codes(np.eye(4) * 3))


def test_a_codebook_per_channel():
    own = Grid.codebooks([(0,), (-1, 1), (-9, 0, 4)], np.ones(3), 1)
    codes = own.codes(np.outer([-9.0, -0.2, 0.3, 9.0], np.ones(3)))
    assert codes.T.tolist() == [[0, 0, 0, 0], [-1, -1, 1, 1], [-9, 0, 0, 4]]
    assert (own.bits, own.qmin, own.qmax, own.level_count) == (2, -9, 4, 3)
    assert own.widths == (0, 1, 2) and own.code_bits(12) == 12
    one = Grid.codebooks([UNEVEN] * 2, [0.5, 2.0], 0)
    values = np.random.default_rng(0).normal(size=(2, 50)) * 4
    same = Grid.codebook(UNEVEN, [0.5, 2.0], 0)
    np.testing.assert_array_equal(one.codes(values), same.codes(values))


@pytest.mark.parametrize(
    ("levels", "axis", "message"),
    [
        ([(0,), (-1, 1)], 1, r"2 codebooks do not fit scales of \(3,\)"),
        ([(0,), (-1, 1), (3,)], 1, "at least two levels, ascending, got"),
        ([(0,), (-1, 1), ()], 1, "at least two levels"),
        ([(0,), (2, 1), (-1, 1)], 1, "ascending"),
        ([(0,), (-1, 1), (-128, 1)], 1, "Levels lie in"),
    ],
)
def test_impossible_codebooks_per_channel_are_refused(levels, axis, message):
    with pytest.raises(ValueError, match=message):
        Grid.codebooks(levels, np.ones(3), axis)


def test_codebooks_whose_grid_says_otherwise_are_refused():
    levels = ((-1, 1), (-9, 0, 4))
    with pytest.raises(ValueError, match=r"from -9 to 4 of 2 bits do not fit .* Grid.codebooks"):
        Grid(3, True, np.ones(2), -9, 4, 0, channel_levels=levels)
    with pytest.raises(ValueError, match="do not fit this grid"):
        Grid(2, True, np.ones(2), -8, 4, 0, channel_levels=levels)
    with pytest.raises(ValueError, match="not both"):
        Grid(2, True, np.ones(2), -9, 4, 0, channel_bits=(1, 2), channel_levels=levels)


@pytest.mark.parametrize(
    ("levels", "prescale", "int4"),
    [(UNEVEN, 16, 1), ((-1, 1), 64, 4), ((-1, 3), 32, 2), ((-100, 3), 1, 1), ((-127, 127), 1, 1)],
)
def test_codebooks_are_prescaled_as_far_as_they_fit(levels, prescale, int4):
    assert grid.prescale(levels[0], levels[-1]) == prescale
    assert grid.prescale(levels[0], levels[-1], 4) == int4


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((), "at least two levels"),
        ((3,), "at least two levels"),
        ((1, 1, 2), "ascending"),
        ((2, -1), "ascending"),
        ((-128, 1), "Levels lie in"),
        ((0, 128), "Levels lie in"),
    ],
)
def test_impossible_codebooks_are_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        Grid.codebook(levels, 1.0)


def test_a_codebook_whose_grid_says_otherwise_is_refused():
    with pytest.raises(ValueError, match=r"5 levels from -4 to 4 .* 3 bits: make it with"):
        Grid(4, True, 1.0, -4, 4, levels=UNEVEN)
    with pytest.raises(ValueError, match="not both"):
        Grid(3, True, np.ones(1), -4, 4, 0, UNEVEN, (3,))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": 1.0, "axis": None}, r"1 channels have bits, scales of \(\) do not"),
        ({"channel_bits": (2, 2)}, "2 channels have bits"),
        ({"channel_bits": (2, -1, 3)}, "Bits per channel lie in 0 to 3"),
        ({"channel_bits": (2, 4, 3)}, "Bits per channel lie in 0 to 3"),
        ({"qmax": 1}, "Codes of 3 bits do not fit -4 to 1"),
        ({"signed": False}, "Codes of 3 bits do not fit"),
    ],
)
def test_impossible_bits_per_channel_are_refused(fields, message):
    even = {"bits": 3, "signed": True, "scale": np.ones(3), "qmin": -4, "qmax": 3, "axis": 0}
    even |= {"channel_bits": (3,) if fields.get("axis", 0) is None else (0, 2, 3)}
    Grid(**even | {"axis": 0, "scale": np.ones(len(even["channel_bits"]))})
    with pytest.raises(ValueError, match=message):
        Grid(**even | fields)
