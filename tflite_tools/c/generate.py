"""Canonical int8 file -> C99 sources that need no runtime, no heap and no floating point.

Weights are packed at their trained bits and unpacked two filters at a time; activations live in one
static arena. The result is bit for bit that of TensorFlow Lite for Microcontrollers.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping, Sequence

from tflite_tools.c import (
    lower_elementwise,
    lower_kernels,
    lower_moves,
    lowering,
    memory_map,
    pads,
    source_text,
    stream_text,
    strips,
)
from tflite_tools.c import streaming as frame_by_frame
from tflite_tools.c.lowering import Constants, Context, Problem, Step
from tflite_tools.c.source_text import Text
from tflite_tools.c.stream_text import StreamText
from tflite_tools.c.streaming import Stream
from tflite_tools.pruning import smaller
from tflite_tools.pruning.smaller import Smaller
from tflite_tools.schema import value_tables
from tflite_tools.schema.contents import Graph, Model, Op, Tensor
from tflite_tools.schema.manifest import LayerEntry

RUNTIME_HEADER = "tfbinreg_runtime.h"
HEADERS_DIR = pathlib.Path(__file__).parent / "headers"
# Each part uses only those before it.
_RUNTIME_PARTS = (
    "basics",
    "packed",
    "filters",
    "patches",
    "helium_scales",
    "helium_rows",
    "blocks",
    "helium",
    "joined",
    "joined_tile",
    "pairs",
    "byte_rows",
    "dense",
    "helium_dense",
    "joined_dense",
    "depthwise",
    "helium_sixteen",
    "joined_depthwise",
    "helium_depthwise",
    "convolutions",
    "elements",
    "softmax",
    "moves",
)
# What only some models need -> the part that it follows.
_BY_SHIFTS = {"shifts": "filters", "shifted_sums": "elements"}
_CODED = {"codebooks": "moves"}
_GROUPED = {"groups": "convolutions"}
_IN_STRIPS = {"strips": "elements"}
_BILINEAR = {"bilinear": "moves"}
_STREAMED = {"streams": "moves"}
LOWERINGS = {**lower_kernels.LOWERINGS, **lower_moves.LOWERINGS, **lower_elementwise.LOWERINGS}
# Names that C, its library or the generated files use.
_RESERVED = frozenset(keyword for line in (
    ("auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else"),
    ("enum", "extern", "float", "for", "goto", "if", "inline", "int", "long", "register"),
    ("restrict", "return", "short", "signed", "sizeof", "static", "struct", "switch", "typedef"),
    ("union", "unsigned", "void", "volatile", "while", "asm", "main", "arena"),
    # The words of C++, whose compilers read the header.
    ("bool", "catch", "class", "delete", "explicit", "false", "friend", "mutable", "namespace"),
    ("new", "operator", "private", "protected", "public", "template", "this", "throw", "true"),
    ("try", "typeid", "typename", "using", "virtual", "export", "tfbinreg_runtime"),
) for keyword in line)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sources:
    """Generated C.

    Attributes:
        files: name of a file -> its text.
        arena_bytes: memory for activations and unpacked filters; the caller's inputs and outputs
            come on top.
        packed_weight_bytes: the packed codes of all layers.
        constant_bytes: biases, multipliers, shifts and tables.
        left_out: name of a weight tensor -> output channels that the network does not need and the
            C does not have.
        stream: of C that takes a sequence frame by frame, what it computes and keeps; else None.
    """

    files: Mapping[str, str]
    arena_bytes: int
    packed_weight_bytes: int
    constant_bytes: int
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    stream: Stream | None = None


def generate(
    model: Model,
    *,
    name: str = "model",
    whole: bool = False,
    ram_budget: int | None = None,
    streaming: bool = False,
) -> Sources:
    """Write a canonical int8 file as C.

    Args:
        model: a file made by `tflite_tools convert` with int8 inputs.
        name: prefix of the files and of everything they declare.
        whole: keep the channels that the network does not need (`pruning.removal`).
        ram_budget: bytes of the arena, which operators run in strips to keep; None for none.
        streaming: take a sequence frame by frame, along axis 1 of the inputs, and keep what is
            still needed in a state.

    Returns:
        `name`.c, `name`.h, the runtime header and an example main.c that reads samples from
        standard input.

    Raises:
        ValueError: if the file has no manifest, or operators that cannot be written exactly; every
            reason is listed. If activations cannot be made to fit into `ram_budget`. If `streaming`
            cannot be had, or not with a `ram_budget`.
    """
    check_name(name)
    if streaming and ram_budget is not None:
        raise ValueError(
            "A network that takes frames one by one has no strips: give no RAM budget."
        )
    entries = {entry.tensor: entry for entry in model.require_manifest().layers}
    if len(model.graphs) != 1:
        raise ValueError("The file has several subgraphs.")
    lowered = _lowered(model.main, entries)
    needed = Smaller(model, {}) if whole else smaller.of_model(model)
    text: Text
    if streaming:
        text, constants = _streamed(name, needed.model.main, entries)
    else:
        if needed.model is not model:
            lowered = _lowered(needed.model.main, entries)
        text, constants = _placed(name, *lowered, ram_budget), lowered[2]
    return Sources(
        files={
            f"{name}.c": text.source(),
            f"{name}.h": text.header(),
            RUNTIME_HEADER: runtime_header(
                coded=constants.coded,
                shifts=constants.by_shifts,
                groups=constants.grouped,
                in_strips=len(text.steps) < len(lowered[1]) and not streaming,
                bilinear=any(op.name == "RESIZE_BILINEAR" for op in text.graph.ops),
                streamed=streaming,
            ),
            "main.c": text.example(),
        },
        arena_bytes=text.placed.arena.size,
        packed_weight_bytes=constants.weight_bytes,
        constant_bytes=constants.other_bytes,
        left_out=needed.by_weights(),
        stream=text.stream if isinstance(text, StreamText) else None,
    )


def _placed(
    name: str,
    graph: Graph,
    steps: Sequence[Step],
    constants: Constants,
    ram_budget: int | None,
) -> Text:
    """A lowered network with places for its tensors."""
    if ram_budget is not None:
        steps = strips.within(graph, steps, ram_budget)
    placed = memory_map.place(graph, steps)
    return Text(name, graph, steps, placed, constants.lines, _defines(constants), ram_budget)


def _streamed(
    name: str, graph: Graph, entries: Mapping[str, LayerEntry]
) -> tuple[StreamText, Constants]:
    """A network that takes a sequence frame by frame, likewise."""
    stream = frame_by_frame.of_graph(pads.joined(value_tables.joined(graph)))
    steps, constants, problems = _steps(stream.graph, entries, streamed=True)
    lowering.raise_problems(problems)
    by_number = {op.index: step for op, step in zip(stream.graph.ops, steps, strict=True)}
    found = list(stream_text.steps_of(stream, by_number))
    steps = [step for step, _ in found]
    placed = memory_map.place(stream.graph, steps, stream_text.places(stream))
    text = StreamText(
        name,
        stream.graph,
        steps,
        placed,
        constants.lines,
        _defines(constants),
        stream=stream,
        clocks=[clock for _, clock in found],
    )
    return text, constants


def left_out(model: Model) -> dict[str, int]:
    """`Sources.left_out` of a file's C; nothing if there is no C of it."""
    try:
        _lowered(model.main, {entry.tensor: entry for entry in model.require_manifest().layers})
    except ValueError:
        return {}
    return smaller.of_model(model).by_weights()


def _lowered(
    graph: Graph, entries: Mapping[str, LayerEntry]
) -> tuple[Graph, list[Step], Constants]:
    """A graph, its operators as steps, and their constants.

    Raises:
        ValueError: with every reason why some operators have none.
    """
    graph = pads.joined(value_tables.joined(graph))
    steps, constants, problems = _steps(graph, entries)
    problems = [*_edge_problems(graph), *problems, *_order_problems(graph, steps)]
    lowering.raise_problems(problems)
    return graph, steps, constants


def _steps(
    graph: Graph, entries: Mapping[str, LayerEntry], *, streamed: bool = False
) -> tuple[list[Step], Constants, list[Problem]]:
    """Operators as steps, their constants, and why some have none."""
    constants, steps, problems = Constants(streamed=streamed), [], []
    for op in graph.ops:
        step, found = _lower(graph, op, Context(graph, op, entries, constants))
        steps.append(step)
        problems += found
    return steps, constants, problems


def _defines(constants: Constants) -> list[str]:
    """What the runtime header is told of the model."""
    told = ["#define TFB_SHORT_CONSTANTS 1"] if constants.short else []
    if constants.by_shifts:
        told.append(f"#define TFB_SHIFT_STEPS {1 if constants.by_multipliers else 2}")
    return told


def runtime_header(
    *,
    coded: bool = False,
    shifts: bool = False,
    groups: bool = False,
    in_strips: bool = False,
    bilinear: bool = False,
    streamed: bool = False,
) -> str:
    """The kernels, as one header; `coded` adds those for the weights that `coding` makes, `shifts`
    those for scales that are powers of two, `groups` those for convolutions in groups, `in_strips`
    what runs operators in strips, `bilinear` interpolation, `streamed` what keeps rows."""
    names = list(_RUNTIME_PARTS)
    parts_of = (
        (coded, _CODED),
        (shifts, _BY_SHIFTS),
        (groups, _GROUPED),
        (in_strips, _IN_STRIPS),
        (bilinear, _BILINEAR),
        (streamed, _STREAMED),
    )
    for is_needed, added in parts_of:
        for name, before in added.items() if is_needed else ():
            names.insert(names.index(before) + 1, name)
    parts = ((HEADERS_DIR / f"{name}.h").read_text() for name in names)
    guard = RUNTIME_HEADER.upper().replace(".", "_") + "_"
    return "\n".join((f"#ifndef {guard}\n#define {guard}\n", *parts, "#endif\n"))


def check_name(name: str) -> None:
    """Check that a name can be that of a C function and of a file.

    Raises:
        ValueError: if not.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", name, re.ASCII) or name in _RESERVED:
        raise ValueError(f"{name!r} is no C identifier that can be used as a name.")
    if name.lower().startswith("tfb_"):
        raise ValueError(f"{name!r} begins like the names of the runtime.")


def _lower(graph: Graph, op: Op, context: Context) -> tuple[Step, list[Problem]]:
    """The step of an operator, or the reasons why there is none."""
    made = [graph.tensors[index] for index in op.outputs if index >= 0]
    named = made[0].name if made else ""
    step = Step("", (), made[0].index if made else -1)
    if op.name not in LOWERINGS or len(op.outputs) != 1 or not made:
        return step, [Problem(op.name, named, "this operator is not supported")]
    try:
        lowering.check_grid(made[0])
        step = LOWERINGS[op.name](context)
        step = dataclasses.replace(step, title=f"{op.name}: {source_text.plain(named)}")
    except ValueError as error:
        context.reasons.append(str(error))
    return step, [Problem(op.name, named, reason) for reason in context.reasons]


def _edge_problems(graph: Graph) -> list[Problem]:
    """What is wrong with the model's inputs and outputs."""
    problems = []
    for kind, indices in (("input", graph.inputs), ("output", graph.outputs)):
        if not indices:
            problems.append(Problem("the model", "", f"it has no {kind}"))
        for index in indices:
            tensor = graph.tensors[index]
            problems += _edge_reasons(kind, tensor)
    return problems


def _edge_reasons(kind: str, tensor: Tensor) -> list[Problem]:
    reasons = []
    try:
        lowering.check_grid(tensor)
    except ValueError as error:
        reasons.append(str(error))
    if tensor.data is not None:
        reasons.append("it is a constant")
    if math.prod(tensor.shape) == 0:
        reasons.append("it is empty")
    return [Problem(f"model {kind}", tensor.name, reason) for reason in reasons]


def _order_problems(graph: Graph, steps: Sequence[Step]) -> list[Problem]:
    """Tensors that are read before they are computed, or computed twice."""
    known, problems = set(graph.inputs), []
    for op, step in zip(graph.ops, steps, strict=True):
        for index in step.reads:
            if index not in known:
                name = graph.tensors[index].name
                problems.append(Problem(op.name, name, "nothing computes it before it is read"))
        if step.writes in known:
            problems.append(Problem(op.name, graph.tensors[step.writes].name, "it is made twice"))
        known.add(step.writes)
    for index in set(graph.outputs) - known:
        problems.append(Problem("model output", graph.tensors[index].name, "nothing computes it"))
    return problems
