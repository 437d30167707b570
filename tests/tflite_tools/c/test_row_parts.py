"""What does not run frame by frame: every reason, by the layer's name, and what to take instead."""

import dataclasses

import numpy as np
import pytest
import sequence_nets
from file_maker import Maker
from sequence_nets import SequenceMaker

from tflite_tools.c import generate, row_parts
from tflite_tools.c.row_parts import Reader
from tflite_tools.schema.contents import Op, Tensor

SAME = 0


def refused(maker, *reasons):
    with pytest.raises(ValueError, match="cannot take its input frame by frame") as error:
        generate.generate(maker.file(), streaming=True)
    lines = str(error.value).split("\n  - ")[1:]
    assert len(lines) == len(reasons)
    for line, reason in zip(lines, reasons, strict=True):
        assert reason in line


def test_all_reasons_at_once():
    maker = SequenceMaker()
    maker.conv(padding=SAME, causal=False)
    named = maker.graph.tensors[maker.now].name
    maker.conv(taps=5, padding=SAME, causal=False, dilation=2)
    maker.pool(3, 1, padding=SAME)
    refused(
        maker,
        f"CONV_2D '{named}': it sees 1 frame of the future, by its padding: take padding='causal'",
        "it sees 4 frames of the future",
        "it sees 1 frame of the future, by its padding: take padding='valid'",
    )


def gated(maker):
    maker.conv(channels=3)
    rows = maker.now
    maker.mean()
    gate = maker.reshape(maker.now, (1, 1, 1, 3))
    maker.add("MUL", [rows, gate], maker.shape(rows), None, {}, "MulOptions")
    maker.conv()  # what follows is not judged


def transposed(maker):
    order = maker.ints([0, 3, 1, 2])
    shape = [maker.shape(maker.now)[axis] for axis in (0, 3, 1, 2)]
    maker.add("TRANSPOSE", [maker.now, order], shape, None, {}, "TransposeOptions")


def softmax_over_time(maker):
    maker.conv(channels=1)
    maker.reshape(maker.now, (1, maker.shape(maker.now)[2]))
    options = {"beta": 1.0}
    shape = maker.shape(maker.now)
    maker.add("SOFTMAX", [maker.now], shape, (1 / 256, -128), options, "SoftmaxOptions")


def position_code(maker):
    shape = maker.shape(maker.now)
    values = np.zeros(shape, np.int8)
    constant = maker.tensor(shape, maker.grid(maker.now), data=values)
    maker.add("ADD", [maker.now, constant], shape, (0.1, 0), {}, "AddOptions")


def joined_in_time(maker):
    first = maker.conv()
    shape = list(maker.shape(first))
    shape[2] *= 2
    maker.add("CONCATENATION", [first, first], shape, None, {"axis": 2}, "ConcatenationOptions")


def joined_with_constant(maker):
    shape = maker.shape(maker.now)
    constant = maker.tensor(shape, maker.grid(maker.now), data=np.zeros(shape, np.int8))
    made = (*shape[:3], 2 * shape[3])
    places = [maker.now, constant]
    maker.add("CONCATENATION", places, made, None, {"axis": 3}, "ConcatenationOptions")


def resized(maker):
    shape = maker.shape(maker.now)
    made = (1, 1, 2 * shape[2], shape[3])
    places = [maker.now, maker.ints(made[1:3])]
    maker.add("RESIZE_NEAREST_NEIGHBOR", places, made, None, {}, "ResizeNearestNeighborOptions")


def padded_twice(maker):
    padded = maker.pad(maker.now, 2)
    maker.sum(padded, padded)


def pooled_in_a_border(maker):
    grid, shape = maker.grid(maker.now), list(maker.shape(maker.now))
    margins = np.zeros((4, 2), np.int32)
    margins[maker.axis] = 1, 0
    shape[maker.axis] += 1
    least = maker.tensor((), grid, data=np.array(-128, np.int8))
    places = [maker.now, maker.ints(margins), least]
    maker.add("PADV2", places, shape, None, {}, "PadV2Options")
    maker.pool(2, 1, "MAX_POOL_2D")


def backwards(maker):
    shape = maker.shape(maker.now)
    bounds = [maker.ints(values) for values in ([0, 0, -1, 0], [1, 1, 0, 3], [1, 1, -1, 1])]
    options = {"endMask": 4}
    maker.add("STRIDED_SLICE", [maker.now, *bounds], shape, None, options, "StridedSliceOptions")


def from_the_middle(maker):
    maker.crop(maker.now, 5, 6)


def two_rates(maker):
    maker.outputs = [maker.conv(), maker.conv(stride=2)]


def strides_that_differ(maker):
    rows = maker.now
    first = maker.conv(rows, stride=2)
    count = maker.shape(first)[2]
    second = maker.crop(maker.conv(rows), 0, count)
    maker.sum(first, second)


@pytest.mark.parametrize(("change", "reason"), [
    (gated, "joins each frame with what comes of the whole sequence"),
    (transposed, "it moves time behind the features"),
    (softmax_over_time, "it is over time: take it over the features"),
    (position_code, "another constant for each frame"),
    (joined_in_time, "joins sequences one behind the other"),
    (joined_with_constant, "joins frames with a constant"),
    (resized, "it is not computed frame by frame"),
    (padded_twice, "it pads time, and not for one convolution"),
    (pooled_in_a_border, "it pads time: leave out the border in front of this pooling"),
    (backwards, "it turns time around"),
    (from_the_middle, "it takes frame 5 of 24: take the last one"),
    (two_rates, "come at other frames than those of"),
    (strides_that_differ, "its inputs have different strides over time"),
])  # fmt: skip
def test_what_is_refused(change, reason):
    maker = SequenceMaker()
    change(maker)
    refused(maker, reason)


def test_inputs_without_time():
    for shape in ((1, 1, 5), (1,), (2, 8, 3)):
        maker = Maker()
        maker.op("HARD_SWISH", [maker.input(shape)], shape, (0.05, 5))
        refused(maker, "has no time axis behind the batch")
    maker = SequenceMaker()
    other = maker.input((1, 12, 3), (0.05, 3))
    maker.outputs = [maker.now, maker.op("HARD_SWISH", [other], (1, 12, 3), (0.05, 5))]
    refused(maker, "different numbers of frames")


def test_a_budget_and_frames():
    with pytest.raises(ValueError, match="give no RAM budget"):
        generate.generate(sequence_nets.causal(), streaming=True, ram_budget=500)


def test_operands_with_time_on_different_axes():
    graph = SequenceMaker().file().main
    graph = dataclasses.replace(graph, tensors=[
        Tensor(0, "a", "INT8", (1, 8, 3), None, None),
        Tensor(1, "b", "INT8", (1, 8, 3, 1), None, None),
        Tensor(2, "c", "INT8", (1, 8, 8, 3), None, None),
    ])  # fmt: skip
    for name in ("ADD", "CONCATENATION", "AVERAGE_POOL_2D"):
        problems = []
        op = Op(0, name, (0, 1), (2,), "NONE", {"axis": 3})
        axes = {0: 1, 1: 2 if name == "CONCATENATION" else 1}
        assert row_parts.of_operator(Reader(graph, op, axes, problems)) is None
        reason = "its input has the shape" if "POOL" in name else "time on different axes"
        assert reason in problems[0].what


def test_readers_of_what_is_no_sequence():
    reader = Reader(SequenceMaker().file().main, Op(0, "MEAN", (0, 0), (1,), "NONE"), {0: None}, [])
    with pytest.raises(ValueError, match="is no sequence"):
        reader.axis  # noqa: B018
    with pytest.raises(ValueError, match="input 1 is not a constant"):
        reader.constant(1)
