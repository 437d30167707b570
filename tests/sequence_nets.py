"""Nets over sequences, made by hand for any number of frames: the same weights, other lengths."""

import dataclasses

import numpy as np
from file_maker import ACTIVATIONS, PRESCALES, Maker

from tflite_tools.schema import manifest

VALID = 1
GRID = (0.05, 3)


class SequenceMaker(Maker):
    """Operators over (1, 1, frames, channels) or, with `features`, (1, frames, features, channels);
    random numbers do not depend on how many frames there are."""

    def __init__(self, seed=0, frames=24, channels=3, features=None):
        super().__init__()
        self.random = np.random.default_rng(seed)
        self.axis = 2 if features is None else 1
        if features is None:
            self.frames_in = self.input((1, frames, channels), GRID)
            self.now = self.reshape(self.frames_in, (1, 1, frames, channels))
        else:
            self.now = self.input((1, frames, features, channels), GRID)

    def weights(self, codes, bits, prescale, scales, axis=0, name=None):
        """As `Maker.weights`, with an entry as the exporter writes it."""
        index = super().weights(codes, bits, prescale, scales, axis, name)
        kernel = codes if axis == 3 else np.moveaxis(codes, 0, -1)
        self.layers[-1] = dataclasses.replace(
            self.layers[-1],
            kind="DepthwiseConv2D" if axis == 3 else "Conv2D",
            shape=kernel.shape,
            sha256=manifest.codes_digest(kernel),
        )
        return index

    def shape(self, index):
        return tuple(self.graph.tensors[index].shape)

    def grid(self, index):
        quantization = self.graph.tensors[index].quantization
        return float(quantization.scale[0]), int(quantization.zeroPoint[0])

    def add(self, name, inputs, shape, grid=None, options=None, kind=None):
        """An operator, by default on the grid of its first input; `now` is its output."""
        grid = grid or self.grid(inputs[0])
        self.now = self.op(name, inputs, shape, grid, options, kind=kind, output=False)
        return self.now

    def reshape(self, source, shape):
        return self.add(
            "RESHAPE", [source, self.ints(shape)], shape, None, {"newShape": list(shape)},
            "ReshapeOptions",
        )  # fmt: skip

    def pad(self, source, front, behind=0):
        """Zeros around time."""
        margins = np.zeros((4, 2), np.int32)
        margins[self.axis] = front, behind
        shape = list(self.shape(source))
        shape[self.axis] += front + behind
        return self.add("PAD", [source, self.ints(margins)], shape, None, {}, "PadOptions")

    def conv(
        self,
        source=None,
        taps=3,
        *,
        causal=True,
        dilation=1,
        stride=1,
        channels=5,
        depthwise=False,
        bits=None,
        padding=VALID,
        wide=3,
    ):
        """A convolution over time; over features, too, if there are some."""
        source = self.now if source is None else source
        depth, own = self.shape(source)[3], self.axis
        random, bits = self.random, bits or int(self.random.choice([2, 3, 4, 8]))
        channels = depth if depthwise else channels
        window = (taps, wide) if own == 1 else (1, taps)
        form = (1, *window, channels) if depthwise else (channels, *window, depth)
        low = -(2 ** (bits - 1))
        codes = random.integers(low + 1, -low, form)
        grid = (float(random.choice([0.05, 0.08])), int(random.integers(-30, 30)))
        if causal and taps > 1:
            source = self.pad(source, dilation * (taps - 1))
        in_scale = self.grid(source)[0]
        count = codes.size / channels
        scale = np.float32([grid[0] / (0.6 * count**0.5 * in_scale * PRESCALES[bits] * -low)])
        weights = self.weights(codes, bits, PRESCALES[bits], scale, 3 if depthwise else 0)
        large = int(20 * grid[0] / (in_scale * scale[0]))
        bias = random.integers(-large, large + 1, channels).astype(np.int32)
        letter = "WH"[own == 1]
        options = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
        options |= {f"stride{letter}": stride, f"dilation{letter}Factor": dilation}
        options |= {"padding": padding, "fusedActivationFunction": ACTIVATIONS["NONE"]}
        rows = self.shape(source)[own]
        if padding == VALID:
            rows -= (taps - 1) * dilation
        shape = [1, 1, 1, channels]
        shape[own] = -(-rows // stride)
        if own == 1:
            shape[2] = self.shape(source)[2] - (wide - 1 if padding == VALID else 0)
        name, table = "CONV_2D", "Conv2DOptions"
        if depthwise:
            name, table, options["depthMultiplier"] = (
                "DEPTHWISE_CONV_2D",
                "DepthwiseConv2DOptions",
                1,
            )
        places = [
            source,
            weights,
            self.tensor(bias.shape, (scale * np.float32(in_scale), 0), data=bias),
        ]
        return self.add(name, places, shape, grid, options, table)

    def pool(self, size, stride=None, name="AVERAGE_POOL_2D", padding=VALID):
        """A pooling over time."""
        letter, other = ("Height", "Width") if self.axis == 1 else ("Width", "Height")
        options = {f"filter{letter}": size, f"filter{other}": 1, "padding": padding}
        options |= {f"stride{letter[0]}": stride or size, f"stride{other[0]}": 1}
        shape = list(self.shape(self.now))
        rows = shape[self.axis] - (size - 1 if padding == VALID else 0)
        shape[self.axis] = -(-rows // (stride or size))
        return self.add(name, [self.now], shape, None, options, "Pool2DOptions")

    def lookup(self):
        return self.add("HARD_SWISH", [self.now], self.shape(self.now), (self.grid(self.now)[0], 5))

    def sum(self, first, second, name="ADD"):
        grid = (max(self.grid(index)[0] for index in (first, second)), -9)
        return self.add(
            name, [first, second], self.shape(first), grid, {}, f"{name.title()}Options"
        )

    def crop(self, source, begin, end=None):
        """Frames from one on and before another."""
        shape = self.shape(source)
        begins, ends, steps = [0] * len(shape), list(shape), [1] * len(shape)
        axis = self.axis if len(shape) == 4 else 1
        begins[axis], ends[axis] = begin, shape[axis] if end is None else end
        made = list(shape)
        made[axis] = ends[axis] - begin
        places = [source, *map(self.ints, (begins, ends, steps))]
        return self.add("STRIDED_SLICE", places, made, None, {}, "StridedSliceOptions")

    def last(self):
        """The last frame, without the time axis."""
        shape = self.shape(self.now)
        self.reshape(self.now, (1, shape[2], shape[3]))
        begins, ends, steps = [0, -1, 0], [1, 0, shape[3]], [1, 1, 1]
        options = {"beginMask": 5, "endMask": 5, "shrinkAxisMask": 2}
        places = [self.now, *map(self.ints, (begins, ends, steps))]
        return self.add(
            "STRIDED_SLICE", places, (1, shape[3]), None, options, "StridedSliceOptions"
        )

    def mean(self):
        """The mean over time."""
        shape = self.shape(self.now)
        places, options = [self.now, self.ints([1, 2])], {"keepDims": False}
        return self.add("MEAN", places, (1, shape[3]), (0.03, 2), options, "ReducerOptions")

    def flat(self):
        return self.reshape(self.now, (1, int(np.prod(self.shape(self.now)))))

    def dense(self, units=4, bits=2):
        depth, low = self.shape(self.now)[-1], -(2 ** (bits - 1))
        codes = self.random.integers(low + 1, -low, (units, depth))
        in_scale, grid = self.grid(self.now)[0], (0.06, 1)
        scale = np.float32([grid[0] / (0.6 * depth**0.5 * in_scale * PRESCALES[bits] * -low)])
        weights = self.weights(codes, bits, PRESCALES[bits], scale)
        bias = np.zeros(units, np.int32)
        places = [
            self.now,
            weights,
            self.tensor(bias.shape, (scale * np.float32(in_scale), 0), data=bias),
        ]
        return self.add("FULLY_CONNECTED", places, (1, units), grid, {}, "FullyConnectedOptions")

    def file(self):
        self.outputs = self.outputs or [self.now]
        return super().file()


def causal(frames=24, seed=1):
    """Causal convolutions with a residual sum and a dilated one; a row for each frame."""
    maker = SequenceMaker(seed, frames)
    first = maker.conv()
    second = maker.conv(dilation=2)
    maker.sum(first, second)
    maker.conv(taps=2, depthwise=True)
    maker.conv(taps=1, channels=2)
    return maker.file()


def strided(frames=25, seed=2):
    """Strides, pooling and a convolution without padding; a row every four frames."""
    maker = SequenceMaker(seed, frames)
    maker.conv(stride=2)
    maker.lookup()
    maker.pool(2)
    maker.conv(causal=False, dilation=2)
    return maker.file()


def cropped(frames=21, seed=3):
    """A sum whose operands come at different frames, and a skip over two frames."""
    maker = SequenceMaker(seed, frames)
    first = maker.conv()
    second = maker.conv(causal=False)
    maker.sum(maker.crop(first, 1, frames - 1), second)
    maker.conv(maker.crop(maker.now, 2), stride=3)
    return maker.file()


def over_features(frames=20, seed=4):
    """Two-dimensional convolutions, with time along the rows."""
    maker = SequenceMaker(seed, frames, 2, features=6)
    maker.conv(causal=False, channels=3)
    maker.conv(causal=False, depthwise=True, stride=2)
    maker.pool(2, 1, "MAX_POOL_2D")
    return maker.file()


def tail(frames=20, seed=5):
    """The last frame of causal convolutions, and a dense head."""
    maker = SequenceMaker(seed, frames)
    maker.conv()
    maker.conv(dilation=4)
    maker.last()
    maker.dense()
    return maker.file()


def window(frames=20, seed=6, head="mean"):
    """A mean over time or a flattened window, and a dense head."""
    maker = SequenceMaker(seed, frames)
    maker.conv(causal=False)
    maker.conv(causal=False, stride=2)
    maker.mean() if head == "mean" else maker.flat()
    maker.dense()
    return maker.file()


NETS = {
    "causal": causal,
    "strided": strided,
    "cropped": cropped,
    "over_features": over_features,
    "tail": tail,
    "window": window,
}
