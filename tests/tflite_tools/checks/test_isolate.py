"""Operators side by side."""

import numpy as np
import pytest
from file_maker import Maker

from tflite_tools.checks import isolate, operator_checks
from tflite_tools.running import runtime


@pytest.mark.parametrize("name", ["int8_file", "float_io_file"])
def test_every_operator_has_inputs_and_an_output_of_its_own(name, request):
    isolated = isolate.isolate(request.getfixturevalue(name))
    operators = isolated.model.main.ops
    assert "QUANTIZE" not in {op.name for op in operators}
    assert isolated.outputs == (
        "conv",
        "depthwise",
        "add",
        "pool",
        "pointwise",
        "mean",
        "head",
        "head_softmax",
    )
    assert sorted(isolated.inputs) == sorted(
        ["image", "conv", "depthwise", "conv", "add", "pool", "pointwise", "mean", "head"]
    )
    made = {index for op in operators for index in op.outputs}
    assert made.isdisjoint(index for op in operators for index in op.inputs)


def test_results_are_those_of_the_operators(int8_file):
    isolated = isolate.isolate(int8_file)
    ones = isolate.inputs_for(isolated, lambda _, tensor: np.ones((2, *tensor.shape[1:]), np.int8))
    results = dict(
        zip(
            isolated.outputs,
            runtime.run(isolated.model, ones).outputs,
            strict=True,
        )
    )
    np.testing.assert_array_equal(results["pool"], np.ones((2, 4, 4, 4)))
    np.testing.assert_array_equal(results["head_softmax"], np.full((2, 3), round(256 / 3) - 128))


def test_runtimes_differ_by_rounding_only(int8_file):
    if not runtime.available(runtime.TFLM):
        pytest.skip("TFLM is not installed")
    assert operator_checks.rounding_misfits(int8_file, seed=0, time_limit=60) == []


def test_misfits_by_hand():
    names = ("right", "ties", "wrong", "channel", "moved", "leaky")
    isolated = isolate.Isolated(None, (), names, (1, 1, 1, 1, 0, 2))
    targets = [np.zeros((32, 8, 4), np.int8)] * len(names)
    right, ties, wrong, channel, moved, leaky = (np.zeros((32, 8, 4), np.int8) for _ in names)
    right[0, 0, 0] = 1
    ties[::2] = 1  # every second one, as where the ratio of the scales is a half
    wrong[..., :2] = 2
    channel[..., 3] = -1
    moved[0, 0, 0] = 1
    leaky[:24] = 1
    results = [right, ties, wrong, channel, moved, leaky]
    problems, worst = isolate.misfits(isolated, results, targets)
    assert problems == [
        ("wrong", "off by 1.000 levels on average, 0.562 at most"),
        ("channel", "channel 3 is off by 1.000 levels on average, 0.625 at most"),
        ("moved", "off by 0.001 levels on average, 0.000 at most"),
    ]
    assert worst == 1.0


@pytest.mark.parametrize(
    ("sizes", "centers", "levels"),
    [((8, 6), True, 1), ((12, 9), True, 3), ((4, 119), True, 6), ((55, 3), False, 255)],
)
def test_resized_images_lie_apart(sizes, centers, levels):
    maker, grid = Maker(), (0.05, 3)
    source = maker.input((1, 1 if not centers else 4, 3, 2), grid)
    options = {"halfPixelCenters": centers, "alignCorners": False}
    places, kind = [source, maker.ints(sizes)], "ResizeBilinearOptions"
    maker.op("RESIZE_BILINEAR", places, (1, *sizes, 2), grid, options, kind=kind)
    assert isolate.isolate(maker.file()).most_levels == (levels,)


def test_every_operator_has_its_bound(int8_file):
    isolated = isolate.isolate(int8_file)
    kinds = [op.name for op in isolated.model.main.ops]
    assert isolated.most_levels == tuple(0 if name == "RESHAPE" else 1 for name in kinds)
