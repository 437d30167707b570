"""Codebooks, signs and filters of different widths, packed and read back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tflite_tools.c import coding
from tflite_tools.c.coding import Coded

HUGE = 10**9


def drawn(rows, taps, levels, seed=0):
    return np.random.default_rng(seed).choice(np.array(levels, np.int8), (rows, taps))


@pytest.mark.parametrize(
    ("levels", "bits", "table"),
    [
        ((-1, 1), 1, None),
        ((-3, 7), 1, [-3, 7]),
        ((-4, 0, 4), 2, [-4, 0, 4]),
        ((-64, -9, -1, 0, 1, 9, 64), 3, [-64, -9, -1, 0, 1, 9, 64]),
        (tuple(range(-120, 120, 15)), 4, list(range(-120, 120, 15))),
    ],
)
@pytest.mark.parametrize("taps", [1, 9, 17, 64, 100])
def test_a_codebook_becomes_indices(levels, bits, table, taps):
    codes = np.concatenate(
        [np.resize(np.array(levels, np.int8), (16, taps)), drawn(5, taps, levels)]
    )
    coded = coding.smallest(codes, HUGE)
    np.testing.assert_array_equal(coded.codes(*codes.shape), codes)
    indexed = coding._indexed(codes)
    np.testing.assert_array_equal(indexed.codes(*codes.shape), codes)
    assert indexed.bits == bits and coded.size <= indexed.size
    assert (None if indexed.levels is None else indexed.levels.tolist()) == table
    assert indexed.stream.size == -(-codes.size * bits // 8)


@given(st.lists(st.sampled_from(coding.WIDTHS), min_size=1, max_size=9), st.integers(1, 70))
def test_filters_of_any_widths_read_back(widths, taps):
    random = np.random.default_rng([*widths, taps])
    limits = {0: (0, 0), 1: (-1, 1), 2: (-2, 1), 3: (-4, 3), 4: (-8, 7), 8: (-127, 127)}
    codes = np.array([random.integers(*limits[b], taps, endpoint=True) for b in widths], np.int8)
    codes[np.array(widths) == 1] |= 1
    mixed = coding._mixed(codes)
    np.testing.assert_array_equal(mixed.codes(*codes.shape), codes)
    assert all(own <= asked for own, asked in zip(mixed.widths.tolist(), widths, strict=True))


def test_pruned_filters_take_no_bits():
    codes = np.zeros((8, 90), np.int8)
    codes[3] = drawn(1, 90, range(-8, 8))
    coded = coding.smallest(codes, 8 * 45)
    assert coded.widths.tolist() == [0, 0, 0, 4, 0, 0, 0, 0] and coded.size == 45 + 8


def test_filters_with_tables_of_their_own():
    tables = [(-90, -7, 7, 90), (-127, 127), (0,), (-3, 0, 50), (5,)]
    codes = np.concatenate([drawn(1, 90, levels, seed) for seed, levels in enumerate(tables)])
    coded = coding.smallest(codes, HUGE)
    assert coded.widths.tolist() == [2, 1, 0, 2, 1] and coded.stride == 4 and coded.bits == 0
    assert coded.levels.reshape(5, 4)[1].tolist() == [-127, 127, 0, 0]
    assert coded.size == -(-6 * 90 // 8) + 5 * 4 + 5
    np.testing.assert_array_equal(coded.codes(*codes.shape), codes)
    same = coding.smallest(codes[[0, 3]], HUGE)
    assert (same.bits, same.widths, same.stride) == (2, None, 4)
    np.testing.assert_array_equal(same.codes(2, 90), codes[[0, 3]])


def test_tables_that_share_their_levels_are_one():
    coded = coding.smallest(drawn(8, 90, (-127, -40, 40, 127)), HUGE)
    assert coded.stride == 0 and coded.levels.tolist() == [-127, -40, 40, 127]


def test_what_is_no_smaller_is_left():
    codes = drawn(4, 9, range(-8, 8))
    assert coding.smallest(codes, 18) is None
    assert coding.smallest(drawn(4, 64, range(-100, 100)), 4 * 64) is None


@pytest.mark.parametrize(
    ("coded", "message"),
    [
        (Coded(np.zeros(3, np.uint8), 1), "3 bytes do not hold 4 rows of 4 weights"),
        (Coded(np.zeros(1, np.uint8), 1), "do not hold"),
        (Coded(np.full(4, 255, np.uint8), 2, np.int8([1, 2, 3])), "3 levels are fewer"),
        (Coded(np.full(2, 255, np.uint8), 1, np.int8([1] * 4), stride=1), "1 levels are fewer"),
        (Coded(np.zeros(2, np.uint8), 0, widths=np.uint8([1, 1, 1])), "none of 4 filters"),
        (Coded(np.zeros(2, np.uint8), 0, widths=np.uint8([1, 1, 1, 5])), "none of 4 filters"),
    ],
)
def test_damaged_weights_are_refused(coded, message):
    with pytest.raises(ValueError, match=message):
        coded.codes(4, 4)


def test_widths_of_channels():
    assert [coding.width(bits) for bits in (0, 1, 2, 3, 4, 5, 8)] == [0, 1, 2, 3, 4, 8, 8]
