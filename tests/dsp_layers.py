"""Layers at the edges of what the kernels for DSP instructions take, as files."""

import numpy as np
from file_maker import PRESCALES, Maker

OPTIONS = {"CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions"}


def conv(
    maker, image, codes, bits, *, stride=1, padding=0, dilation=1, zero=5, factor=None, own=False
):
    """A CONV_2D, or a DEPTHWISE_CONV_2D for codes (1, h, w, channels) of more channels than the
    image has, or of as many if each is to have its `own` filter; products of codes and inputs are
    scaled by `factor` and up to twice that."""
    factor = 0.4 / 2**bits if factor is None else factor
    depthwise = codes.shape[0] == 1 and codes.shape[3] >= image[2] + (not own)
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


def blocks(bits):
    """Every remainder of taps, filters and positions."""
    maker, random = Maker(), np.random.default_rng(bits)
    for depth in (1, 2, 3, 4, 5, 8, 11, 32, 40):  # 1x1: taps, odd filters, odd and even positions
        codes = random_codes(random, bits, (depth + 2, 1, 1, depth))
        conv(maker, (3, 3 + depth % 2, depth), codes, bits)
    for depth in (1, 3, 4, 8):  # 3x3: straight from the image, by way of bytes, and at the border
        shape = (6, 3, 3, depth)
        conv(maker, (7, 6, depth), random_codes(random, bits, shape), bits)
        conv(maker, (7, 7, depth), random_codes(random, bits, shape), bits, stride=2, padding=1)
        conv(maker, (9, 8, depth), random_codes(random, bits, shape), bits, dilation=2)
    return maker.file()


def at_the_bound(bits, zero):
    """Rows of the least and the largest codes, of more taps than a sum of 16 bits holds, inside an
    image and at its border, and inputs that are up to 255 from the zero point."""
    maker, depth = Maker(), 45
    least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    ends = np.array([least, most, most, least, least, least, most])
    codes = ends[:, None, None, None] * np.ones((1, 3, 3, depth), np.int64)
    for padding in (0, 1):
        conv(maker, (3, 9, depth), codes, bits, padding=padding, zero=zero, factor=1e-5)
    inputs = [np.full((4, 3, 9, depth), -128, np.int8) for _ in range(2)]
    for own in inputs:
        own[1], own[2, :, ::2], own[3, ..., ::3] = 127, 127, 5
    return maker.file(), inputs


def depthwise_at_the_bound(bits, zero):
    """As many taps as a sum of 16 bits holds, and one more, of the least and the largest codes."""
    maker, least, most = Maker(), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    height, width = {2: (8, 16), 3: (8, 8), 4: (4, 8)}[bits]
    inputs = []
    for shape in ((height, width), (1, height * width + 1)):
        codes = np.ones((1, *shape, 4), np.int64) * np.array([least, most, least, most])
        codes[..., ::2, 2:] = least
        image = (shape[0] + 2, shape[1] + 1, 4)
        conv(maker, image, codes, bits, zero=zero, factor=2.0**-bits / 100, own=True)
        own = np.full((4, *image), -128, np.int8)
        own[1], own[2, :, ::2], own[3, ..., ::2] = 127, 127, 5
        inputs.append(own)
    return maker.file(), inputs


USED_ONCE = (
    (8, 5), (12, 6), (16, 2), (20, 3), (24, 3), (30, 7), (32, 1), (40, 4), (50, 2), (72, 7),
    (76, 9), (128, 2), (152, 5), (184, 3),
)  # fmt: skip


def used_once(bits):
    """Filters that see the whole input; most of them begin with a byte. In the last two biases take
    less without what the zero point adds, the least one and another."""
    maker, random = Maker(), np.random.default_rng(bits)
    for depth, channels in USED_ONCE:
        conv(maker, (1, 1, depth), random_codes(random, bits, (channels, 1, 1, depth)), bits)
    conv(maker, (4, 2, 4), random_codes(random, bits, (3, 4, 2, 4)), bits, padding=1)
    highest = np.full((5, 1, 1, 136), 2 ** (bits - 1) - 1)
    highest[:, ..., ::3] = random_codes(random, bits, (5, 1, 1, 46))
    for zero in (-128, 120):
        conv(maker, (1, 1, 136), highest, bits, zero=zero, factor=0.05 / 2**bits)
    return maker.file()


def depthwise(bits):
    """Windows of several sizes, steps and jumps, and rows that are longer than what is kept."""
    maker, random = Maker(), np.random.default_rng(bits)
    windows = (
        (3, 1, 1),
        (3, 2, 1),
        (5, 1, 1),
        (5, 2, 1),
        (2, 3, 1),
        (3, 1, 3),
        (1, 1, 1),
        (4, 1, 2),
    )
    for size, stride, dilation in windows:
        for width in (6, 9):
            codes = random_codes(random, bits, (1, size, size, 4))
            conv(maker, (11, width, 2), codes, bits, stride=stride, dilation=dilation)
    conv(maker, (4, 67, 1), random_codes(random, bits, (1, 3, 3, 2)), bits)
    conv(maker, (5, 133, 1), random_codes(random, bits, (1, 3, 3, 2)), bits, stride=2)
    return maker.file()


def channels(bits):
    """Depthwise filters of one channel each: every remainder of sixteen, inside and at the border,
    as many taps as are kept and more, and sums that reach as far as 16 bits hold, and further."""
    maker, random = Maker(), np.random.default_rng(bits)
    for count in (1, 3, 4, 15, 16, 17, 35):
        for stride, dilation, padding in ((1, 1, 0), (2, 1, 0), (1, 2, 1), (2, 1, 1)):
            conv(
                maker,
                (7, 6, count),
                random_codes(random, bits, (1, 3, 3, count)),
                bits,
                stride=stride,
                dilation=dilation,
                padding=padding,
                zero=int(random.integers(-128, 128)),
                own=True,
            )
    for height, width in ((1, 1), (3, 2), (5, 5), (4, 8), (11, 3), (2, 127)):
        lowest = np.full((1, height, width, 18), -(2 ** (bits - 1)) + (bits == 8))
        lowest[..., 9:] = random_codes(random, bits, (1, height, width, 9))
        image = (height + 1, width + 2, 18)
        conv(maker, image, lowest, bits, zero=-128, factor=0.001, own=True)
    return maker.file()


def groups(bits):
    """Groups of every remainder of channels and filters, straight on and with steps and jumps."""
    maker, random = Maker(), np.random.default_rng(bits)
    for count, depth, filters in ((2, 8, 8), (3, 4, 5), (4, 3, 2), (2, 5, 1), (5, 1, 2)):
        image, codes = (7, 6, count * depth), (count * filters, 3, 3, depth)
        conv(maker, image, random_codes(random, bits, codes), bits)
        conv(maker, image, random_codes(random, bits, codes), bits, stride=2, padding=1)
        conv(maker, image, random_codes(random, bits, codes), bits, dilation=2)
        codes = (count * filters, 1, 1, depth)
        conv(maker, image, random_codes(random, bits, codes), bits)
    return maker.file()


def scales(bits):
    """Sums that are shifted left or not rounded twice, some or all of a layer, and tiny scales."""
    maker, random = Maker(), np.random.default_rng(bits)
    for factor in (1.5, 0.6, 0.3, 1e-8):
        for channels in (16, 19):
            for size, depth in ((1, 8), (3, 4)):
                codes = np.sign(random_codes(random, bits, (channels, size, size, depth)))
                conv(maker, (5, 5, depth), codes, bits, zero=0, factor=factor)
            codes = np.sign(random_codes(random, bits, (1, 3, 3, channels)))
            conv(maker, (5, 5, channels), codes, bits, zero=0, factor=factor, own=True)
            codes = np.sign(random_codes(random, bits, (channels, 1, 1, 24)))
            conv(maker, (1, 1, 24), codes, bits, zero=0, factor=factor)
    return maker.file()


KINDS = {
    "blocks": blocks,
    "used once": used_once,
    "depthwise": depthwise,
    "channels": channels,
    "groups": groups,
    "scales": scales,
}
