"""Generated C computes what TFLM computes, value by value, on both paths and under sanitizers."""

import dataclasses
import importlib
import pathlib
import re
import subprocess

import numpy as np
import pytest
from file_maker import (
    ACTIVATIONS,
    GROUPED,
    PRESCALES,
    Maker,
    convolution,
    few_digits,
    power_of_two,
    samples,
)
from quick import combinations

from tflite_tools.c import generate, host_run
from tflite_tools.checks import isolate
from tflite_tools.running import runtime

KINDS = ["CONV_2D", GROUPED, "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"]


def test_nets_of_every_kind(every_kind, c_is_tflm):
    alone = isolate.isolate(every_kind).model
    c_is_tflm(alone)  # every operator by itself, with any input
    sources, _ = c_is_tflm(every_kind, paths=["optimized"])
    assert sources.arena_bytes > 0


def test_every_kind_has_a_file():
    pytest.importorskip("tensorflow")
    nets = importlib.import_module("operation_nets").NETS
    files = pathlib.Path(__file__).parents[1] / "files" / "kinds"
    assert {path.stem for path in files.iterdir()} == {name.replace(" ", "_") for name in nets}


def test_a_trained_net_of_two_bits(int8_file, c_is_tflm):
    sources, expected = c_is_tflm(int8_file, count=64)
    assert len(np.unique(expected[0])) > 2
    layers = int8_file.manifest.layers
    assert sources.packed_weight_bytes <= sum(np.prod(e.shape) * e.bits / 8 + 1 for e in layers)


def test_several_inputs_and_outputs(c_is_tflm):
    maker = Maker()
    a, b = maker.input((1, 4, 4, 2)), maker.input((1, 1, 1, 2), (0.02, -5))
    total = maker.op("ADD", [a, b], (1, 4, 4, 2), kind="AddOptions")
    squeezed = maker.op("RESHAPE", [total, maker.ints([1, 32])], (1, 32), kind="ReshapeOptions")
    maker.outputs += [a]  # an input handed on
    maker.op("LOGISTIC", [squeezed], (1, 32), (1 / 256, -128))
    sources, _ = c_is_tflm(maker.file())
    assert "memcpy(output2, input0, 32);" in sources.files["model.c"]


@combinations(
    lambda kind, bits, per_channel: per_channel == (bits in (2, 8)),
    kind=KINDS,
    bits=PRESCALES,
    per_channel=[False, True],
)
def test_convolutions(kind, bits, per_channel, c_is_tflm):
    maker, random = Maker(), np.random.default_rng(bits)
    for _ in range(12):
        convolution(maker, random, kind, bits, per_channel)
    sources, expected = c_is_tflm(maker.file())
    assert sum(len(np.unique(output)) > 4 for output in expected) >= 8
    assert f".bits = {bits}," in sources.files["model.c"]
    assert sources.packed_weight_bytes <= sum(
        np.prod(layer.shape) * bits / 8 + 1 for layer in maker.layers
    )


@combinations(lambda kind, per_channel: per_channel, kind=KINDS, per_channel=[False, True])
def test_convolutions_whose_scales_are_powers_of_two(kind, per_channel, c_is_tflm):
    maker, random = Maker(), np.random.default_rng(1)
    for bits in (2, 4, 8) * 6:
        convolution(maker, random, kind, bits, per_channel, power_of_two)
    sources, expected = c_is_tflm(maker.file())
    assert sum(len(np.unique(output)) > 4 for output in expected) >= 12
    forms = re.findall(r"\.form = (\d+)", sources.files["model.c"])
    assert len(forms) == 18 and all(int(form) & 64 for form in forms)
    assert "#define TFB_SHIFT_STEPS 2" in sources.files["model.c"]
    convolution(maker, random, kind, 4, per_channel)
    sources, _ = c_is_tflm(maker.file(), paths=["optimized"])
    assert "#define TFB_SHIFT_STEPS 1" in sources.files["model.c"]


@pytest.mark.parametrize("kind", KINDS)
def test_constants_of_three_bytes(kind, c_is_tflm):
    maker, random = Maker(), np.random.default_rng(2)
    for bits in (2, 4, 8) * 6:
        convolution(maker, random, kind, bits, True, few_digits, bias_step=256)
    sources, expected = c_is_tflm(maker.file())
    assert sum(len(np.unique(output)) > 4 for output in expected) >= 12
    forms = [int(form) for form in re.findall(r"\.form = (\d+)", sources.files["model.c"])]
    short = [form for form in forms if form & 128]
    assert len(short) >= 12  # others have one channel, or the same factor for all
    assert "#define TFB_SHORT_CONSTANTS 1" in sources.files["model.c"]


@pytest.mark.parametrize("padding", [0, 1])
def test_groups_whose_filters_have_bits_of_their_own(padding, c_is_tflm):
    maker, random = Maker(), np.random.default_rng(padding)
    widths = (0, 1, 2, 3, 4, 8) * 5
    drawn = {0: [0], 1: [-1, 1], **{b: np.arange(-(2 ** (b - 1)), 2 ** (b - 1)) for b in (2, 3, 4)}}
    rows = [random.choice(drawn.get(bits, np.arange(-127, 128)), (3, 3, 8)) for bits in widths]
    source = maker.input((1, 7, 6, 16), (0.05, -9))
    scales = random.uniform(0.01, 0.02, 30).astype(np.float32) / 50
    weights = maker.weights(np.stack(rows), 8, 1, scales)
    maker.layers[-1] = dataclasses.replace(maker.layers[-1], channel_bits=widths)
    bias = maker.tensor((30,), (scales * 0.05, 0), data=np.arange(30, dtype=np.int32) * 50)
    options = {"strideH": 1, "strideW": 1, "padding": padding}
    size = (1, *((7, 6) if padding == 0 else (5, 4)), 30)
    places = [source, weights, bias]
    maker.op("CONV_2D", places, size, (0.02, 3), options, kind="Conv2DOptions")
    sources, _ = c_is_tflm(maker.file())
    assert "tfb_coded_grouped_conv_2d(" in sources.files["model.c"]


@combinations(
    lambda exponent, activation, zero: (
        activation == (zero == -128) and zero != 127 and exponent in (-3, 0, 4, 21, 25)
    ),
    exponent=[-3, -2, -1, 0, 1, 4, 20, 21, 22, 25],
    activation=[0, 1],
    zero=[-128, -20, 127],
)
def test_every_remainder_is_rounded_as_twice(exponent, activation, zero, c_is_tflm):
    """Sums around whole outputs and halves of them, of either sign, at all shifts."""
    maker, step = Maker(), 2.0**exponent  # of an output, in sums
    halves = np.arange(-6, 7)[:, None] * max(step / 4, 1) + np.arange(-2, 3)
    bias = np.unique(halves.astype(np.int64)).astype(np.int32)
    source = maker.input((1, 4, 4, 1), (2.0**-4, 0))
    codes = np.where(np.arange(bias.size) % 2, 1, -1).reshape(-1, 1, 1, 1)
    scale = np.float32([2.0**-10])
    places = [source, maker.weights(codes, 8, 1, scale, 0)]
    places.append(maker.tensor(bias.shape, (scale * np.float32(2.0**-4), 0), data=bias))
    options = {"strideH": 1, "strideW": 1, "padding": 0, "fusedActivationFunction": activation}
    grid = (2.0**-14 * step, zero)
    maker.op("CONV_2D", places, (1, 4, 4, bias.size), grid, options, kind="Conv2DOptions")
    sources, _ = c_is_tflm(maker.file(), paths=["portable"])
    (form,) = re.findall(r"\.form = (\d+)", sources.files["model.c"])
    assert bool(int(form) & 64) == (exponent <= 22)


@combinations(
    lambda bits, per_channel: per_channel == (bits in (2, 8)),
    bits=PRESCALES,
    per_channel=[False, True],
)
def test_fully_connected(bits, per_channel, c_is_tflm):
    maker, random = Maker(), np.random.default_rng(bits)
    for shape, channels in (((1, 37), 5), ((1, 3, 4, 8), 6), ((1, 5, 9), 4), ((1, 300), 1)):
        depth = 96 if len(shape) == 4 else shape[-1]
        rows = int(np.prod(shape)) // depth
        high = 2 ** (bits - 1)
        codes = random.integers(-high + 1, high, (channels, depth))
        scales = random.uniform(0.5, 2.0, channels if per_channel and channels > 1 else 1)
        scales = (scales * 0.01 / PRESCALES[bits] / high).astype(np.float32)
        bias = random.integers(-3000, 3000, channels).astype(np.int32)
        source = maker.input(shape, (0.04, int(random.integers(-128, 128))))
        places = [
            source,
            maker.weights(codes, bits, PRESCALES[bits], scales),
            # A bias scale that TFLM finds close enough to that of the products.
            maker.tensor(bias.shape, (scales * np.float32(0.04), 0), data=bias),
        ]
        out = (rows, channels)
        maker.op("FULLY_CONNECTED", places, out, (0.01, 9), kind="FullyConnectedOptions")
    c_is_tflm(maker.file())


@combinations(
    lambda biases, scales: biases[1] == 1 or scales[0] == 6.0,
    biases=[(2**15 - 1, 1), (2**23 - 1, 2), (2**28, 0)],
    scales=[(1.0, 8), (6.0, 8 | 32), (1000.0, 8 | 16), ("powers", 16)],
)
def test_constants_take_as_few_bytes_as_they_can(biases, scales, c_is_tflm):
    (largest, width), (spread, factors) = biases, scales
    maker, random, channels = Maker(), np.random.default_rng(0), 7
    if spread == "powers":
        factors |= 64 if largest < 2**16 else 0  # larger ones are shifted too far
        scales = 2.0 ** -np.arange(channels)
        scales = power_of_two(scales / 50.0 / largest).astype(np.float32)
    else:
        scales = np.geomspace(1.0, spread, channels) * random.uniform(1.0, 1.3, channels)
        scales = (scales / scales.max() / 50.0 / largest).astype(np.float32)
    bias = random.integers(-largest, largest, channels).astype(np.int32)
    bias[:2] = largest, -largest
    in_scale = np.float32(2.0**-5 if spread == "powers" else 0.04)
    source = maker.input((1, 4, 4, 8), (float(in_scale), 0))
    codes = random.integers(-8, 8, (channels, 1, 1, 8))
    places = [
        source,
        maker.weights(codes, 4, PRESCALES[4], scales, 0),
        maker.tensor(bias.shape, (scales * in_scale, 0), data=bias),
    ]
    options = {"strideH": 1, "strideW": 1, "padding": 0}
    grid = (2.0**-17 if spread == "powers" else 1e-3 / 127, -5)
    maker.op("CONV_2D", places, (1, 4, 4, channels), grid, options, kind="Conv2DOptions")
    sources, expected = c_is_tflm(maker.file())
    assert len(np.unique(expected[0])) >= 4
    folded = 4  # an input's zero point of 0 costs nothing
    assert f".form = {width | folded | factors}}}" in sources.files["model.c"]
    bytes_of_bias = {1: 2, 2: 3, 0: 4}[width] * channels
    shifts = channels if factors & 16 else 1
    multipliers = channels if factors & 8 else 1
    assert sources.constant_bytes == bytes_of_bias + 4 * multipliers + shifts


GRIDS = [(0.0421, -9), (0.0317, 12)]


def unary(maker, name, grid, out, kind=None, options=None):
    source = maker.input((1, 16, 16, 1), grid)
    maker.op(name, [source], (1, 16, 16, 1), out, options, kind=kind)


def test_functions_of_one_value(c_is_tflm):
    maker = Maker()
    for scale in (0.004, 0.02, 0.11, 0.6):
        for zero in (-128, -3, 90):
            grid = (scale, zero)
            unary(maker, "LOGISTIC", grid, (1 / 256, -128))
            unary(maker, "TANH", grid, (1 / 128, 0))
            unary(maker, "HARD_SWISH", grid, (scale * 0.8, -100))
            unary(maker, "RELU", grid, (scale * 1.3, -128))
            unary(maker, "RELU", grid, (scale * 0.7, 5))
            unary(maker, "RELU6", grid, grid)
            unary(maker, "QUANTIZE", grid, (scale * 1.7, 4), "QuantizeOptions")
            unary(maker, "QUANTIZE", grid, (scale * 0.3, -4), "QuantizeOptions")
            for alpha in (0.01, 0.3, -0.2, 1.5):
                options = {"alpha": alpha}
                unary(maker, "LEAKY_RELU", grid, (scale * 0.9, -60), "LeakyReluOptions", options)
    c_is_tflm(maker.file(), count=1, paths=["portable"])


def test_more_values_than_16_bits_count(c_is_tflm):
    maker, shape, grid = Maker(), (1, 150, 230, 2), (0.05, 3)
    source = maker.input(shape)
    maker.op("SUB", [source, source], shape, kind="SubOptions")
    places = [source, *(maker.ints(v) for v in ([0] * 4, [1, 140, 230, 2], [1] * 4))]
    maker.op("STRIDED_SLICE", places, (1, 140, 230, 2), grid, kind="StridedSliceOptions")
    places = [source, maker.ints([[0, 0], [1, 1], [0, 0], [0, 0]])]
    maker.op("PAD", places, (1, 152, 230, 2), grid, kind="PadOptions")
    c_is_tflm(maker.file(), count=2, paths=["portable"])


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_functions_of_two_values(activation, c_is_tflm):
    maker, (one, two) = Maker(), GRIDS
    shapes = [
        ((1, 4, 8, 8), (1, 4, 8, 8)),
        ((1, 4, 8, 8), (1, 1, 1, 8)),
        ((1, 1, 8, 1), (1, 4, 1, 8)),
    ]
    fused = {"fusedActivationFunction": activation}
    for first, second in shapes:
        for swap in (False, True):
            a, b = maker.input(first, one), maker.input(second, two)
            places = [b, a] if swap else [a, b]
            out = np.broadcast_shapes(first, second)
            for name in ("Add", "Sub", "Mul"):
                maker.op(name.upper(), places, out, (0.061, -20), fused, kind=f"{name}Options")
    constant = np.arange(-4, 4, dtype=np.int8)
    held = maker.tensor((8,), (0.3, 1), data=constant)
    maker.op("MUL", [maker.input((1, 64, 8)), held], (1, 64, 8), kind="MulOptions")
    slopes = maker.tensor((1, 1, 8), (0.01, -2), data=constant)
    maker.op("PRELU", [maker.input((1, 8, 8, 8)), slopes], (1, 8, 8, 8))
    for name in ("MAXIMUM", "MINIMUM"):
        pair = [maker.input((1, 8, 8, 4), one), maker.input((1, 1, 8, 1), one)]
        maker.op(name, pair, (1, 8, 8, 4), one, kind="MaximumMinimumOptions")
    c_is_tflm(maker.file(), paths=["portable"])


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_sums_whose_scales_are_powers_of_two(activation, c_is_tflm):
    maker, shape, shifts = Maker(), (1, 8, 8, 4), 0
    fused = {"fusedActivationFunction": activation}
    for first, second, out in ((4, 4, 4), (4, 6, 3), (9, 3, 5), (3, 4, 6), (24, 4, 4), (5, 4, 0)):
        a, b = maker.input(shape, (2.0**-first, -9)), maker.input(shape, (2.0**-second, 12))
        for name in ("Add", "Sub"):
            grid = (2.0**-out, -20)
            maker.op(name.upper(), [a, b], shape, grid, fused, kind=f"{name}Options")
        shifts += 2 if first < 24 else 0  # more than 19 apart is left to the multipliers
    sources, _ = c_is_tflm(maker.file())
    assert len(re.findall("tfb_(?:add|sub)_shifts", sources.files["model.c"])) == shifts


def test_pools_and_reductions(c_is_tflm):
    maker, grid = Maker(), (0.05, 3)
    for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        for padding, size, stride in ((0, 3, 1), (0, 3, 2), (1, 2, 2), (1, 5, 3)):
            out = -(-9 // stride) if padding == 0 else (9 - size) // stride + 1
            options = {"padding": padding, "filterHeight": size, "filterWidth": size}
            options |= {"strideH": stride, "strideW": stride, "fusedActivationFunction": 3}
            source = maker.input((1, 9, 9, 3), grid)
            maker.op(kind, [source], (1, out, out, 3), grid, options, kind="Pool2DOptions")
    for axes, keep, shape in (
        ([1, 2], True, (1, 1, 1, 5)), ([1, 2], False, (1, 5)), ([2, 1], True, (1, 1, 1, 5)),
        ([3], True, (1, 7, 6, 1)), ([-2], True, (1, 7, 1, 5)), ([0, 1], True, (1, 1, 6, 5)),
    ):  # fmt: skip
        for scale in (0.05, 0.013, 0.2):  # the first is the input's own
            source = maker.input((1, 7, 6, 5), grid)
            places = [source, maker.ints(axes)]
            out = grid if scale == 0.05 else (scale, -8)
            maker.op("MEAN", places, shape, out, {"keepDims": keep}, kind="ReducerOptions")
        places = [maker.input((1, 7, 6, 5), grid), maker.ints(axes)]
        maker.op("REDUCE_MAX", places, shape, grid, {"keepDims": keep}, kind="ReducerOptions")
    c_is_tflm(maker.file(), paths=["portable"])


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_softmax(beta, c_is_tflm):
    maker = Maker()
    for scale in (0.0007, 0.01, 0.13, 0.9, 7.0):
        for depth in (2, 10, 301):
            source = maker.input((1, 3, depth), (scale, 11))
            options = {"beta": beta}
            maker.op(
                "SOFTMAX", [source], (1, 3, depth), (1 / 256, -128), options, kind="SoftmaxOptions"
            )
    c_is_tflm(maker.file(), count=16, paths=["portable"])


def test_moves(c_is_tflm):
    maker, grid = Maker(), (0.05, 3)
    for corners, centers in ((False, False), (True, False), (False, True)):
        for size in ((8, 6), (13, 3), (1, 17)):
            places = [maker.input((1, 4, 6, 3)), maker.ints(size)]
            options = {"alignCorners": corners, "halfPixelCenters": centers}
            kind = "ResizeNearestNeighborOptions"
            maker.op("RESIZE_NEAREST_NEIGHBOR", places, (1, *size, 3), grid, options, kind=kind)
            kind = "ResizeBilinearOptions"
            maker.op("RESIZE_BILINEAR", places, (1, *size, 3), grid, options, kind=kind)
    for margins, shape in (
        ([[0, 0], [1, 2], [0, 3], [0, 0]], (1, 7, 9, 3)),
        ([[0, 0], [0, 0], [0, 0], [1, 1]], (1, 4, 6, 5)),
    ):  # fmt: skip
        places = [maker.input((1, 4, 6, 3)), maker.ints(margins)]
        maker.op("PAD", places, shape, grid, kind="PadOptions")
        value = maker.tensor((1,), grid, data=np.array([-77], np.int8))
        places = [maker.input((1, 4, 6, 3)), maker.ints(margins), value]
        maker.op("PADV2", places, shape, grid, kind="PadV2Options")
    for begin, end, step, masks, shape in (
        ([0, 1, 2, 0], [1, 3, 6, 3], [1, 1, 2, 1], {}, (1, 2, 2, 3)),
        ([0, -1, 0, 0], [0] * 4, [1, -1, 2, 1], {"beginMask": 13, "endMask": 15}, (1, 4, 3, 3)),
        ([0, 2, 0, 1], [1, 3, 6, 3], [1, 1, 1, 1], {"shrinkAxisMask": 2}, (1, 6, 2)),
    ):  # fmt: skip
        places = [maker.input((1, 4, 6, 3)), *(maker.ints(v) for v in (begin, end, step))]
        maker.op("STRIDED_SLICE", places, shape, grid, masks, kind="StridedSliceOptions")
    places = [maker.input((1, 4, 6, 3)), maker.ints([0, 1, 0, 1]), maker.ints([1, 2, -1, 2])]
    maker.op("SLICE", places, (1, 2, 6, 2), grid)
    places = [maker.input((1, 4, 6, 3)), maker.ints([0, 3, 1, 2])]
    maker.op("TRANSPOSE", places, (1, 3, 4, 6), grid, kind="TransposeOptions")
    for axis, other, shape in ((3, (1, 4, 6, 5), (1, 4, 6, 8)), (-3, (1, 2, 6, 3), (1, 6, 6, 3))):
        places = [maker.input((1, 4, 6, 3)), maker.input(other)]
        maker.op("CONCATENATION", places, shape, grid, {"axis": axis}, kind="ConcatenationOptions")
    source = maker.input((1, 4, 1, 3))
    squeezed = maker.op(
        "SQUEEZE", [source], (1, 4, 3), grid, {"squeezeDims": [2]}, kind="SqueezeOptions"
    )
    maker.op("EXPAND_DIMS", [squeezed, maker.ints(1)], (1, 1, 4, 3), grid, kind="ExpandDimsOptions")
    c_is_tflm(maker.file(), paths=["portable"])


def test_the_comparison_finds_a_wrong_kernel(int8_file, needs_compiler):
    # Break the checked side: no rounding at the end.
    inputs, sources = samples(int8_file, 64), generate.generate(int8_file)
    right = host_run.run(sources.files, int8_file, inputs)
    header = sources.files[generate.RUNTIME_HEADER]
    broken = header.replace("multiplier, offset + (twice >> 31)", "multiplier, (offset & 0)")
    assert broken != header
    files = {**sources.files, generate.RUNTIME_HEADER: broken}
    wrong = host_run.run(files, int8_file, inputs)
    assert np.any(wrong[0] != right[0])


def test_the_arena_is_no_larger_than_tflms(every_kind):
    if not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")
    graph = every_kind.main
    edges = sum(np.prod(graph.tensors[i].shape) for i in (*graph.inputs, *graph.outputs))
    theirs = runtime.least_arena(every_kind)  # in processes, for too little can crash it
    assert generate.generate(every_kind).arena_bytes + edges <= theirs + 4096


def test_an_int_of_16_bits_is_refused(needs_compiler, tmp_path):
    header = tmp_path / generate.RUNTIME_HEADER
    header.write_text(generate.runtime_header())
    for largest, code in (("2147483647", 0), ("32767", 1)):
        command = [host_run.compiler(), "-E", "-U__INT_MAX__", f"-D__INT_MAX__={largest}", header]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code
    assert "compute with an int of 32 bits" in done.stderr
