"""Zeros around an image are seen by the convolution behind them, without a copy."""

import numpy as np
import pytest
from file_maker import Maker

from tflite_tools.arithmetic.geometry import SAME, VALID

SHAPE, GRID = (1, 6, 5, 3), (0.05, -7)


def net(margins=(0, 1, 0, 1), *, kind="CONV_2D", padding=VALID, stride=2, grid=GRID, more=False):
    """A PAD and a convolution of 3x3 behind it."""
    maker, random = Maker(), np.random.default_rng(0)
    above, below, before, behind = margins
    rows = [[0, 0], [above, below], [before, behind], [0, 0]]
    padded = (1, SHAPE[1] + above + below, SHAPE[2] + before + behind, 3)
    source = maker.input(SHAPE, GRID)
    places = [source, maker.ints(rows)]
    pad = maker.op("PAD", places, padded, grid, kind="PadOptions", output=more)
    form, axis = ((1, 3, 3, 3), 3) if kind == "DEPTHWISE_CONV_2D" else ((3, 3, 3, 3), 0)
    scale = np.float32([0.02])
    weights = maker.weights(random.integers(-2, 2, form), 2, 32, scale / 32, axis)
    bias = maker.tensor((3,), (scale / 32, 0), data=np.int32([5, -900, 3000]))
    sizes = [
        (size - 3 + stride) // stride if padding else -(-size // stride) for size in padded[1:3]
    ]
    options = {"strideH": stride, "strideW": stride, "padding": padding}
    options |= {"depthMultiplier": 1} if axis else {}
    table = "DepthwiseConv2DOptions" if axis else "Conv2DOptions"
    maker.op(kind, [pad, weights, bias], (1, *sizes, 3), (0.02, 3), options, kind=table)
    return maker.file()


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D"])
@pytest.mark.parametrize("margins", [(0, 1, 0, 1), (2, 2, 1, 0)])
def test_the_pad_is_gone(kind, margins, c_is_tflm):
    sources, expected = c_is_tflm(net(margins, kind=kind))
    assert "tfb_scatter_4d(" not in sources.files["model.c"]
    assert len(np.unique(expected[0])) > 20


@pytest.mark.parametrize("kept", [
    {"margins": (3, 0, 0, 0)},  # a window that sees nothing of the image
    {"padding": SAME},
    {"more": True},  # an output of the model
], ids=str)  # fmt: skip
def test_the_pad_stays(kept, c_is_tflm):
    sources, _ = c_is_tflm(net(**kept), paths=["portable"])
    assert "tfb_scatter_4d(" in sources.files["model.c"]


def pool_net(name="PADV2", fill=-128, *, grid=GRID, margins=(1, 1, 2, 0), window=3, mean=False):
    """A border and a pooling of 3x3 behind it."""
    maker, (above, below, before, behind) = Maker(), margins
    rows = [[0, 0], [above, below], [before, behind], [0, 0]]
    padded = (1, SHAPE[1] + above + below, SHAPE[2] + before + behind, 3)
    places = [maker.input(SHAPE, grid), maker.ints(rows)]
    if name == "PADV2":
        places.append(maker.tensor((), grid, data=np.array(fill, np.int8)))
    kind = {"PAD": "PadOptions", "PADV2": "PadV2Options"}[name]
    pad = maker.op(name, places, padded, grid, kind=kind, output=False)
    options = {"strideH": 2, "strideW": 1, "padding": VALID}
    options |= {"filterHeight": window, "filterWidth": window}
    made = (1, (padded[1] - window) // 2 + 1, padded[2] - window + 1, 3)
    operator = "AVERAGE_POOL_2D" if mean else "MAX_POOL_2D"
    maker.op(operator, [pad], made, grid, options, kind="Pool2DOptions")
    return maker.file()


@pytest.mark.parametrize("border", [
    {},
    {"margins": (2, 0, 0, 2)},
    {"name": "PAD", "grid": (0.05, -128)},  # as behind a ReLU
], ids=str)  # fmt: skip
def test_a_max_pooling_sees_a_border_of_the_least_number(border, c_is_tflm):
    sources, expected = c_is_tflm(pool_net(**border))
    assert "tfb_scatter_4d(" not in sources.files["model.c"]
    assert len(np.unique(expected[0])) > 20


@pytest.mark.parametrize("kept", [
    {"fill": -127},
    {"name": "PAD"},
    {"mean": True},
    {"margins": (3, 0, 0, 0)},
    {"window": 2},
], ids=str)  # fmt: skip
def test_other_borders_of_a_pooling_stay(kept, c_is_tflm):
    sources, _ = c_is_tflm(pool_net(**kept), paths=["portable"])
    assert "tfb_scatter_4d(" in sources.files["model.c"]


@pytest.mark.parametrize("shape", [(1, 9, 1, 1), (1, 3, 4, 1), (1, 1, 1, 1)], ids=str)
def test_single_values_are_spread(shape, c_is_tflm):
    maker, rows = Maker(), [[0, 0], [0, 0], [1, 2], [0, 1]]
    places = [maker.input(shape, GRID), maker.ints(rows)]
    made = (*shape[:2], shape[2] + 3, shape[3] + 1)
    maker.op("PAD", places, made, GRID, kind="PadOptions")
    sources, _ = c_is_tflm(maker.file())
    assert "tfb_scatter_4d(" in sources.files["model.c"]
