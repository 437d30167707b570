"""Factors and biases in three bytes, against TFLM's arithmetic on single numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tflite_tools.arithmetic import fixed_point
from tflite_tools.arithmetic.short_constants import (
    FactorForm,
    bias_unit,
    factor_form,
    round_alike,
    stored,
)

MULTIPLIERS = st.integers(2**30, 2**31 - 1)
SHIFTS = st.integers(-20, 6)


def arrays(*values):
    return tuple(np.array([value], np.int64) for value in values)


def unpacked(short, channel):
    """(multiplier, shift, bias) of a channel, read as C reads them."""
    base, fraction, unit = (int(value) for value in short.form)
    word = int.from_bytes(bytes(short.words[channel]), "little")
    code, bias = word & 0xFFF, word >> 12
    above = code >> fraction
    multiplier = 2**30 + ((code << (30 - fraction)) & (2**30 - 1))
    bias -= 4096 if bias >= 2048 else 0
    return multiplier, base + above, bias << max(unit - above, 0)


@given(MULTIPLIERS, SHIFTS, st.integers(-255, 255), st.integers(-3, 3))
def test_factors_that_round_alike_do_so_near_every_threshold(multiplier, shift, output, offset):
    """The twin: sums around the one that reaches an output, one by one."""
    near = min(multiplier + 1, 2**31 - 1)
    [alike] = round_alike(*arrays(multiplier, shift, near, shift))
    sums = int(output * 2.0**31 / multiplier * 2.0**-shift) + offset
    if alike and abs(sums) < 2**30 >> max(shift, 0):
        one, other = (fixed_point.scale(sums, m, shift) for m in (multiplier, near))
        assert one == other or max(abs(one), abs(other)) > 255


def test_a_factor_that_moves_one_threshold_is_another():
    multiplier, shift = 1_500_000_001, -9
    assert round_alike(*arrays(multiplier, shift, multiplier, shift))
    assert not round_alike(*arrays(multiplier, shift, multiplier + 2**20, shift))
    wrong = [
        total for total in range(-(2**17), 2**17)
        if fixed_point.scale(total, multiplier, shift)
        != fixed_point.scale(total, multiplier + 2**20, shift)
    ]  # fmt: skip
    assert wrong


def test_the_form_follows_the_spread():
    half = np.array([2**30] * 2)
    assert factor_form(half, np.array([-5, -5])) == FactorForm(-5, 12)
    assert factor_form(half, np.array([-5, -2])) == FactorForm(-5, 10)
    assert factor_form(half, np.array([-20, -5])) == FactorForm(-20, 8)
    assert factor_form(half, np.array([-21, -5])) is None
    assert factor_form(half, np.array([-23, -22])) is None
    assert factor_form(half, np.array([8, 8])) is None
    assert factor_form(np.array([0, 2**30]), np.array([0, 0])) is None
    # Nearly two is two, an octave above.
    assert factor_form(np.array([2**31 - 1] * 2), np.array([-5, -5])) == FactorForm(-4, 12)


def test_the_smallest_unit_holds_the_biases():
    octaves = np.array([0, 1])
    assert bias_unit(np.array([2047.4, -2047.4]), octaves) == 0
    assert bias_unit(np.array([2047.6, 0.0]), octaves) == 1
    assert bias_unit(np.array([0.0, 2047.6]), octaves) == 2  # which its octave halves
    assert bias_unit(np.array([2.0**50, 0.0]), octaves) is None


@given(
    st.lists(st.integers(0, 4095), min_size=1, max_size=6),
    st.integers(-20, -8),
    st.integers(8, 12),
    st.integers(0, 9),
    st.data(),
)
def test_what_is_stored_is_read_again(codes, base, fraction, unit, data):
    codes = np.array(codes)
    form = FactorForm(base, fraction)
    multipliers, shifts = form.factors(codes)
    whole = data.draw(st.lists(st.integers(-2047, 2047), min_size=len(codes), max_size=len(codes)))
    biases = np.array(whole) << np.maximum(unit - form.octaves(codes), 0)
    short = stored(multipliers, shifts, biases)
    assert short is not None and short.words.shape == (len(codes), 3)
    read = [unpacked(short, channel) for channel in range(len(codes))]
    assert read == list(zip(multipliers, shifts, biases, strict=True))


@pytest.mark.parametrize("change", ["factor", "bias", "spread"])
def test_what_would_change_an_output_is_not_stored(change):
    multipliers, shifts = FactorForm(-9, 11).factors(np.array([5, 2**11 + 7]))
    biases = np.array([1000 * 64, -30 * 64])
    assert stored(multipliers, shifts, biases) is not None
    if change == "factor":
        multipliers = multipliers + 2**17
    elif change == "bias":
        biases = biases + [1, 0]
    else:
        shifts = np.array([-22, -2])
    assert stored(multipliers, shifts, biases) is None
