"""Operators row by row: what each sees of a sequence to make one row of its output.

A sequence has its time axis behind axes of one value only, so that a row of it is a block of
memory. An operator that takes all rows together (a mean over time, a flattened window, the last
row) ends the rows: what it makes belongs to a window that ends at the newest row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from tflite_tools.arithmetic import geometry
from tflite_tools.c import pads
from tflite_tools.c.lowering import Problem, Window
from tflite_tools.schema import value_tables
from tflite_tools.schema.contents import Graph, Op, Tensor

ONE = Window(1, 1)  # the row itself
_CAUSAL = "take padding='causal', or 'valid'"
_WEIGHTS = 1  # place of a convolution's weights among its inputs


@dataclasses.dataclass(frozen=True)
class Part:
    """An operator as it makes one row.

    Attributes:
        op: the operator, for one row.
        windows: which rows of each input tensor it sees; constants have none.
        dilation: how far these rows are apart.
        axis: the time axis of its output; None if the output belongs to a window.
        early: by how many rows an output comes before that of the whole sequence.
        bounds: constant inputs that are other numbers for one row, by place.
    """

    op: Op
    windows: Mapping[int, Window]
    dilation: int = 1
    axis: int | None = None
    early: int = 0
    bounds: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Reader:
    """An operator whose part is looked for.

    Attributes:
        graph: its tensors.
        op: the operator.
        axes: the time axis of each tensor that has been computed so far, None for that of a window.
        problems: takes what cannot be done.
    """

    graph: Graph
    op: Op
    axes: Mapping[int, int | None]
    problems: list[Problem]

    def refuse(self, reason: str) -> None:
        """Note why the operator cannot run row by row."""
        self.problems.append(Problem(self.op.name, self.output.name, reason))

    @property
    def output(self) -> Tensor:
        """What it makes."""
        return self.graph.tensors[self.op.outputs[0]]

    @property
    def source(self) -> Tensor:
        """Its first input."""
        return self.graph.tensors[self.op.inputs[0]]

    @property
    def axis(self) -> int:
        """The time axis of its first input, which is a sequence."""
        found = self.axes[self.op.inputs[0]]
        if found is None:
            raise ValueError(f"{self.source.name!r} is no sequence.")
        return found

    @property
    def rows(self) -> int:
        """How many rows its first input has."""
        return self.source.shape[self.axis]

    def computed(self) -> list[Tensor]:
        """Its inputs that are no constants, each once."""
        found = dict.fromkeys(index for index in self.op.inputs if index in self.axes)
        return [self.graph.tensors[index] for index in found]

    def constant(self, place: int) -> np.ndarray:
        """The values of a constant input."""
        data = self.graph.tensors[self.op.inputs[place]].data
        if data is None:
            raise ValueError(f"input {place} is not a constant")
        return data

    def one_row(self, axis: int | None = None) -> Part:
        """The part of an operator that sees its own row; the time axis stays unless given."""
        return Part(self.op, {self.source.index: ONE}, axis=self.axis if axis is None else axis)

    def all_rows(self) -> Part:
        """The part of an operator that takes all rows of one input."""
        return Part(self.op, {self.source.index: Window(self.rows, 1, reach=self.rows)})


def of_operator(reader: Reader) -> Part | None:
    """The part of an operator; None, with a reason among the problems, if there is none."""
    tensors, name = reader.computed(), reader.op.name
    if all(reader.axes[tensor.index] is None for tensor in tensors):
        return Part(reader.op, dict.fromkeys((tensor.index for tensor in tensors), ONE))
    if any(reader.axes[tensor.index] is None for tensor in tensors):
        reader.refuse(
            "it joins each frame with what comes of the whole sequence (as squeeze-and-excitation "
            "and attention do): leave that branch out, or let it see a few past frames"
        )
        return None
    if name not in _PARTS:
        reader.refuse("it is not computed frame by frame: take convolutions, pooling or sums")
        return None
    try:
        return _PARTS[name](reader)
    except ValueError as error:
        reader.refuse(str(error))
        return None


def _pointwise(reader: Reader) -> Part:
    return reader.one_row()


def _softmax(reader: Reader) -> Part:
    if reader.axis == len(reader.source.shape) - 1:
        raise ValueError("it is over time: take it over the features of a frame")
    return reader.one_row()


def _joined(reader: Reader) -> Part:
    """An operator on two operands, either of which may be repeated or a constant."""
    rank, behind = len(reader.output.shape), set()
    for index in reader.op.inputs:
        tensor, axis = reader.graph.tensors[index], reader.axes.get(index)
        if axis is not None:
            behind.add(len(tensor.shape) - axis)
    if len(behind) != 1:
        raise ValueError("its operands have time on different axes")
    axis = rank - behind.pop()
    for index in reader.op.inputs:
        shape = (1,) * rank + reader.graph.tensors[index].shape
        if index not in reader.axes and shape[len(shape) - rank + axis] != 1:
            raise ValueError("it takes another constant for each frame: take one for all of them")
    return Part(reader.op, {own.index: ONE for own in reader.computed()}, axis=axis)


def _concatenation(reader: Reader) -> Part:
    rank = len(reader.output.shape)
    axis = int(reader.op.options.get("axis", 0)) % rank
    if len(reader.computed()) < len(set(reader.op.inputs)):
        raise ValueError("it joins frames with a constant")
    if len({reader.axes[own.index] for own in reader.computed()}) != 1:
        raise ValueError("its inputs have time on different axes")
    if axis <= reader.axis:
        raise ValueError("it joins sequences one behind the other: join the features of each frame")
    return Part(reader.op, {own.index: ONE for own in reader.computed()}, axis=reader.axis)


def _window(reader: Reader) -> Part:
    """A convolution or a pooling."""
    source, axis, op = reader.source, reader.axis, reader.op
    if len(source.shape) != 4 or axis not in (1, 2):
        raise ValueError(f"its input has the shape {source.shape}")
    letter, pooled = "HW"[axis - 1], op.name.endswith("POOL_2D")
    if pooled:
        taps = int(op.options["filterHeight" if axis == 1 else "filterWidth"])
    else:
        taps = reader.graph.tensors[op.inputs[_WEIGHTS]].shape[axis]
    stride = int(op.options[f"stride{letter}"])
    dilation = int(op.options.get(f"dilation{letter}Factor", 1))
    margins = list(op.options.get(pads.MARGINS, (0, 0, 0, 0)))
    before, behind = margins[2 * axis - 2 : 2 * axis]
    if pooled and (before or behind):
        raise ValueError("it pads time: leave out the border in front of this pooling")
    rows = reader.rows + before + behind
    count, front = geometry.window(rows, taps, stride, dilation, op.options.get("padding", 0))
    reach = (taps - 1) * dilation + 1
    window = Window(reader.rows, count, stride, front + before, reach)
    future = (count - 1) * stride - window.pad + reach - reader.rows
    if future > 0:
        instead = "take padding='valid'" if pooled else _CAUSAL
        frames = "1 frame" if future == 1 else f"{future} frames"
        reader.refuse(f"it sees {frames} of the future, by its padding: {instead}")
    margins[2 * axis - 2 : 2 * axis] = 0, 0
    # With a stride as long as the window, no padding is left along the time axis.
    options = {**op.options, f"stride{letter}": taps, f"dilation{letter}Factor": 1}
    options[pads.MARGINS] = tuple(margins)
    if pooled:
        del options[f"dilation{letter}Factor"]
    part = dataclasses.replace(op, options=options)
    return Part(part, {source.index: window}, dilation, axis)


def _fully_connected(reader: Reader) -> Part:
    depth = reader.graph.tensors[reader.op.inputs[_WEIGHTS]].shape[1]
    size = int(np.prod(reader.source.shape[reader.axis + 1 :]))
    axis = _followed(reader.source.shape, reader.axis, reader.output.shape)
    return reader.all_rows() if size % depth or axis is None else reader.one_row(axis)


def _reduction(reader: Reader) -> Part:
    rank, axis = len(reader.source.shape), reader.axis
    axes = {int(own) % rank for own in reader.constant(1).reshape(-1)}
    if axis in axes:
        return reader.all_rows()
    kept = len(reader.output.shape) == rank
    return reader.one_row(axis if kept else axis - sum(own < axis for own in axes))


def _reshape(reader: Reader) -> Part:
    axis = _followed(reader.source.shape, reader.axis, reader.output.shape)
    return reader.all_rows() if axis is None else reader.one_row(axis)


def _followed(shape: tuple[int, ...], axis: int, made: tuple[int, ...]) -> int | None:
    """The time axis behind a change of shape; None if the rows do not stay apart."""
    if shape[axis] == 1:
        return axis if len(made) > 2 and set(made[: axis + 1]) == {1} else None
    first = next(place for place, size in enumerate(made) if size > 1)
    return first if made[first] == shape[axis] else None


def _transpose(reader: Reader) -> Part:
    order = reader.constant(1).reshape(-1).tolist()
    axis = order.index(reader.axis)
    if any(reader.source.shape[own] > 1 for own in order[:axis]):
        raise ValueError("it moves time behind the features: leave time in front of them")
    return reader.one_row(axis)


def _pad(reader: Reader) -> Part:
    if reader.constant(1)[reader.axis].any():
        raise ValueError(
            f"it pads time, and not for one convolution that follows: {_CAUSAL} in that one"
        )
    return reader.one_row()


def _strided_slice(reader: Reader) -> Part:
    begins, ends, steps = (reader.constant(place).reshape(-1).copy() for place in (1, 2, 3))
    axis, rows = reader.axis, reader.rows
    no_begin, no_end, single = (
        bool(int(reader.op.options.get(mask, 0)) >> axis & 1)
        for mask in ("beginMask", "endMask", "shrinkAxisMask")
    )
    begin = int(begins[axis])
    taken = range(begin % rows, begin % rows + 1)
    if not single:
        cut = slice(None if no_begin else begin, None if no_end else int(ends[axis]), steps[axis])
        taken = range(*cut.indices(rows))
    begins[axis], ends[axis], steps[axis] = 0, 1, 1
    return _sliced(reader, taken, {1: begins, 2: ends, 3: steps}, gone=single)


def _slice(reader: Reader) -> Part:
    begins, sizes = (reader.constant(place).reshape(-1).copy() for place in (1, 2))
    axis, rows = reader.axis, reader.rows
    begin, size = int(begins[axis]), int(sizes[axis])
    taken = range(begin, rows if size == -1 else begin + size)
    begins[axis], sizes[axis] = 0, 1
    return _sliced(reader, taken, {1: begins, 2: sizes}, gone=False)


def _sliced(reader: Reader, taken: range, bounds: Mapping[int, np.ndarray], *, gone: bool) -> Part:
    """A slice that leaves some rows; `gone` says that it drops the time axis."""
    rows, source = reader.rows, reader.source
    if taken.step < 1:
        raise ValueError("it turns time around: leave the frames in their order")
    window = Window(rows, len(taken), taken.step, -taken.start)
    if len(taken) > 1 or (rows == 1 and not gone):
        axis = reader.axis - _dropped(reader, reader.axis)
        return Part(reader.op, {source.index: window}, axis=axis, bounds=bounds)
    if taken.start != rows - 1:
        raise ValueError(f"it takes frame {taken.start} of {rows}: take the last one")
    window = Window(rows, 1, 1, 1 - rows)
    return Part(reader.op, {source.index: window}, early=rows - 1, bounds=bounds)


def _dropped(reader: Reader, axis: int) -> int:
    """How many axes before `axis` a slice drops."""
    mask = int(reader.op.options.get("shrinkAxisMask", 0))
    return sum(mask >> own & 1 for own in range(axis))


_PARTS: dict[str, Callable[[Reader], Part]] = {
    **dict.fromkeys(
        (
            *(value_tables.LOOKUP, "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "QUANTIZE", "RELU"),
            *("RELU6", "TANH"),
        ),
        _pointwise,
    ),
    **dict.fromkeys(("ADD", "MAXIMUM", "MINIMUM", "MUL", "PRELU", "SUB"), _joined),
    **dict.fromkeys(("AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D"), _window),
    **dict.fromkeys(("EXPAND_DIMS", "RESHAPE", "SQUEEZE"), _reshape),
    **dict.fromkeys(("MEAN", "REDUCE_MAX"), _reduction),
    **dict.fromkeys(("PAD", "PADV2"), _pad),
    "CONCATENATION": _concatenation,
    "FULLY_CONNECTED": _fully_connected,
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE": _transpose,
}
