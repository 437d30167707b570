"""Frozen graphs of one kind of operation, with random grids, shapes and settings."""

import numpy as np

from tfbinreg.core.grid import Grid, prescale
from tfbinreg.deploy.frozen import FrozenGraph, FrozenKernel, FrozenOp
from tfbinreg.network.layer_kinds import _FIXED_GRIDS

_IMAGE = (9, 8, 5)


class OperationMaker:
    """Makes operations side by side, each with inputs of its own.

    Args:
        seed: of all numbers.
        dyadic: whether scales are powers of two, so that many results lie half-way.
    """

    def __init__(self, seed, *, dyadic=False):
        self.random, self.dyadic = np.random.default_rng(seed), dyadic
        self.ops, self.inputs, self.outputs = [], [], []

    def graph(self, kind, count):
        """`count` operations of a kind that `MAKERS` has."""
        for _ in range(count):
            MAKERS[kind](self)
        names = [[self.ops[i].name for i in edge] for edge in (self.inputs, self.outputs)]
        return FrozenGraph(
            ops=tuple(self.ops),
            inputs=tuple(self.inputs),
            outputs=tuple(self.outputs),
            input_names=tuple(names[0]),
            output_names=tuple(names[1]),
        )

    def scale(self, low, high, size=None):
        values = np.exp(self.random.uniform(np.log(low), np.log(high), size))
        return np.float32(np.exp2(np.round(np.log2(values))) if self.dyadic else values)

    def grid(self, low=0.01, high=0.2):
        zero_point = int(self.random.integers(-128, 128))
        return Grid(8, True, self.scale(low, high), -128 - zero_point, 127 - zero_point)

    def choose(self, *options):
        return options[self.random.integers(len(options))]

    def sizes(self, low, high, count=2):
        return tuple(int(size) for size in self.random.integers(low, high, count))

    def input(self, shape, grid):
        self.ops.append(FrozenOp(f"input{len(self.ops)}", "InputLayer", (), grid, shape))
        self.inputs.append(len(self.ops) - 1)
        return self.inputs[-1]

    def add(self, kind, inputs, grid, shape, attributes=None, **fields):
        name = f"{kind}{len(self.ops)}"
        self.outputs.append(len(self.ops))
        self.ops.append(
            FrozenOp(name, kind, tuple(inputs), grid, shape, attributes or {}, **fields)
        )

    def relu(self):
        return self.choose({}, {"relu": True}, {"relu": True, "relu_limit": 6.0})

    def kernel(self, shape, channels, reach, source):
        """A kernel, and a grid on which few of its outputs saturate."""
        bits = self.choose(2, 3, 4, 8)
        low, high = (-127, 127) if bits == 8 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        codes = self.random.integers(low, high + 1, shape).astype(np.int8)
        size = self.choose((), (channels,)) if channels > 1 else ()
        scale = np.asarray(self.scale(0.1, 1.0, size) / np.float32(high), np.float32)
        spread = (
            74.0
            * float(source.scale)
            * float(scale.mean())
            * max(codes.std(), 1.0)
            * np.sqrt(reach)
        )
        stored = prescale(low, high)
        unit = float(source.scale) * scale / stored
        bias = np.rint(self.random.normal(0.0, spread / 2, channels) / unit).astype(np.int32)
        out = self.grid(spread / 50 + 1e-6, spread / 25 + 2e-6)
        return FrozenKernel(codes, scale, bias, bits, stored), out


def _windows(sizes, window, strides, padding, dilation=(1, 1)):
    rows = zip(sizes, window, strides, dilation, strict=True)
    return tuple(
        -(-size // stride) if padding == "same" else (size - (k - 1) * d - 1) // stride + 1
        for size, k, stride, d in rows
    )


def _convolution(kind):
    def make(maker):
        height, width, depth = (*maker.sizes(6, 10), *maker.sizes(1, 9, 1))
        window, filters, stride = maker.sizes(1, 4), *maker.sizes(1, 9, 1), *maker.sizes(1, 3, 1)
        padding, source = maker.choose("same", "valid"), maker.grid(0.01, 0.1)
        strides, dilation = (stride, stride), (1, 1) if stride > 1 else maker.choose((1, 1), (2, 2))
        shape, channels, reach = (*window, depth, filters), filters, depth
        size = None
        if kind == "DepthwiseConv2D":
            multiplier = maker.choose(1, 2)
            shape, channels, reach = (*window, depth, multiplier), depth * multiplier, 1
        if kind == "Conv2DTranspose":
            window = tuple(max(k, stride) for k in window)  # LiteRT has no other
            shape, dilation = (*window, filters, depth), (1, 1)
            size = tuple(
                n * stride if padding == "same" else (n - 1) * stride + k
                for n, k in zip((height, width), window, strict=True)
            )
        size = size or _windows((height, width), window, strides, padding, dilation)
        kernel, grid = maker.kernel(shape, channels, reach * window[0] * window[1], source)
        attributes = {"strides": strides, "padding": padding, "dilation_rate": dilation}
        place = maker.input((height, width, depth), source)
        out = (*size, channels)
        maker.add(kind, [place], grid, out, attributes, kernel=kernel, **maker.relu())

    return make


def _dense(maker):
    (depth,), (units,), source = (
        maker.sizes(1, 300, 1),
        maker.sizes(1, 40, 1),
        maker.grid(0.01, 0.1),
    )
    kernel, grid = maker.kernel((depth, units), units, depth, source)
    maker.add(
        "Dense", [maker.input((depth,), source)], grid, (units,), kernel=kernel, **maker.relu()
    )


def _normalization(maker):
    source = maker.grid(0.01, 0.1)
    kernel, grid = maker.kernel((1, 1, 6, 1), 6, 1, source)
    place = maker.input((8, 8, 6), source)
    maker.add("BatchNormalization", [place], grid, (8, 8, 6), kernel=kernel, **maker.relu())


def _pair(kind):
    def make(maker):
        shapes = maker.choose(
            ((8, 8, 3), (8, 8, 3)), ((1, 1, 3), (8, 8, 3)), ((8, 8, 3), (1, 1, 3))
        )
        # With some ratios of scales for which LiteRT takes another kernel.
        lowest = maker.choose(0.01, 0.01, 0.01, 1e-5)
        places = [maker.input(shape, maker.grid(lowest, 0.2)) for shape in shapes]
        grid = maker.grid(0.05, 1.0) if kind == "Multiply" else maker.grid(0.02, 0.3)
        maker.add(kind, places, grid, (8, 8, 3), **maker.relu())

    return make


def _function(kind):
    def make(maker):
        place = maker.input((4, 64, 3), maker.grid(0.004, 0.4))
        slopes = maker.random.normal(0.0, 0.4, (1, 1, 3)).astype(np.float32)
        attributes = {
            "LeakyReLU": {"alpha": float(maker.random.uniform(0.001, 0.8))},
            "PReLU": {"alpha": slopes},
        }
        maker.add(kind, [place], maker.grid(0.004, 0.4), (4, 64, 3), attributes.get(kind))

    return make


def _fixed(name):
    def make(maker):
        (size,) = maker.sizes(2, 200, 1)
        shape = maker.choose((size,), (3, size))
        place = maker.input(shape, maker.grid(0.002, 0.5))
        kind = "Softmax" if name == "softmax" else "Activation"
        maker.add(kind, [place], _FIXED_GRIDS[name], shape, {"activation": name})

    return make


def _mean(maker):
    shape, keepdims = maker.sizes(1, 13, 3), maker.choose(True, False)
    place = maker.input(shape, maker.grid())
    out = (1, 1, shape[2]) if keepdims else shape[2:]
    grid = maker.grid(0.004, 0.1)
    maker.add("GlobalAveragePooling2D", [place], grid, out, {"keepdims": keepdims})


def _pool(kind):
    def make(maker):
        window, strides, padding = (
            maker.sizes(1, 5),
            maker.sizes(1, 4),
            maker.choose("same", "valid"),
        )
        attributes = {"pool_size": window, "strides": strides, "padding": padding}
        grid = maker.grid()
        size = _windows(_IMAGE[:2], window, strides, padding)
        maker.add(kind, [maker.input(_IMAGE, grid)], grid, (*size, _IMAGE[2]), attributes)

    return make


def _table(maker):
    table = maker.random.integers(-128, 128, 256).astype(np.int8)
    place = maker.input((16, 16), maker.grid())
    maker.add("ValueFunction", [place], maker.grid(), (16, 16), {"table": table})


def _relu(maker):
    scale = np.float32(6.0 / (maker.random.integers(10, 200) + 0.5))  # the 6 lies half-way
    grid = Grid(8, True, scale, -128, 127)
    maker.add(
        "ReLU", [maker.input((256,), grid)], grid, (256,), {"max_value": maker.choose(None, 6.0)}
    )


def _limited(maker):
    """A fused ReLU6 whose 6 lies half-way between two levels."""
    scale = np.float32(6.0 / (maker.random.integers(60, 200) + 0.5))
    places = [maker.input((256,), maker.grid(0.08, 0.1)) for _ in range(2)]
    maker.add("Add", places, Grid(8, True, scale, -28, 227), (256,), relu=True, relu_limit=6.0)


def _half_way(maker, value):
    """A scale for which a value lies half-way between two levels, or a rounding beside that."""
    scale = np.float32(value / (maker.random.integers(1, 100) + 0.5))
    for _ in range(maker.random.integers(4)):
        scale = np.nextafter(scale, np.float32(maker.choose(0.0, 10.0)))
    return scale


def _square(maker):
    """A tensor times itself."""
    grid = Grid(8, False, np.float32(maker.random.uniform(0.003, 0.1)), 0, 255)
    scale = _half_way(maker, (maker.random.integers(100, 255) * float(grid.scale)) ** 2)
    place = maker.input((256,), grid)
    maker.add("Multiply", [place, place], Grid(8, False, scale, 0, 255), (256,))


def _half_way_prelu(maker):
    grid = Grid(8, True, np.float32(maker.random.uniform(0.003, 0.1)), -128, 127)
    scale = _half_way(maker, maker.random.integers(20, 128) * float(grid.scale))
    slopes = maker.random.normal(0.0, 0.4, (1, 1, 3)).astype(np.float32)
    target = Grid(8, True, scale, -128, 127)
    place = maker.input((4, 64, 3), grid)
    maker.add("PReLU", [place], target, (4, 64, 3), {"alpha": slopes})


def _moves(maker):
    grid = maker.grid()
    place = maker.input((6, 5, 4), grid)
    for kind, shape, attributes in (
        ("ZeroPadding2D", (9, 8, 4), {"padding": ((1, 2), (3, 0))}),
        ("ZeroPadding2D", (9, 8, 4), {"padding": ((1, 2), (3, 0)), "lowest": True}),
        ("Cropping2D", (4, 3, 4), {"cropping": ((1, 1), (2, 0))}),
        ("UpSampling2D", (12, 15, 4), {"size": (2, 3)}),
        ("Slice", (2, 5, 2), {"begin": (1, 0, 0), "end": (5, 5, 4), "strides": (2, 1, 2)}),
        ("GlobalMaxPooling2D", (4,), {"keepdims": False}),
        ("Reshape", (20, 6), {}),
        ("Flatten", (120,), {}),
        ("Permute", (4, 6, 5), {"dims": (3, 1, 2)}),
    ):
        maker.add(kind, [place], grid, shape, attributes)
    maker.add("Concatenate", [place, place], grid, (6, 5, 8))
    other = maker.input((6, 5, 4), grid)
    for kind in ("Maximum", "Minimum"):
        maker.add(kind, [place, other], grid, (6, 5, 4))


def _bilinear(maker):
    old, new, grid = maker.sizes(1, 12), maker.sizes(1, 40), maker.grid()
    centers, corners = maker.choose((True, False), (False, True), (False, False))
    attributes = {"half_pixel_centers": centers, "align_corners": corners, "factor": None}
    place = maker.input((*old, 3), grid)
    maker.add("ResizeBilinear", [place], grid, (*new, 3), {**attributes, "source": old})


MAKERS = {
    **{kind: _convolution(kind) for kind in ("Conv2D", "DepthwiseConv2D", "Conv2DTranspose")},
    **{kind: _pair(kind) for kind in ("Add", "Subtract", "Multiply")},
    "square": _square,
    "half-way PReLU": _half_way_prelu,
    **{kind: _function(kind) for kind in ("HardSwish", "LeakyReLU", "PReLU")},
    **{name: _fixed(name) for name in ("sigmoid", "softmax", "tanh")},
    **{kind: _pool(kind) for kind in ("AveragePooling2D", "MaxPooling2D")},
    "BatchNormalization": _normalization,
    "Dense": _dense,
    "GlobalAveragePooling2D": _mean,
    "ReLU": _relu,
    "ResizeBilinear": _bilinear,
    "fused ReLU6": _limited,
    "moves": _moves,
    "ValueFunction": _table,
}
