"""The kernels at the edges of what they take: the largest sums,
every remainder of their blocks, windows that jump, exponents without an offset."""

import numpy as np
import pytest
from dsp_layers import (
    USED_ONCE,
    at_the_bound,
    blocks,
    conv,
    depthwise,
    depthwise_at_the_bound,
    groups,
    random_codes,
    used_once,
)
from file_maker import Maker
from quick import slow

from tflite_tools.c import generate, host_run
from tflite_tools.running import runtime


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_every_remainder_of_taps_filters_and_positions(bits, c_is_tflm):
    sources, expected = c_is_tflm(blocks(bits), count=3)
    assert all(len(np.unique(output)) > 4 for output in expected)
    assert ("tfb_widen" in sources.files["model.c"]) == (bits < 8)


@pytest.mark.parametrize("bits", [2, *slow(3, 4, 8)])
def test_filters_that_are_used_once(bits, c_is_tflm):
    sources, _ = c_is_tflm(used_once(bits), count=16)
    begin_with_a_byte = sum(depth * bits % 8 == 0 for depth, _ in USED_ONCE)
    assert sources.files["model.c"].count("tfb_dense(") == begin_with_a_byte + 3
    assert f"tfb_blocks{bits})" in sources.files["model.c"]
    maker, random = Maker(), np.random.default_rng(bits)  # rows that begin within a byte
    conv(maker, (1, 1, 7), random_codes(random, bits, (6, 1, 1, 7)), bits)
    sources, _ = c_is_tflm(maker.file(), count=16)
    assert ("tfb_dense(" in sources.files["model.c"]) == (bits == 8)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_depthwise_windows(bits, c_is_tflm):
    c_is_tflm(depthwise(bits), count=3)


@pytest.mark.parametrize("bits", [3, *slow(2, 4, 8)])
def test_groups(bits, c_is_tflm):
    sources, _ = c_is_tflm(groups(bits), count=3)
    text = sources.files["model.c"]
    assert (text.count("tfb_grouped_conv_2d("), text.count("tfb_depthwise(")) == (16, 4)


@pytest.mark.parametrize("positions", [1, 3])
def test_the_largest_sums(positions, c_is_tflm):
    """Twice 255 * 127 * 33,000 is 2^31 less half a percent; more taps are refused."""
    maker, taps = Maker(), 33_000
    codes = np.array([127, -127])[:, None, None, None] * np.ones((1, 1, 1, taps), np.int64)
    conv(maker, (1, positions, taps), codes, 8, zero=-128, factor=1e-9)
    model = maker.file()
    sources = generate.generate(model)
    highest = np.full((1, 1, positions, taps), 127, np.int8)
    inputs = [np.concatenate([highest, -1 - highest])]
    wanted = runtime.run(model, inputs, runtime=runtime.TFLM).outputs[0]
    for flags in (host_run.SANITIZERS, (host_run.EMULATE_DSP, *host_run.SANITIZERS)):
        made = host_run.run(sources.files, model, inputs, flags=flags)[0]
        np.testing.assert_array_equal(made, wanted)
    assert len(np.unique(wanted)) > 2


@pytest.mark.parametrize("factor", [0.6, *slow(0.3, 1.5, 1e-8)])
@pytest.mark.parametrize("shape", [(5, 1, 1, 8), (1, 3, 3, 4)])
def test_scales_without_an_offset(factor, shape, c_is_tflm):
    maker, random = Maker(), np.random.default_rng(0)
    depth = 8 if shape[0] > 1 else 2
    conv(maker, (5, 5, depth), random.integers(-1, 2, shape), 8, zero=0, factor=factor)
    c_is_tflm(maker.file(), count=4)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("zero", [-128, 127])
@pytest.mark.parametrize("bound", [at_the_bound, depthwise_at_the_bound])
def test_two_sums_in_a_word_at_the_bound(bound, bits, zero, needs_compiler):
    """Two products share a word, and are added up before a sum leaves 16 bits."""
    model, inputs = bound(bits, zero)
    wanted = runtime.run(model, inputs, runtime=runtime.TFLM).outputs
    for flags in ((), host_run.SANITIZERS):
        made = host_run.run(generate.generate(model).files, model, inputs, flags=flags)
        for ours, theirs in zip(made, wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert len(np.unique(theirs)) > 4


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("zero", [-128, 0, 127])
def test_two_products_in_a_half_at_the_bound(bits, zero, c_is_tflm):
    """Filters that are used once, of the largest and the least codes, with all inputs as far from
    the zero point as they can be: sums of two products that share a word fill its upper half, and
    what is not wanted its lower one."""
    maker, taps = Maker(), 160
    least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    codes = np.array([most, least, most])[:, None, None, None] * np.ones((1, 1, 1, taps), np.int64)
    codes[2, ..., ::2] = least
    conv(maker, (1, 1, taps), codes, bits, zero=zero, factor=1e-4)
    model = maker.file()
    inputs = [np.array([-128, 127, 5])[:, None, None, None] * np.ones((1, 1, 1, taps), np.int8)]
    inputs[0][2, ..., ::2] = -128
    inputs = [inputs[0].astype(np.int8)]
    sources = generate.generate(model)
    assert f"tfb_blocks{bits})" in sources.files["model.c"]
    wanted = runtime.run(model, inputs, runtime=runtime.TFLM).outputs[0]
    made = host_run.run(sources.files, model, inputs)[0]
    np.testing.assert_array_equal(made, wanted)
    assert len(np.unique(wanted)) > 4
