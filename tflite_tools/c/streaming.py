"""A network that takes a sequence frame by frame: what it computes at each, and what it keeps.

Every operator makes one row of its output as soon as the newest row that it sees is there, so no
row is computed twice. Rows that are still needed are kept in a state: those of a window one behind
the other, moved up by one with each new row, and those of a dilated window in a ring, from which
the few that it sees are copied.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

from tflite_tools.c import row_parts
from tflite_tools.c.arena import aligned
from tflite_tools.c.lowering import Problem, Window, check_grid
from tflite_tools.c.row_parts import Part, Reader
from tflite_tools.schema.contents import Graph, Op, Tensor


@dataclasses.dataclass(frozen=True)
class Clock:
    """When rows are made: row r at frame r * every + start, for r of at least -early.

    Row 0 is the first one of the whole sequence's result; those before it are of shorter sequences.
    """

    every: int = 1
    start: int = 0
    early: int = 0

    @property
    def begin(self) -> int:
        """The frame, counted from 0, of the first row."""
        return self.start - self.every * self.early


class View(NamedTuple):
    """Kept rows that an operator sees: `taps` of them, `step` apart, the last one `lag` rows before
    the newest. `tensor` is how it is called in the graph."""

    tensor: int
    taps: int
    step: int
    lag: int


@dataclasses.dataclass(frozen=True)
class Kept:
    """The rows of a tensor that are kept.

    Attributes:
        tensor: whose rows.
        memory: the tensor that stands for all of them.
        count: how many.
        size: bytes of one.
        ring: whether a new one takes the place of the oldest; else all others move up.
        offset: of their memory in the state.
        fill: what stands for the rows before the first.
        views: what operators see of them.
    """

    tensor: int
    memory: int
    count: int
    size: int
    ring: bool
    offset: int
    fill: int
    views: tuple[View, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """A network for one frame.

    Attributes:
        graph: its operators, each for one row; sequences have one row, and inputs that are kept
            rows are tensors of their own.
        clocks: when each computed tensor's rows are made.
        kept: what is kept, by the tensor.
        output: when there is a row of the outputs.
        frames: of the whole sequence.
    """

    graph: Graph
    clocks: Mapping[int, Clock]
    kept: Mapping[int, Kept]
    output: Clock
    frames: int

    @property
    def state_bytes(self) -> int:
        """Of the kept rows."""
        return sum(aligned(kept.count * kept.size) for kept in self.kept.values())


class _Input(NamedTuple):
    """What a part reads: an input of an operator, and the rows that it sees of it."""

    op: Op
    window: Window
    dilation: int
    lag: int


def of_graph(graph: Graph) -> Stream:
    """The network for one frame.

    Args:
        graph: one whose operators can be written as C (`generate`), with time on axis 1 of inputs.

    Raises:
        ValueError: with every reason why it cannot take its inputs frame by frame.
    """
    problems = _input_problems(graph)
    if problems:
        _raise(problems)
    frames = graph.tensors[graph.inputs[0]].shape[1]
    axes: dict[int, int | None] = dict.fromkeys(graph.inputs, 1)
    clocks = dict.fromkeys(graph.inputs, Clock())
    parts: list[Part] = []
    unknown: set[int] = set()
    for op in graph.ops:
        if unknown & set(op.inputs):
            unknown |= set(op.outputs)
            continue
        reader = Reader(graph, op, axes, problems)
        part = row_parts.of_operator(reader)
        clock = None if part is None else _clock(reader, part, clocks)
        if part is None or clock is None:
            unknown |= set(op.outputs)
            continue
        parts.append(part)
        axes[op.outputs[0]], clocks[op.outputs[0]] = part.axis, clock
    if not unknown & set(graph.outputs):
        problems += _output_problems(graph, clocks)
    if problems:
        _raise(problems)
    return _Builder(graph, axes, clocks, parts).stream(frames)


def _raise(problems: list[Problem]) -> None:
    lines = "".join(f"\n  - {problem}" for problem in problems)
    raise ValueError(f"The network cannot take its input frame by frame:{lines}")


def _input_problems(graph: Graph) -> list[Problem]:
    shapes = [graph.tensors[index].shape for index in graph.inputs]
    lengths = {shape[1] if len(shape) > 1 else 0 for shape in shapes}
    found = [
        Problem("model input", graph.tensors[index].name, f"shape {shape} has no time axis behind "
                "the batch: frames are the rows of axis 1")
        for index, shape in zip(graph.inputs, shapes, strict=True)
        if len(shape) < 2 or shape[0] != 1 or shape[1] < 2
    ]  # fmt: skip
    if not found and len(lengths) > 1:
        names = ", ".join(repr(graph.tensors[index].name) for index in graph.inputs)
        found.append(Problem("the model", names, "its inputs have different numbers of frames"))
    return found


def _output_problems(graph: Graph, clocks: Mapping[int, Clock]) -> list[Problem]:
    first = clocks[graph.outputs[0]]
    return [
        Problem("model output", graph.tensors[index].name, "its rows come at other frames than "
                f"those of {graph.tensors[graph.outputs[0]].name!r}: make it a model of its own")
        for index in graph.outputs
        if clocks[index] != first
    ]  # fmt: skip


def _clock(reader: Reader, part: Part, clocks: Mapping[int, Clock]) -> Clock | None:
    """When the rows of an operator are made; None, with a reason, if its inputs do not meet."""
    known = [(clocks[index], window) for index, window in part.windows.items()]
    if len({own.every * window.stride for own, window in known}) > 1:
        reader.refuse("its inputs have different strides over time")
        return None
    return Clock(
        known[0][0].every * known[0][1].stride,
        max(_ready(own, window) for own, window in known),
        part.early + min(own.early for own, _ in known),
    )


def _ready(clock: Clock, window: Window) -> int:
    """The frame at which a window's first rows are there."""
    return clock.start + clock.every * (window.reach - 1 - window.pad)


class _Builder:
    """Makes the graph for one frame."""

    def __init__(
        self,
        graph: Graph,
        axes: Mapping[int, int | None],
        clocks: Mapping[int, Clock],
        parts: list[Part],
    ) -> None:
        self.axes, self.clocks, self.parts, self.source = axes, clocks, parts, graph
        self.tensors = [self._row(tensor) for tensor in graph.tensors]

    def stream(self, frames: int) -> Stream:
        """All of it."""
        ops, offset, kept = [part.op for part in self.parts], 0, {}
        places = {op.index: number for number, op in enumerate(ops)}
        for part in self.parts:
            for place, values in part.bounds.items():
                op = ops[places[part.op.index]]
                constant = self.source.tensors[op.inputs[place]]
                new = self._add(dataclasses.replace(constant, data=values.reshape(constant.shape)))
                inputs = (*op.inputs[:place], new, *op.inputs[place + 1 :])
                ops[places[op.index]] = dataclasses.replace(op, inputs=inputs)
        for index in self.clocks:
            wanted = [own for part in self.parts for own in self._wanted(part, index)]
            if not wanted:
                continue
            rows = self._kept(index, wanted, offset)
            kept[index] = rows
            offset += aligned(rows.count * rows.size)
            for view, own in zip(rows.views, wanted, strict=True):
                op = ops[places[own.op.index]]
                inputs = tuple(view.tensor if i == index else i for i in op.inputs)
                ops[places[own.op.index]] = dataclasses.replace(op, inputs=inputs)
        graph = dataclasses.replace(self.source, tensors=tuple(self.tensors), ops=tuple(ops))
        return Stream(graph, self.clocks, kept, self.clocks[graph.outputs[0]], frames)

    def _wanted(self, part: Part, index: int) -> list[_Input]:
        """What a part sees of a tensor beyond the row that is made at the same frame."""
        window = part.windows.get(index)
        if window is None:
            return []
        own, source = self.clocks[part.op.outputs[0]], self.clocks[index]
        late = own.start - _ready(source, window)
        if late == 0 and window.reach == 1:
            return []
        return [_Input(part.op, window, part.dilation, late // source.every)]

    def _kept(self, index: int, wanted: list[_Input], offset: int) -> Kept:
        tensor = self.tensors[index]
        count = max(own.lag + own.window.reach for own in wanted)
        ring = any(own.dilation > 1 and own.window.reach > 1 for own in wanted)
        views = []
        for own in wanted:
            taps = (own.window.reach - 1) // own.dilation + 1
            new = self._add(dataclasses.replace(tensor, shape=self._shape(index, taps)))
            views.append(View(new, taps, own.dilation, own.lag))
        memory = self._add(dataclasses.replace(tensor, shape=(count, *tensor.shape)))
        size, fill = math.prod(tensor.shape), check_grid(tensor)[1]
        return Kept(index, memory, count, size, ring, offset, fill, tuple(views))

    def _add(self, tensor: Tensor) -> int:
        index = len(self.tensors)
        self.tensors.append(dataclasses.replace(tensor, index=index))
        return index

    def _row(self, tensor: Tensor) -> Tensor:
        return dataclasses.replace(tensor, shape=self._shape(tensor.index, 1))

    def _shape(self, index: int, rows: int) -> tuple[int, ...]:
        """The shape of some rows of a sequence; that of a window's tensor stays."""
        shape, axis = self.source.tensors[index].shape, self.axes.get(index)
        return shape if axis is None else (*shape[:axis], rows, *shape[axis + 1 :])
