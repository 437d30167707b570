"""What the weights of each layer take in every format that can be made of a canonical file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from tflite_tools.c import generate, source_folder
from tflite_tools.checks import pairing
from tflite_tools.formats import build, int4, lut, slim
from tflite_tools.reports.describe import Description, describe, stored_bytes
from tflite_tools.schema.contents import Graph, Model, Op

LIMITS = ("as float32", "as int8", "as codes")
_WEIGHTS = 1
_FLOAT_BYTES = 4
_C_NAME = "model"


class Limits(NamedTuple):
    """Bytes of weights as float32, as int8 and as codes of their bits; `LIMITS` in words."""

    float32: int
    int8: int
    codes: int


@dataclasses.dataclass(frozen=True)
class LayerLimits:
    """What the weights of a layer take."""

    name: str
    limits: Limits


@dataclasses.dataclass(frozen=True)
class FormatSize:
    """One format.

    Attributes:
        name: of the format.
        total: bytes of the file; of C packed weights and constants, for its text is not flash.
        layers: bytes of the weights of each layer, with their tables.
        refused: why there is no such file, "" if there is one.
        left_out: channels that the network does not need and the format does not have.
    """

    name: str
    total: int
    layers: tuple[int, ...]
    refused: str = ""
    left_out: int = 0


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Layers, and what they take in every format; the order of the layers is the same."""

    layers: tuple[LayerLimits, ...]
    formats: tuple[FormatSize, ...]


def limits(description: Description) -> tuple[LayerLimits, ...]:
    """The limits of every weight tensor, as `describe` lists them."""
    found = []
    for weight in description.weights:
        count = int(np.prod(weight.shape))
        code_bits = weight.code_bits
        packed = _FLOAT_BYTES * count if code_bits is None else (code_bits + 7) // 8
        found.append(LayerLimits(weight.layer, Limits(_FLOAT_BYTES * count, count, packed)))
    return tuple(found)


def measure(canonical: Model) -> Sizes:
    """Make every format of a canonical file, without comparing outputs, and measure it."""
    description, graph = describe(canonical), canonical.main
    by_tensor = dict(zip((w.tensor for w in description.weights), limits(description), strict=True))
    names = [graph.tensors[op.inputs[_WEIGHTS]].name for op in _kernels(graph)]
    layers = tuple(by_tensor[name] for name in names if name in by_tensor)
    formats = _formats(canonical)
    told = "the layers of the file have no names of their own"
    if len(layers) != len(names):
        formats = tuple(FormatSize(entry.name, 0, (), told) for entry in formats)
    return Sizes(layers, formats)


def _formats(canonical: Model) -> tuple[FormatSize, ...]:
    makers: Mapping[str, Callable[[], FormatSize]] = {
        "int8": lambda: _file("int8", canonical),
        "int4": lambda: _file("int4", int4.encode(canonical)[0]),
        "lut": lambda: _file("lut", lut.encode(canonical)[0]),
        "c": lambda: _sources(canonical),
        "slim": lambda: _file("slim", slim.encode(canonical)[0]),
    }
    try:
        build.check_canonical(canonical)
    except ValueError as error:
        return tuple(_refused(name, error) for name in makers)
    return tuple(_made(name, make) for name, make in makers.items())


def _made(name: str, make: Callable[[], FormatSize]) -> FormatSize:
    try:
        return make()
    except (ValueError, RuntimeError) as error:  # RuntimeError: a missing tool
        return _refused(name, error)


def _refused(name: str, error: Exception) -> FormatSize:
    return FormatSize(name, 0, (), " ".join(str(error).split()))


def _file(name: str, model: Model) -> FormatSize:
    graph = model.main
    counted: set[int] = set()
    stored = tuple(_stored_bytes(graph, op, counted) for op in _kernels(graph))
    return FormatSize(name, len(model.data), stored)


def _kernels(graph: Graph) -> list[Op]:
    """The operators with weights, in the order they run."""
    kernels = [op for op in graph.ops if op.name in pairing.KERNEL_OPS]
    return [op for op in kernels if len(op.inputs) > _WEIGHTS and op.inputs[_WEIGHTS] >= 0]


def _stored_bytes(graph: Graph, op: Op, counted: set[int]) -> int:
    """What an operator's weights take in a .tflite file; tables that are shared count once."""
    weights = graph.tensors[op.inputs[_WEIGHTS]]
    for entry in graph.encoded:
        if entry.output == weights.index:
            places = {entry.indices, entry.tables} - counted
            counted |= places
            parts = (graph.tensors[index].data for index in places)
            return sum(part.nbytes for part in parts if part is not None)
    return stored_bytes(weights)


def _sources(canonical: Model) -> FormatSize:
    made = generate.generate(canonical, name=_C_NAME)
    packed = source_folder.weights(made.files[f"{_C_NAME}.c"])
    layers = tuple(weights.size for _, weights in sorted(packed.items()))
    total = made.packed_weight_bytes + made.constant_bytes
    return FormatSize("c", total, layers, left_out=sum(made.left_out.values()))
