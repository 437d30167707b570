"""Packed codes against NumPy, and against the C that unpacks them."""

import ctypes
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tflite_tools.c import generate, host_run, packing
from tflite_tools.schema import bit_fields

MOST_TAPS = 100  # of a row: three blocks of every width
ROWS = st.tuples(st.sampled_from(packing.WIDTHS), st.integers(1, 9), st.integers(1, MOST_TAPS)).map(
    lambda of: (of[0], np.random.default_rng(of).integers(
        *bit_fields.limits(of[0]), of[1:], dtype=np.int8, endpoint=True
    ))
)  # fmt: skip
UNPACK = """
#include "tfbinreg_runtime.h"
/* Rows of codes, as the kernels read them: in the upper bits of bytes. */
void unpack(const uint8_t *data, int32_t bits, int32_t rows, int32_t taps, int8_t *out) {
  tfb_stream stream = {0, 0, 0};
  int8_t row[100];
  stream.next = data;
  for (; rows > 0; rows--, out += taps) {
    memcpy(out, tfb_unpack(&stream, bits, row, taps), (size_t)taps);
  }
}
"""


def place(number, bits, taps, offset):
    """Where the bits of a code of a row lie, by the description: (bit of the row, bit of the code).

    Args:
        offset: the bit at which the row begins.
    """
    block = 4 * 8 * (3 if bits == 3 else 1)
    per_block, inside = block // bits, number % (block // bits)
    start = number // per_block * block
    if offset % 8 or bits == 8 or start + block > taps * bits:
        return [(number * bits + bit, bit) for bit in range(bits)]
    four, byte = divmod(inside, 4)
    if bits != 3:
        return [(start + 8 * byte + four * bits + bit, bit) for bit in range(bits)]
    if four < 6:
        word, half = divmod(four, 2)
        return [(start + 32 * word + 8 * byte + 3 * half + bit, bit) for bit in range(3)]
    upper, lowest = 64 * (four - 6) + 8 * byte + 6, 32 + 8 * byte + four
    return [(start + lowest, 0), (start + upper, 1), (start + upper + 1, 2)]


@given(ROWS)
def test_packing_is_as_described(row):
    bits, codes = row
    packed = packing.pack(codes, bits)
    assert packed.dtype == np.uint8 and packed.size == -(-codes.size * bits // 8)
    stream = np.unpackbits(packed, bitorder="little")
    expected = np.zeros_like(stream)
    for index, values in enumerate(codes.tolist()):
        start = index * codes.shape[1] * bits
        for number, code in enumerate(values):
            for to, bit in place(number, bits, codes.shape[1], start):
                expected[start + to] = code >> bit & 1
    np.testing.assert_array_equal(stream, expected)
    np.testing.assert_array_equal(packing.unpack(packed, bits, codes.shape), codes)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="do not fit 2 bits"):
        packing.pack(np.array([[2, 0]], np.int8), 2)
    with pytest.raises(ValueError, match="2 bytes do not hold 12 values of 2 bits"):
        packing.unpack(np.zeros(2, np.uint8), 2, (3, 4))


@pytest.fixture(scope="module")
def unpack_in_c(needs_compiler, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpack")
    (folder / "unpack.c").write_text(UNPACK)
    (folder / generate.RUNTIME_HEADER).write_text(generate.runtime_header())
    command = [host_run.compiler(), *host_run.FLAGS, "-shared", "-fPIC"]
    library = folder / "unpack.so"
    subprocess.run([*command, folder / "unpack.c", "-o", library], check=True)
    return ctypes.CDLL(str(library)).unpack


@given(row=ROWS)
def test_c_unpacks_rows_of_any_length(row, unpack_in_c):
    bits, codes = row
    packed, out = packing.pack(codes, bits), np.zeros_like(codes)
    unpack_in_c(packed.ctypes, bits, *codes.shape, out.ctypes)
    np.testing.assert_array_equal(out, codes.astype(int) * 2 ** (8 - bits))


@pytest.mark.parametrize(("bits", "width"), [(2, 2), (3, 3), (4, 4), (5, 8), (8, 8)])
def test_the_width_holds_the_bits(bits, width):
    assert packing.width(bits) == width


@pytest.mark.parametrize(
    ("weights", "prescale", "bits", "divisor"),
    [
        ([64, 64], None, 2, 64),
        ([-64, 32, 0], 32, 2, 32),
        ([-64, 64, 0], 32, 3, 32),
        ([-64, 48], 16, 3, 16),
        ([7, -8], None, 4, 1),
        ([0, 0], None, 2, 1),
        ([127, -127], 1, 8, 1),
        ([60, -60, 4], 4, 8, 1),  # five bits are not packed
    ],
)
def test_the_narrowest_form_is_exact(weights, prescale, bits, divisor):
    stored = np.array(weights, np.int8)
    packed = packing.narrowest(stored, prescale)
    assert (packed.bits, packed.prescale) == (bits, divisor)
    np.testing.assert_array_equal(packed.codes.astype(int) * packed.prescale, stored)
    bit_fields.pack(packed.codes, packed.bits)
