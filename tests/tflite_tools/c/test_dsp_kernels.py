"""The kernels for cores with DSP instructions at the edges of what they take: the largest sums,
every remainder of their blocks, windows that jump, exponents without an offset."""

import numpy as np
import pytest
from dsp_layers import blocks, conv, depthwise, random_codes, used_once
from file_maker import Maker

from tflite_tools.c import generate, host_run
from tflite_tools.running import runtime


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_every_remainder_of_taps_filters_and_positions(bits, c_is_tflm):
    sources, expected = c_is_tflm(blocks(bits), count=3)
    assert all(len(np.unique(output)) > 4 for output in expected)
    assert ("tfb_widen" in sources.files["model.c"]) == (bits < 8)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_filters_that_are_used_once(bits, c_is_tflm):
    sources, _ = c_is_tflm(used_once(bits), count=16)
    assert sources.files["model.c"].count("tfb_dense(") == 8
    assert f"tfb_blocks{bits})" in sources.files["model.c"]
    maker, random = Maker(), np.random.default_rng(bits)  # rows that begin within a byte
    conv(maker, (1, 1, 7), random_codes(random, bits, (6, 1, 1, 7)), bits)
    sources, _ = c_is_tflm(maker.file(), count=16)
    assert ("tfb_dense(" in sources.files["model.c"]) == (bits == 8)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_depthwise_windows(bits, c_is_tflm):
    c_is_tflm(depthwise(bits), count=3)


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


@pytest.mark.parametrize("factor", [0.3, 0.6, 1.5, 1e-8])
@pytest.mark.parametrize("shape", [(5, 1, 1, 8), (1, 3, 3, 4)])
def test_scales_without_an_offset(factor, shape, c_is_tflm):
    maker, random = Maker(), np.random.default_rng(0)
    depth = 8 if shape[0] > 1 else 2
    conv(maker, (5, 5, depth), random.integers(-1, 2, shape), 8, zero=0, factor=factor)
    c_is_tflm(maker.file(), count=4)
