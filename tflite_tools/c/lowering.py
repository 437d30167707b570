"""What lowering an operator needs: its tensors, checks and constants, and the step it becomes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tflite_tools.arithmetic import fixed_point
from tflite_tools.arithmetic.lookup_tables import Grid
from tflite_tools.schema.contents import Graph, Op, Tensor
from tflite_tools.schema.manifest import LayerEntry

MAX_DIMENSION = 2**16 - 1  # the kernels keep dimensions in 16 bits
MAX_ELEMENTS = 2**28  # and count elements in 32
_C_TYPES = {"int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "uint16": "uint16_t"}


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why an operator cannot be written as C. The counterpart of the planner's problems."""

    op: str
    tensor: str
    what: str

    def __str__(self) -> str:
        return f"{self.op} {self.tensor!r}: {self.what}"


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise one ValueError that lists all `problems`; do nothing if there are none."""
    lines = [f"  - {problem}" for problem in problems]
    if lines:
        raise ValueError("Cannot write the file as C:\n" + "\n".join(lines))


@dataclasses.dataclass(frozen=True)
class Growth:
    """Scratch memory that a step makes use of if there is room.

    Attributes:
        unit: bytes of one more unit.
        least: units that the step's scratch memory holds anyway.
        most: units that it can use.
    """

    unit: int
    least: int
    most: int


@dataclasses.dataclass(frozen=True)
class Window:
    """Which rows of its input an operator sees: `reach` of them from row * stride - pad on.

    Attributes:
        rows_in, rows_out: of the input and of the output.
        stride, pad, reach: in rows; a pointwise operator sees its own row alone.
    """

    rows_in: int
    rows_out: int
    stride: int = 1
    pad: int = 0
    reach: int = 1

    def first(self, row: int) -> int:
        """The first row of the input that output row `row` sees."""
        return max(row * self.stride - self.pad, 0)

    def end(self, end: int) -> int:
        """The end of the rows that the output rows before `end` see."""
        return min((end - 1) * self.stride - self.pad + self.reach, self.rows_in)


@dataclasses.dataclass(frozen=True)
class Rows:
    """How a step makes the rows of its output from `begin` on and before `end`.

    Attributes:
        window: what they see.
        call: as that of the step, with the variables `begin` and `end`, and places for what they
            see: `{left}`, how many rows the input has, and for how many they are, `{rows}`.
        scratch: bytes that are needed, by the number of rows.
    """

    window: Window
    call: str
    scratch: Callable[[int], int]


TAKE_ROWS = "TFB_TAKE_ROWS(part, {left}, begin, end);"  # of a record with a window


def of_part(ctype: str, record: str, changes: str, call: str) -> str:
    """A call, for `Rows`, with a changed copy of the record that it is given."""
    return f"{ctype} part = {record.removeprefix('&')};\n{changes}\n{call.replace(record, '&part')}"


@dataclasses.dataclass(frozen=True)
class Step:
    """One operator as C, or some of them in strips.

    Attributes:
        call: statements, with a place `{t5}` for the address of tensor 5, `{scratch}` and, with a
            growth, `{units}`.
        reads: the tensors that are read.
        writes: the tensor that is written.
        scratch: bytes that are needed while the step runs.
        growth: more of them that it can use.
        same_memory: whether the result is its first input under another name; `call` is empty.
        in_place: whether the result may overwrite the first input.
        rows: how it makes some rows at a time; None if it cannot.
        title: the operator's name and its output's, for people.
    """

    call: str
    reads: tuple[int, ...]
    writes: int
    scratch: int = 0
    growth: Growth | None = None
    same_memory: bool = False
    in_place: bool = False
    rows: Rows | None = None
    title: str = ""


class Constants:
    """The constant arrays and parameter records of a model; equal arrays are stored once."""

    def __init__(self, *, streamed: bool = False) -> None:
        self.lines: list[str] = []
        self.streamed = streamed  # whether operators make one row, with what `streams` has
        self.coded = False  # whether a layer has weights that `coding` makes
        self.grouped = False  # whether a convolution has groups
        self.short = False  # whether a layer has factors and biases in three bytes
        self.by_shifts = False  # whether something is rescaled by shifts alone
        self.by_multipliers = False  # whether a layer with weights is not
        self.weight_bytes = 0
        self.other_bytes = 0
        self._names: dict[tuple[str, bytes], str] = {}

    def array(self, values: np.ndarray, *, weights: bool = False) -> str:
        """The name of an array of an integer type that holds `values`."""
        key = (values.dtype.name, values.tobytes())
        if key not in self._names:
            name = f"{'weights' if weights else 'data'}_{len(self._names)}"
            self._names[key] = name
            ctype = _C_TYPES.get(values.dtype.name, "int32_t")
            place = "TFB_ALIGNED " if weights else ""
            self.lines.append(
                f"{place}static const {ctype} {name}[{values.size}] = {{{_listed(values)}}};"
            )
            self.weight_bytes += values.nbytes if weights else 0
            self.other_bytes += 0 if weights else values.nbytes
        return self._names[key]

    def record(self, ctype: str, op: Op, fields: Mapping[str, object], prefix: str = "op") -> str:
        """The address of a record of parameters for `op`."""
        name = f"{prefix}_{op.index}"
        text = ", ".join(f".{field} = {_value(value)}" for field, value in fields.items())
        self.lines.append(f"static const {ctype} {name} = {{{text}}};")
        return f"&{name}"


def _listed(values: np.ndarray) -> str:
    numbers = [_value(int(value)) for value in values.reshape(-1)]
    lines = [", ".join(numbers[start : start + 20]) for start in range(0, len(numbers), 20)]
    return lines[0] if len(lines) == 1 else "\n  " + ",\n  ".join(lines)


def _value(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "{" + ", ".join(str(item) for item in value) + "}"
    # C has no literal for the smallest int32.
    return "(-2147483647 - 1)" if value == -(2**31) else str(value)


class Context:
    """One operator while it is lowered. Checks collect reasons; none may be left at the end."""

    def __init__(
        self, graph: Graph, op: Op, entries: Mapping[str, LayerEntry], constants: Constants
    ) -> None:
        self.op = op
        self.entries = entries
        self.constants = constants
        self.reasons: list[str] = []
        self._graph = graph

    def need(self, holds: bool, reason: str) -> bool:
        """Note `reason` unless a condition holds; returns whether it does."""
        if not holds:
            self.reasons.append(reason)
        return holds

    @property
    def output(self) -> Tensor:
        """The operator's only output."""
        return self._graph.tensors[self.op.outputs[0]]

    def tensor(self, place: int) -> Tensor | None:
        """Input number `place`, None if it is omitted."""
        index = self.op.inputs[place] if place < len(self.op.inputs) else -1
        return None if index < 0 else self._graph.tensors[index]

    def operand(self, place: int) -> Tensor:
        """Input number `place`, which must be there."""
        tensor = self.tensor(place)
        if tensor is None:
            raise ValueError(f"input {place} is missing")
        return tensor

    def constant(self, place: int, types: tuple[str, ...] = ("INT32", "INT64")) -> np.ndarray:
        """The values of a constant input."""
        tensor = self.operand(place)
        if tensor.data is None or tensor.dtype not in types:
            raise ValueError(f"{tensor.name!r} is not a constant of type {' or '.join(types)}")
        return tensor.data

    def option(self, name: str, low: int = 0, high: int = MAX_DIMENSION) -> int:
        """A whole number among the operator's options, within [low, high]."""
        value = self.op.options.get(name)
        if isinstance(value, (bool, int, np.integer)) and low <= int(value) <= high:
            return int(value)
        raise ValueError(f"option {name} is {value!r}, not from {low} to {high}")

    def grid(self, tensor: Tensor) -> Grid:
        """Scale and zero point of an activation tensor."""
        return check_grid(tensor)

    def address(self, tensor: Tensor) -> str:
        """Where a tensor's values are: a constant array, or a place in the step's text."""
        return f"{{t{tensor.index}}}" if tensor.data is None else self.constants.array(tensor.data)

    def step(
        self,
        call: str,
        *tensors: Tensor,
        scratch: int = 0,
        growth: Growth | None = None,
        in_place: bool = False,
        rows: Rows | None = None,
    ) -> Step:
        """The step that reads `tensors` and writes the output."""
        reads = tuple(tensor.index for tensor in tensors if tensor.data is None)
        if len(reads) < len(tensors):
            rows = None  # the address of a constant is not moved on to a strip's rows
        return Step(call, reads, self.output.index, scratch, growth, False, in_place, rows)

    def pointwise(self, call: str) -> Rows | None:
        """Rows of an operator on single values, whose `call` has a place `{count}` for their
        number; None unless the output is an image."""
        shape = self.output.shape
        if len(shape) != 4 or shape[0] != 1:
            return None
        window = Window(shape[1], shape[1])
        return Rows(
            window, call.replace("{count}", f"{{rows}} * {shape[2] * shape[3]}"), lambda _: 0
        )

    def same_grids(self, *tensors: Tensor) -> None:
        """Check that tensors share a grid with the output; the kernel does not rescale."""
        wanted = self.grid(self.output)
        for tensor in tensors:
            text = f"the grid of {tensor.name!r} is not the output's, and TFLM does not rescale"
            self.need(self.grid(tensor) == wanted, text)

    def same_shape(self, shape: Sequence[int]) -> None:
        """Check that the file gives the output the shape that follows from the inputs."""
        given = self.output.shape
        self.need(tuple(shape) == given, f"the output has shape {given}, not {tuple(shape)}")

    def limits(self) -> tuple[int, int]:
        """Smallest and largest stored output that the fused activation leaves."""
        return fixed_point.activation_limits(self.op.activation, *self.grid(self.output))


def check_grid(tensor: Tensor) -> Grid:
    """Scale and zero point of an int8 activation tensor.

    Raises:
        ValueError: if it is of another type, or has no single usable grid.
    """
    if tensor.dtype != "INT8":
        hint = "; convert with input_type='int8'" if tensor.dtype == "FLOAT32" else ""
        raise ValueError(f"{tensor.name!r} is {tensor.dtype}, not INT8{hint}")
    parameters = tensor.quantization
    if parameters is None or parameters.scale.size != 1 or parameters.zero_point.size != 1:
        raise ValueError(f"{tensor.name!r} has no single scale and zero point")
    scale, zero_point = np.float32(parameters.scale[0]), int(parameters.zero_point[0])
    if not (np.isfinite(scale) and scale > np.finfo(np.float32).tiny):
        raise ValueError(f"{tensor.name!r} has the scale {scale}")
    if not -128 <= zero_point <= 127:
        raise ValueError(f"{tensor.name!r} has the zero point {zero_point}")
    if any(not 1 <= size <= MAX_DIMENSION for size in tensor.shape):
        raise ValueError(f"{tensor.name!r} has the shape {tensor.shape}")
    if math.prod(tensor.shape) > MAX_ELEMENTS:
        raise ValueError(f"{tensor.name!r} has {math.prod(tensor.shape)} elements")
    return scale, zero_point
