"""Fields of a few bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tflite_tools.schema import bit_fields


@given(st.integers(2, 8), st.data())
def test_packing_is_undone(bits, data):
    low, high = bit_fields.limits(bits)
    values = np.array(data.draw(st.lists(st.integers(low, high))), np.int8)
    packed = bit_fields.pack(values, bits)
    assert packed.dtype == np.uint8
    assert packed.size == -(-values.size * bits // 8)
    np.testing.assert_array_equal(bit_fields.unpack(packed, bits, values.size), values)


@given(st.integers(1, 7), st.data())
def test_indices_are_read_most_significant_bit_first(bits, data):
    indices = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1))
    text = "".join(f"{index:0{bits}b}" for index in indices)
    text += "0" * (-len(text) % 8)
    packed = np.array([int(text[i : i + 8], 2) for i in range(0, len(text), 8)], np.uint8)
    np.testing.assert_array_equal(bit_fields.unpack_indices(packed, bits, len(indices)), indices)


def test_by_hand():
    assert bit_fields.pack(np.array([1, -2, 7]), 4).tolist() == [0xE1, 0x07]
    assert bit_fields.pack(np.array([-1, 0, 0, -1]), 1).tolist() == [0b1001]
    assert bit_fields.pack(np.array([1, -2, 0, -1, 1]), 2).tolist() == [0b11001001, 0b01]
    assert bit_fields.unpack(np.array([0x8F], np.uint8), 4, 2).tolist() == [-1, -8]


@pytest.mark.parametrize(
    ("values", "bits"), [([8], 4), ([-9], 4), ([2], 2), ([1], 1), ([128], 8), ([-5], 3)]
)
def test_values_that_do_not_fit_are_refused(values, bits):
    with pytest.raises(ValueError, match=f"do not fit {bits} bits"):
        bit_fields.pack(np.array(values), bits)


def test_other_widths_and_lengths_are_refused():
    byte = np.zeros(1, np.uint8)
    for function in (bit_fields.pack, lambda data, bits: bit_fields.unpack(data, bits, 1)):
        for bits in (0, 9):
            with pytest.raises(ValueError, match=f"1 to 8 bits, got {bits}"):
                function(byte, bits)
    for count in (0, 3):
        with pytest.raises(ValueError, match="do not hold"):
            bit_fields.unpack(byte, 4, count)
    with pytest.raises(ValueError, match="do not hold"):
        bit_fields.unpack_indices(byte, 3, 3)
    with pytest.raises(ValueError, match="1 to 7 bits"):
        bit_fields.unpack_indices(byte, 8, 1)
