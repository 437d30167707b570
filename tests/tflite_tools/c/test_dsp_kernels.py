"""The kernels for cores with DSP instructions at the edges of what they take: the largest sums,
every remainder of their blocks, windows that jump, exponents without an offset."""

import numpy as np
import pytest
from file_maker import PRESCALES, Maker

from tflite_tools.c import generate, host_run
from tflite_tools.running import runtime

OPTIONS = {"CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions"}


def conv(maker, image, codes, bits, *, stride=1, padding=0, dilation=1, zero=5, factor=None):
    """A CONV_2D, or a DEPTHWISE_CONV_2D for codes (1, h, w, channels); products of codes and inputs
    are scaled by `factor` and up to twice that."""
    factor = 0.4 / 2**bits if factor is None else factor
    depthwise = codes.shape[0] == 1 and codes.shape[3] > image[2]
    name, axis = ("DEPTHWISE_CONV_2D", 3) if depthwise else ("CONV_2D", 0)
    channels, prescale = codes.shape[axis], PRESCALES[bits]
    scales = np.linspace(1.0, 2.0, channels).astype(np.float32) * np.float32(0.01 / prescale)
    source = maker.input((1, *image), (0.5, zero))
    weights = maker.weights(codes, bits, prescale, scales, axis)
    bias = np.arange(-channels, channels, 2).astype(np.int32) * 50 * prescale
    places = [source, weights, maker.tensor(bias.shape, (scales * 0.5, 0), data=bias)]
    reach = [(size - 1) * dilation + 1 for size in codes.shape[1:3]]
    sizes = [
        -(-size // stride) if padding == 0 else (size - r) // stride + 1
        for size, r in zip(image, reach, strict=False)
    ]
    options = {"strideH": stride, "strideW": stride, "padding": padding}
    options |= {"dilationHFactor": dilation, "dilationWFactor": dilation}
    if depthwise:
        options["depthMultiplier"] = channels // image[2]
    grid = (float(np.float32(0.005 / factor)), -9)
    maker.op(name, places, (1, *sizes, channels), grid, options, kind=OPTIONS[name])


def random_codes(random, bits, shape):
    high = 2 ** (bits - 1)
    return random.integers(-high + (bits == 8), high, shape)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_every_remainder_of_taps_filters_and_positions(bits, c_is_tflm):
    maker, random = Maker(), np.random.default_rng(bits)
    for depth in (1, 2, 3, 4, 5, 8, 11):  # 1x1: taps, odd filters, odd and even positions
        conv(maker, (3, 3 + depth % 2, depth), random_codes(random, bits, (depth + 2, 1, 1, depth)),
             bits)  # fmt: skip
    for depth in (1, 3, 4, 8):  # 3x3: straight from the image, by way of bytes, and at the border
        shape = (6, 3, 3, depth)
        conv(maker, (7, 6, depth), random_codes(random, bits, shape), bits)
        conv(maker, (7, 7, depth), random_codes(random, bits, shape), bits, stride=2, padding=1)
        conv(maker, (9, 8, depth), random_codes(random, bits, shape), bits, dilation=2)
    sources, expected = c_is_tflm(maker.file(), count=3)
    assert all(len(np.unique(output)) > 4 for output in expected)
    assert "tfb_conv_2d" in sources.files["model.c"]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_filters_that_are_used_once(bits, c_is_tflm):
    maker, random = Maker(), np.random.default_rng(bits)
    for depth, channels in ((8, 5), (16, 2), (24, 3), (32, 1), (40, 4), (72, 7), (128, 2)):
        conv(maker, (1, 1, depth), random_codes(random, bits, (channels, 1, 1, depth)), bits)
    conv(maker, (4, 2, 4), random_codes(random, bits, (3, 4, 2, 4)), bits, padding=1)
    sources, _ = c_is_tflm(maker.file(), count=16)
    assert sources.files["model.c"].count("tfb_dense(") == 8
    assert f"tfb_blocks{bits})" in sources.files["model.c"]
    maker = Maker()  # rows that begin within a byte
    conv(maker, (1, 1, 7), random_codes(random, bits, (6, 1, 1, 7)), bits)
    sources, _ = c_is_tflm(maker.file(), count=16)
    assert ("tfb_dense(" in sources.files["model.c"]) == (bits == 8)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_depthwise_windows(bits, c_is_tflm):
    maker, random = Maker(), np.random.default_rng(bits)
    for size, stride, dilation in ((3, 1, 1), (3, 2, 1), (5, 1, 1), (5, 2, 1), (2, 3, 1), (3, 1, 3),
                                   (1, 1, 1), (4, 1, 2)):  # fmt: skip
        for width in (6, 9):
            codes = random_codes(random, bits, (1, size, size, 4))
            conv(maker, (11, width, 2), codes, bits, stride=stride, dilation=dilation)
    conv(maker, (4, 67, 1), random_codes(random, bits, (1, 3, 3, 2)), bits)
    conv(maker, (5, 133, 1), random_codes(random, bits, (1, 3, 3, 2)), bits, stride=2)
    c_is_tflm(maker.file(), count=3)


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
