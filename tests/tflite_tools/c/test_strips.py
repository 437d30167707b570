"""Operators in strips: which rows, in how many bytes, and bit for bit the same outputs."""

import dataclasses
import re

import numpy as np
import pytest
from file_maker import ACTIVATIONS, Maker
from hypothesis import given
from hypothesis import strategies as st
from quick import slow

from tflite_tools.arithmetic.geometry import SAME, window
from tflite_tools.c import generate, memory_map, strips
from tflite_tools.c.lowering import Window
from tflite_tools.c.strip_step import Chain
from tflite_tools.c.strip_step import strips as strips_of

IMAGE_GRID = (0.05, 3)


@st.composite
def windows(draw):
    """One to four windows, each over the output of the one before it."""
    rows, found = draw(st.integers(3, 20)), []
    for _ in range(draw(st.integers(1, 4))):
        reach, stride, padding = (
            draw(st.integers(low, high)) for low, high in ((1, 3), (1, 2), (0, 1))
        )
        count, pad = window(rows, reach, stride, 1, padding)
        if count < 1:
            break
        found.append(Window(rows, count, stride, pad, reach))
        rows = count
    return found


@given(windows(), st.integers(1, 6))
def test_every_row_is_made_once_from_rows_that_are_there(found, height):
    made = [[] for _ in found]
    for parts in strips_of(found, height):
        for number, (own, part) in enumerate(zip(found, parts, strict=True)):
            made[number] += range(part.begin, part.end)
            there = len(made[number - 1]) if number else own.rows_in
            assert part.seen == there
            for row in range(part.begin, part.end):
                seen = range(row * own.stride - own.pad, row * own.stride - own.pad + own.reach)
                inside = [place for place in seen if 0 <= place < own.rows_in]
                assert all(part.first <= place < part.seen for place in inside)
    assert made[-1:] == [list(range(own.rows_out)) for own in found[-1:]]
    assert all(rows == list(range(len(rows))) for rows in made)


def net(seed):
    """Operators in a row that all run in strips, some with a residual, of random shapes."""
    random, maker = np.random.default_rng(seed), Maker()
    shape = (
        1,
        int(random.integers(9, 16)),
        int(random.integers(5, 11)),
        int(random.integers(1, 5)),
    )
    maps = [(maker.input(shape, IMAGE_GRID), shape)]
    for kind in random.permutation(["conv", "conv", "depthwise", "pool", "conv", "lookup", "add"]):
        source, shape = maps[-1]
        if kind == "add":
            same = [index for index, other in maps[:-1] if other == shape and index != source]
            if not same:
                maps.append(conv(maker, random, "depthwise", source, shape, stride=1))
                same, source = [source], maps[-1][0]
            scales = [grid_of(maker, index)[0] for index in (source, same[0])]
            grid = (max(scales), int(random.integers(-60, 60)))
            made = maker.op("ADD", [source, same[0]], shape, grid, kind="AddOptions", output=False)
        elif kind == "lookup":
            grid = (grid_of(maker, source)[0], 5)
            made = maker.op("HARD_SWISH", [source], shape, grid, output=False)
        elif kind == "pool":
            size, stride = int(random.integers(1, 4)), 1 + int(random.integers(4) == 0)
            height, width = (window(length, size, stride, 1, SAME)[0] for length in shape[1:3])
            shape = (1, height, width, shape[3])
            options = {"padding": SAME, "filterHeight": size, "filterWidth": size}
            options |= {"strideH": stride, "strideW": stride}
            grid = grid_of(maker, source)
            name = str(random.choice(["MAX_POOL_2D", "AVERAGE_POOL_2D"]))
            made = maker.op(
                name, [source], shape, grid, options, kind="Pool2DOptions", output=False
            )
        else:
            made, shape = conv(maker, random, kind, source, shape, 1 + int(random.integers(4) == 0))
        maps.append((made, shape))
    maker.outputs = [maps[-1][0]]
    return maker.file()


def grid_of(maker, index):
    quantization = maker.graph.tensors[index].quantization
    return float(quantization.scale[0]), int(quantization.zeroPoint[0])


def conv(maker, random, kind, source, shape, stride):
    """A convolution; stride 1 keeps the size of the image."""
    k_h, k_w = (int(size) for size in random.integers(1, 4, 2))
    depth, bits = shape[3], int(random.choice([2, 3, 4, 8]))
    channels = depth if kind == "depthwise" else int(random.integers(2, 6))
    form = (1, k_h, k_w, channels) if kind == "depthwise" else (channels, k_h, k_w, depth)
    axis = 3 if kind == "depthwise" else 0
    prescale, low = {2: 32, 3: 16, 4: 8, 8: 1}[bits], -(2 ** (bits - 1))
    # Outputs of about half of the range, at a usual scale.
    codes = random.integers(low + 1, -low, form)
    taps, in_scale = codes.size / channels, grid_of(maker, source)[0]
    grid = (float(random.choice([0.05, 0.08])), int(random.integers(-30, 30)))
    scale = np.float32([grid[0] / (0.6 * taps**0.5 * in_scale * prescale * -low)])
    weights = maker.weights(codes, bits, prescale, scale, axis)
    large = int(20 * grid[0] / (in_scale * scale[0]))
    bias = random.integers(-large, large + 1, channels).astype(np.int32)
    places = [source, weights, maker.tensor(bias.shape, (scale, 0), data=bias)]
    height, width = (
        window(length, size, stride, 1, SAME)[0]
        for length, size in zip(shape[1:3], (k_h, k_w), strict=True)
    )
    made = (1, height, width, channels)
    options = {"strideH": stride, "strideW": stride, "padding": SAME}
    options["fusedActivationFunction"] = ACTIVATIONS["NONE"]
    name, table = "CONV_2D", "Conv2DOptions"
    if kind == "depthwise":
        name, table = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"
        options["depthMultiplier"] = 1
    return maker.op(name, places, made, grid, options, kind=table, output=False), made


def lowered(model):
    graph, steps, _ = generate._lowered(
        model.main, {own.tensor: own for own in model.manifest.layers}
    )
    return graph, steps


def longest_chain(graph, steps):
    found = (own for number in range(len(steps)) for own in strips._chains(graph, steps, (number,)))
    return max(found, key=len)


@pytest.mark.parametrize("seed", [0, 1, *slow(*range(2, 20))])
def test_outputs_are_the_same(seed, c_is_tflm, monkeypatch):
    model = net(seed)

    def join(graph, steps, budget):
        numbers = longest_chain(graph, steps)
        joined = Chain(graph, [steps[number] for number in numbers], budget).step
        assert joined.call.count("tfb_keep") == len(numbers) - 1
        gone = set(numbers[:-1])
        kept = [step for number, step in enumerate(steps) if number not in gone]
        return [joined if step.writes == joined.writes else step for step in kept]

    monkeypatch.setattr(strips, "within", join)
    for height in (1 + seed % 2, 3):
        _, expected = c_is_tflm(model, ram_budget=height)
        assert len(np.unique(expected[0])) > 8


def test_memory_that_is_read_under_another_name_is_not_overwritten():
    random, maker = np.random.default_rng(0), Maker()
    first, shape = conv(maker, random, "conv", maker.input((1, 9, 6, 3)), (1, 9, 6, 3), 1)
    same = maker.op(
        "RESHAPE", [first, maker.ints(shape)], shape, grid_of(maker, first), output=False
    )
    behind, _ = conv(maker, random, "depthwise", first, shape, 1)
    made = maker.op("ADD", [behind, same], shape, (0.07, 3), kind="AddOptions")
    graph, steps = lowered(maker.file())
    joined = Chain(graph, steps[2:], 2).step
    assert joined.in_place
    places = memory_map.place(graph, [*steps[:2], joined]).tensors
    assert places[first] == places[same] != places[made]


def test_a_convolution_of_a_constant_is_not_in_strips():
    random, maker, shape = np.random.default_rng(0), Maker(), (1, 9, 6, 3)
    image = random.integers(-128, 128, shape).astype(np.int8)
    constant = maker.tensor(shape, IMAGE_GRID, data=image)
    made, shape = conv(maker, random, "conv", constant, shape, 1)
    made, shape = conv(maker, random, "conv", made, shape, 1)
    maker.op("ADD", [made, maker.input(shape)], shape, (0.07, 3), kind="AddOptions")
    model = maker.file()
    _, steps = lowered(model)
    assert [step.rows is None for step in steps] == [True, False, False]
    assert generate.generate(model).arena_bytes > 0


class TestBudget:
    def test_as_little_as_it_takes(self):
        model = net(7)
        whole = generate.generate(model)
        enough = generate.generate(model, ram_budget=whole.arena_bytes)
        assert enough.arena_bytes == whole.arena_bytes
        less = generate.generate(model, ram_budget=whole.arena_bytes - 1)
        assert less.arena_bytes < whole.arena_bytes
        assert re.search(r"\d rows? at a time", less.files["model.c"])
        assert "tfb_map" not in enough.files[generate.RUNTIME_HEADER]

    def test_what_cannot_be_had_is_told(self):
        with pytest.raises(
            ValueError, match=r"do not fit into 10 bytes: the least .* at .*CONV_2D"
        ):
            generate.generate(net(3), ram_budget=10)

    def test_memory_that_is_left_makes_it_quicker(self):
        model = net(4)
        graph, steps = lowered(model)
        numbers = longest_chain(graph, steps)
        low = Chain(graph, [steps[number] for number in numbers], 1)
        high = dataclasses.replace(low, height=4)
        roomy = dataclasses.replace(low, room=low.most_room)
        assert high.cost < low.cost and roomy.cost <= low.cost
        assert high.step.scratch > low.step.scratch
