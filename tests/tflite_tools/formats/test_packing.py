"""Packed codes against NumPy, and against the C that unpacks them."""

import ctypes
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tflite_tools import fields
from tflite_tools.formats import c_check, c_source, packing

ROWS = st.sampled_from(packing.WIDTHS).flatmap(
    lambda bits: st.tuples(
        st.just(bits),
        st.lists(st.integers(*fields.limits(bits)), min_size=1, max_size=90),
        st.integers(1, 40),
    )
)
UNPACK = """
#include "tfbinreg_runtime.h"
/* `count` codes in rows of `length`, as the kernels read them: in the upper bits of bytes. */
void unpack(const uint8_t *data, int32_t bits, int32_t count, int32_t length, int8_t *out) {
  tfb_stream stream = {0, 0, 0};
  int8_t row[128];
  stream.next = data;
  for (; count > 0; count -= length, out += length) {
    int32_t n = tfb_min(count, length);
    memcpy(out, tfb_unpack(&stream, bits, row, n), (size_t)n);
  }
}
"""


def as_text(codes, bits):
    """The stream as a string of bits, least significant first."""
    return "".join(format(code & (2**bits - 1), f"0{bits}b")[::-1] for code in codes)


@given(ROWS)
def test_packing_is_a_stream_of_fields(row):
    bits, codes, _ = row
    packed = fields.pack(np.array(codes, np.int8), bits)
    assert packed.dtype == np.uint8 and packed.size == -(-len(codes) * bits // 8)
    stream = "".join(format(byte, "08b")[::-1] for byte in packed.tolist())
    assert stream.rstrip("0") == as_text(codes, bits).rstrip("0")
    np.testing.assert_array_equal(fields.unpack(packed, bits, len(codes)), codes)


@pytest.fixture(scope="module")
def unpack_in_c(needs_compiler, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpack")
    (folder / "unpack.c").write_text(UNPACK)
    command = [c_check.compiler(), *c_check.FLAGS, "-shared", "-fPIC", "-I", c_source.RUNTIME_DIR]
    library = folder / "unpack.so"
    subprocess.run([*command, folder / "unpack.c", "-o", library], check=True)
    return ctypes.CDLL(str(library)).unpack


@given(row=ROWS)
def test_c_unpacks_rows_of_any_length(row, unpack_in_c):
    bits, codes, length = row
    packed, out = fields.pack(np.array(codes, np.int8), bits), np.zeros(len(codes), np.int8)
    unpack_in_c(packed.ctypes, bits, len(codes), length, out.ctypes)
    np.testing.assert_array_equal(out, np.array(codes) * 2 ** (8 - bits))


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
    fields.pack(packed.codes, packed.bits)
