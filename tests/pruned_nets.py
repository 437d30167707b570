"""Random small files with channels that are constant or that nothing reads.

Written operator by operator, without training: wider and more often pruned than what trains.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from file_maker import PRESCALES, Maker

from tflite_tools.schema.contents import Model

_OPERATORS = (
    *("conv", "conv", "conv", "pointwise", "pointwise", "depthwise", "depthwise", "transpose"),
    *("add", "add", "mul", "maximum", "concat", "pool", "pool", "table", "prelu", "pad"),
    *("resize", "slice", "order", "dense"),
)
_ENDS = ("flatten", "mean", "largest")


class Made(NamedTuple):
    """A tensor of the file."""

    index: int
    shape: tuple[int, ...]
    grid: tuple[float, int]


class _Net:
    """A file that is being made; every method appends an operator to a random tensor."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.maker = Maker()
        self.images = [self._input(int(self.random.integers(1, 4)))]
        if self.random.random() < 0.3:
            self.images.append(self._input(4))

    def _input(self, channels: int) -> Made:
        grid = (0.05, int(self.random.integers(-128, 128)))
        shape = (1, 6, 5, channels)
        return Made(self.maker.input(shape, grid), shape, grid)

    def chosen(self) -> Made:
        """One of the newest images."""
        newest = self.images[-3:]
        return newest[int(self.random.integers(len(newest)))]

    def grid(self) -> tuple[float, int]:
        """Of an output: a third end at zero, as behind a ReLU."""
        scale = float(self.random.uniform(0.01, 0.06))
        zero = -128 if self.random.random() < 0.5 else int(self.random.integers(-60, 60))
        return scale, zero

    def op(self, name: str, sources: list[int], shape: Any, grid: Any, **options: Any) -> Made:
        """Append an operator; `kind` is its table of options."""
        kind = options.pop("kind", None)
        index = self.maker.op(name, sources, shape, grid, options, kind=kind, output=False)
        made = Made(index, tuple(int(size) for size in shape), grid)
        if len(shape) == 4:
            self.images.append(made)
        return made

    def weights(
        self,
        source: Made,
        shape: tuple[int, ...],
        axis: int,
        grid: tuple[float, int],
        zeros: Any = (),
    ) -> tuple[int, int]:
        """Weights, of which some output channels, those in `zeros` and some input channels are
        zero, and a bias.

        With their scales the sums cover about the range of `grid`.
        """
        random, bits = self.random, int(self.random.choice([2, 4, 8]))
        high = 2 ** (bits - 1)
        codes = np.moveaxis(random.integers(-high, high, shape), axis, 0)
        codes = np.maximum(codes, -127)
        codes[random.random(len(codes)) < 0.3] = 0
        codes[list(zeros)] = 0
        if axis == 0 and shape[-1] > 1:
            codes[..., random.random(shape[-1]) < 0.15] = 0
        stored = (codes * PRESCALES[bits]).reshape(len(codes), -1)
        spread = 50.0 * max(np.linalg.norm(stored, axis=1).max(), 1.0)
        channels = shape[axis]
        scales = random.uniform(0.5, 1.5, channels if random.random() < 0.7 else 1)
        scales = (scales * 70.0 * grid[0] / source.grid[0] / spread).astype(np.float32)
        bias = (random.normal(size=channels) * spread).astype(np.int32)
        bias[random.random(channels) < 0.2] = 0
        weights = self.maker.weights(
            np.moveaxis(codes, 0, axis), bits, PRESCALES[bits], scales, axis
        )
        own = scales * np.float32(source.grid[0])
        return weights, self.maker.tensor(bias.shape, (own, 0), data=bias)

    def conv(self, size: int = 3, source: Made | None = None) -> None:
        source, channels = source or self.chosen(), int(self.random.integers(2, 9))
        padding = int(self.random.integers(2)) if min(source.shape[1:3]) >= size else 0
        stride = int(self.random.integers(1, 3)) if max(source.shape[1:3]) > 4 else 1
        grid = self.grid()
        weights, bias = self.weights(source, (channels, size, size, source.shape[3]), 0, grid)
        out = [self._places(length, size, stride, padding) for length in source.shape[1:3]]
        self.op(
            "CONV_2D", [source.index, weights, bias], (1, *out, channels), grid,
            kind="Conv2DOptions", strideH=stride, strideW=stride, padding=padding,
            fusedActivationFunction=int(self.random.choice([0, 1, 3])),
        )  # fmt: skip

    def pointwise(self) -> None:
        self.conv(1)

    def grouped(self) -> None:
        """A convolution in groups, of which some have no weights at all."""
        source, own = self.chosen(), int(self.random.integers(1, 4))
        depths = [depth for depth in range(1, 5) if source.shape[3] % depth == 0]
        depth = int(self.random.choice(depths))
        channels = source.shape[3] // depth * own
        grid = self.grid()
        shape = (channels, 2, 2, depth)
        weights, bias = self.weights(source, shape, 0, grid, np.repeat(
            self.random.random(channels // own) < 0.4, own
        ))  # fmt: skip
        height, width = source.shape[1:3]
        self.op(
            "CONV_2D", [source.index, weights, bias], (1, height, width, channels), grid,
            kind="Conv2DOptions", strideH=1, strideW=1, padding=0,
            fusedActivationFunction=int(self.random.choice([0, 1])),
        )  # fmt: skip

    @staticmethod
    def _places(length: int, size: int, stride: int, padding: int) -> int:
        return -(-length // stride) if padding == 0 else (length - size) // stride + 1

    def depthwise(self) -> None:
        source, multiple = self.chosen(), 1 if self.random.random() < 0.8 else 2
        channels = source.shape[3] * multiple
        padding = int(self.random.integers(2)) if min(source.shape[1:3]) >= 3 else 0
        grid = self.grid()
        weights, bias = self.weights(source, (1, 3, 3, channels), 3, grid)
        out = [self._places(length, 3, 1, padding) for length in source.shape[1:3]]
        self.op(
            "DEPTHWISE_CONV_2D", [source.index, weights, bias], (1, *out, channels), grid,
            kind="DepthwiseConv2DOptions", strideH=1, strideW=1, padding=padding,
            depthMultiplier=multiple, fusedActivationFunction=int(self.random.choice([0, 1])),
        )  # fmt: skip

    def transpose(self) -> None:
        source, channels = self.chosen(), int(self.random.integers(2, 6))
        if max(source.shape[1:3]) > 8:
            return
        grid = self.grid()
        weights, bias = self.weights(source, (channels, 2, 2, source.shape[3]), 0, grid)
        out = (1, source.shape[1] * 2, source.shape[2] * 2, channels)
        self.op(
            "TRANSPOSE_CONV", [self.maker.ints(out), weights, source.index, bias], out,
            grid, kind="TransposeConvOptions", strideH=2, strideW=2, padding=0,
        )  # fmt: skip

    def _pair(self, name: str, table: str, *, same_grid: bool = False) -> None:
        first = self.chosen()
        fitting = [
            other
            for other in self.images
            if other.shape[3] == first.shape[3]
            and (other.shape == first.shape or other.shape[1:3] == (1, 1))
            and (not same_grid or other.grid == first.grid)
        ]
        second = fitting[int(self.random.integers(len(fitting)))].index
        if self.random.random() < 0.2:
            codes = self.random.integers(-20, 20, (1, 1, 1, first.shape[3])).astype(np.int8)
            second = self.maker.tensor(codes.shape, first.grid, data=codes)
        scale, zero = first.grid if same_grid else self.grid()
        if name == "MUL":
            scale = 60.0 * first.grid[0] * scale
        self.op(name, [first.index, second], first.shape, (scale, zero), kind=table)

    def add(self) -> None:
        name = ("Add", "Sub")[int(self.random.integers(2))]
        self._pair(name.upper(), f"{name}Options")

    def mul(self) -> None:
        self._pair("MUL", "MulOptions")

    def maximum(self) -> None:
        name = ("MAXIMUM", "MINIMUM")[int(self.random.integers(2))]
        self._pair(name, "MaximumMinimumOptions", same_grid=True)

    def concat(self) -> None:
        first = self.chosen()
        axis = int(self.random.choice([3, 3, -1, 1]))
        others = [
            other
            for other in self.images
            if other.grid == first.grid
            and np.delete(other.shape, axis).tolist() == np.delete(first.shape, axis).tolist()
        ]
        parts = [first, others[int(self.random.integers(len(others)))]]
        shape = list(first.shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        indices = [part.index for part in parts]
        kind = "ConcatenationOptions"
        self.op("CONCATENATION", indices, shape, first.grid, kind=kind, axis=axis)

    def pool(self) -> None:
        source = self.chosen()
        if min(source.shape[1:3]) < 2:
            return
        padding, name = int(self.random.integers(2)), ("AVERAGE", "MAX")[self.random.integers(2)]
        out = [self._places(length, 2, 2, padding) for length in source.shape[1:3]]
        self.op(
            f"{name}_POOL_2D", [source.index], (1, *out, source.shape[3]), source.grid,
            kind="Pool2DOptions", strideH=2, strideW=2, filterHeight=2, filterWidth=2,
            padding=padding, fusedActivationFunction=int(self.random.integers(2)),
        )  # fmt: skip

    def table(self) -> None:
        source = self.chosen()
        name = ("LOGISTIC", "TANH", "RELU", "HARD_SWISH", "QUANTIZE")[self.random.integers(5)]
        own = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0), "HARD_SWISH": (0.05, -100)}
        kind = "QuantizeOptions" if name == "QUANTIZE" else None
        self.op(name, [source.index], source.shape, own.get(name) or self.grid(), kind=kind)

    def prelu(self) -> None:
        source = self.chosen()
        codes = self.random.integers(-20, 20, (1, 1, source.shape[3])).astype(np.int8)
        slopes = self.maker.tensor(codes.shape, (0.01, 0), data=codes)
        self.op("PRELU", [source.index, slopes], source.shape, self.grid())

    def pad(self) -> None:
        source = self.chosen()
        height, width = source.shape[1:3]
        margins = self.maker.ints([[0, 0], [1, 0], [0, 1], [0, 0]])
        shape = (1, height + 1, width + 1, source.shape[3])
        self.op("PAD", [source.index, margins], shape, source.grid, kind="PadOptions")

    def resize(self) -> None:
        source = self.chosen()
        size = self.maker.ints([4, 7])
        name = str(self.random.choice(["NearestNeighbor", "Bilinear"]))
        builtin = {"NearestNeighbor": "NEAREST_NEIGHBOR"}.get(name, name.upper())
        shape, kind = (1, 4, 7, source.shape[3]), f"Resize{name}Options"
        self.op(f"RESIZE_{builtin}", [source.index, size], shape, source.grid, kind=kind)

    def slice(self) -> None:
        source = self.chosen()
        _, height, width, channels = source.shape
        first = int(self.random.random() < 0.2 and channels > 1)  # a slice of channels
        bounds = [[0, height - 1, 0, first], [1, height, width, channels], [1] * 4]
        places = [source.index, *(self.maker.ints(own) for own in bounds)]
        shape = (1, 1, width, channels - first)
        self.op("STRIDED_SLICE", places, shape, source.grid, kind="StridedSliceOptions")

    def order(self) -> None:
        source = self.chosen()
        _, height, width, channels = source.shape
        order = [0, 2, 1, 3]
        places = [source.index, self.maker.ints(order)]
        shape = (1, width, height, channels)
        self.op("TRANSPOSE", places, shape, source.grid, kind="TransposeOptions")

    def dense(self) -> None:
        """A dense layer over the last axis."""
        source, channels = self.chosen(), int(self.random.integers(2, 7))
        grid = self.grid()
        weights, bias = self.weights(source, (channels, source.shape[3]), 0, grid)
        shape = (*source.shape[:3], channels)
        self.op(
            "FULLY_CONNECTED", [source.index, weights, bias], shape, grid,
            kind="FullyConnectedOptions", keepNumDims=True,
        )  # fmt: skip

    def end(self) -> None:
        """Rows, and a dense layer behind them."""
        source, how = self.images[-1], _ENDS[int(self.random.integers(len(_ENDS)))]
        channels, count = source.shape[3], int(np.prod(source.shape))
        if how == "flatten":
            size = self.maker.ints([1, count])
            rows = self.op(
                "RESHAPE", [source.index, size], (1, count), source.grid, kind="ReshapeOptions",
                newShape=np.array([1, count], np.int32),
            )  # fmt: skip
        else:
            name = {"mean": "MEAN", "largest": "REDUCE_MAX"}[how]
            places = [source.index, self.maker.ints([1, 2])]
            grid = self.grid() if how == "mean" else source.grid
            rows = self.op(name, places, (1, channels), grid, kind="ReducerOptions")
        weights, bias = self.weights(rows, (8, rows.shape[1]), 0, (0.05, 3))
        last = self.op(
            "FULLY_CONNECTED", [rows.index, weights, bias], (1, 8), (0.05, 3),
            kind="FullyConnectedOptions",
        )  # fmt: skip
        self.maker.outputs.append(last.index)


def pruned_net(seed: int, *, grouped: bool = False) -> Model:
    """A file of some ten operators; with `grouped` often convolutions in groups."""
    net = _Net(seed)
    operators = _OPERATORS + ("grouped",) * (8 if grouped else 0)
    for source in tuple(net.images):
        net.conv(source=source)
    for _ in range(int(net.random.integers(4, 12))):
        getattr(net, operators[int(net.random.integers(len(operators)))])()
    net.end()
    if net.random.random() < 0.3:
        net.maker.outputs.append(net.images[-2].index)
    return net.maker.file()
