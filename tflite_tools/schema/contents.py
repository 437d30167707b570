"""A .tflite file as immutable values: graphs, tensors, operators and the manifest.

A file is parsed once, by `load`, at the entry point; from there its `Model` is passed on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tflite_tools.schema import card, flatbuffer, lut_decode, manifest
from tflite_tools.schema.manifest import Manifest


@dataclasses.dataclass(frozen=True, eq=False)
class Quantization:
    """Affine quantization: real = (stored - zero_point) * scale.

    Attributes:
        scale: float32, (1,) per tensor or (channels,) along `axis`.
        zero_point: int64, of one value or as many as `scale`.
        axis: channel axis of a per-channel scale.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor. `data` holds a constant's values; None for a computed one.

    Values of the packed types INT4 and INT2 are unpacked to int8; those that TFLM decodes from
    tables count as constants and are decoded (`Graph.encoded`).
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    quantization: Quantization | None
    data: np.ndarray | None

    @property
    def label(self) -> str:
        """The name, or the index of a tensor without one."""
        return self.name or f"tensor {self.index}"


@dataclasses.dataclass(frozen=True)
class Op:
    """One operator; inputs and outputs are tensor indices, -1 for an omitted optional input.

    `options` are the fields of the operator's own table in the schema, by the schema's names.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    activation: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A constant stored as packed indices into tables: tensor indices, and bits of an index."""

    output: int
    indices: int
    tables: int
    bits: int


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """One subgraph, its operators in the order they run; `encoded` lists what TFLM decodes."""

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    encoded: tuple[Encoded, ...] = ()

    def producer(self, tensor: int) -> Op | None:
        """The operator that computes a tensor, None for inputs and constants."""
        return next((op for op in self.ops if tensor in op.outputs), None)

    def taken(self, op: Op) -> list[Tensor]:
        """The tensors an operator reads, without omitted ones."""
        return [self.tensors[index] for index in op.inputs if index >= 0]

    def made(self, op: Op) -> list[Tensor]:
        """The tensors an operator writes."""
        return [self.tensors[index] for index in op.outputs if index >= 0]


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A file.

    Attributes:
        data: its bytes.
        graphs: its subgraphs; the first one is the entry.
        manifest: the exporter's description of it; None if another tool wrote the file.
        card: its quantization card (`schema.card`), None if it has none.
        named_inputs: tensor indices of the inputs by the names the first signature gives them.
        named_outputs: likewise.
    """

    data: bytes
    graphs: tuple[Graph, ...]
    manifest: Manifest | None
    card: Mapping[str, Any] | None = None
    named_inputs: Mapping[str, int] = dataclasses.field(default_factory=dict)
    named_outputs: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def main(self) -> Graph:
        """The subgraph that runs first."""
        return self.graphs[0]

    def require_manifest(self) -> Manifest:
        """The manifest.

        Raises:
            ValueError: if the file has none.
        """
        if self.manifest is None:
            raise ValueError(manifest.MISSING)
        return self.manifest

    def require_card(self) -> Mapping[str, Any]:
        """The quantization card.

        Raises:
            ValueError: if the file has none.
        """
        if self.card is None:
            raise ValueError(card.MISSING)
        return self.card


def load(data: bytes) -> Model:
    """Read a .tflite file.

    Args:
        data: the file's bytes.

    Raises:
        ValueError: if the file is damaged, or its manifest or card cannot be read.
    """
    container = flatbuffer.read(data)
    graphs = tuple(_graph(container, graph) for graph in container.subgraphs)
    inputs, outputs = flatbuffer.signature(container)
    return Model(data, graphs, manifest.find(container), card.find(container), inputs, outputs)


def written(container: Any) -> Model:
    """A flatbuffer object as the file that it is written to.

    Raises:
        ValueError: as `load`.
    """
    return load(flatbuffer.write(container))


def _graph(container: Any, graph: Any) -> Graph:
    tensors = [_tensor(container, index, tensor) for index, tensor in enumerate(graph.tensors)]
    encoded = []
    for entry in lut_decode.decoded(container, graph):
        data = lut_decode.values(container, graph, entry)
        tensors[entry.output] = dataclasses.replace(tensors[entry.output], data=data)
        bits = lut_decode.width(container, graph, entry)
        encoded.append(Encoded(entry.output, entry.encoded, entry.ancillary, bits))
    return Graph(
        tensors=tuple(tensors),
        ops=tuple(_op(container, index, op) for index, op in enumerate(graph.operators or [])),
        inputs=tuple(flatbuffer.indices(graph.inputs)),
        outputs=tuple(flatbuffer.indices(graph.outputs)),
        encoded=tuple(encoded),
    )


def _op(container: Any, index: int, op: Any) -> Op:
    return Op(
        index=index,
        name=flatbuffer.op_name(container, op),
        inputs=tuple(flatbuffer.indices(op.inputs)),
        outputs=tuple(flatbuffer.indices(op.outputs)),
        activation=flatbuffer.activation_name(op),
        options=dict(vars(op.builtinOptions)) if op.builtinOptions is not None else {},
    )


def _tensor(container: Any, index: int, tensor: Any) -> Tensor:
    name, dtype = flatbuffer.text(tensor.name), flatbuffer.type_name(tensor)
    data = flatbuffer.constant(container, tensor)
    shape = tuple(flatbuffer.indices(tensor.shape))
    return Tensor(index, name, dtype, shape, _quantization(name, tensor.quantization), data)


def _quantization(name: str, parameters: Any) -> Quantization | None:
    if parameters is None or parameters.scale is None or len(parameters.scale) == 0:
        return None
    scale = np.asarray(parameters.scale, np.float32)
    missing = parameters.zeroPoint is None or len(parameters.zeroPoint) == 0
    zero_point = np.zeros(1, np.int64) if missing else np.asarray(parameters.zeroPoint, np.int64)
    if zero_point.size not in (1, scale.size):
        raise ValueError(
            f"Tensor {name!r} has {scale.size} scales but {zero_point.size} zero points."
        )
    return Quantization(scale, zero_point, int(parameters.quantizedDimension))
