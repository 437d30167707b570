"""Frozen graph -> canonical int8 .tflite bytes. No TensorFlow, and no converter.

Every operator, number and name in the file is written from the frozen graph.
"""

from __future__ import annotations

import numpy as np

from tfbinreg.deploy import tflite_operators
from tfbinreg.deploy.frozen import FrozenGraph, FrozenKernel, FrozenOp, slope_codes
from tfbinreg.deploy.quantization_card import quantization_card
from tfbinreg.deploy.tflite_operators import Operator, grid_of
from tflite_tools.schema import card, manifest
from tflite_tools.schema import codes as file_codes
from tflite_tools.schema.writer import Writer

EDGE_TYPES = ("int8", "float32")


def write(graph: FrozenGraph, *, input_type: str = "int8", output_type: str = "int8") -> bytes:
    """The canonical int8 file of a frozen graph; batch size 1.

    Args:
        graph: every operation has a grid and a known shape.
        input_type: "int8", or "float32" for a file that quantizes its inputs itself.
        output_type: "int8", or "float32" for a file that dequantizes its outputs itself.

    Raises:
        ValueError: if a type is unknown, or naming every operation without a known shape.
    """
    for what, given in (("input_type", input_type), ("output_type", output_type)):
        if given not in EDGE_TYPES:
            raise ValueError(f"{what} must be one of {', '.join(EDGE_TYPES)}, got {given!r}.")
    unknown = [op.name for op in graph.ops if None in op.shape]
    if unknown:
        raise ValueError(f"The sizes of these layers are not known: {', '.join(unknown)}.")
    return _FileWriter(graph).run(input_type, output_type)


class _FileWriter:
    """The steps of `write`."""

    def __init__(self, graph: FrozenGraph) -> None:
        self.graph, self.writer = graph, Writer("tfbinreg")
        # First of all, so that they have their layers' names.
        self.tensors = [self._activation(op, op.name) for op in graph.ops]
        self.entries: dict[bool, list[manifest.LayerEntry]] = {True: [], False: []}

    def run(self, input_type: str, output_type: str) -> bytes:
        inputs = self._edges(self.graph.inputs, self.graph.input_names, input_type, "QUANTIZE", 1)
        for op, output in zip(self.graph.ops, self.tensors, strict=True):
            if op.kind != "InputLayer":
                self._operator(op, output)
        outputs = self._edges(
            self.graph.outputs, self.graph.output_names, output_type, "DEQUANTIZE", 2
        )
        self.writer.edges(inputs, outputs)
        texts = {
            manifest.METADATA_NAME: self._manifest().to_json(),
            card.METADATA_NAME: card.to_json(quantization_card(self.graph)),
        }
        return self.writer.finish({name: text.encode() for name, text in texts.items()})

    def _activation(self, op: FrozenOp, name: str) -> int:
        index = self.writer.tensor(name, (1, *op.shape), "INT8")  # type: ignore[arg-type]
        grid = grid_of(op)
        self.writer.quantize(index, grid.scale, grid.zero_point)
        return index

    def _edges(
        self, ops: tuple[int, ...], names: tuple[str, ...], dtype: str, between: str, version: int
    ) -> dict[str, int]:
        """The file's inputs or outputs by name; of float32 an operator leads to or from int8."""
        edges = {}
        for index, name in zip(ops, names, strict=True):
            inner = edges[name] = self.tensors[index]
            if dtype != "int8":
                shape = (1, *self.graph.ops[index].shape)
                outer = self.writer.tensor(f"{name}_{dtype}", shape, dtype.upper())  # type: ignore[arg-type]
                edges[name] = outer
                ends = (outer, inner) if between == "QUANTIZE" else (inner, outer)
                self.writer.operator(between, version, ends[:1], ends[1])
        return edges

    def _operator(self, op: FrozenOp, output: int) -> None:
        shapes = [self.graph.ops[index].shape for index in op.inputs]
        row = tflite_operators.operator(op, shapes)  # type: ignore[arg-type]
        parameters = [self._parameter(op, name, values) for name, values in row.parameters.items()]
        inputs = [self.tensors[index] for index in op.inputs] + parameters
        for before in tflite_operators.places_of(op):
            inputs = [self._places(op, before, inputs)]
        if op.kind == "ValueFunction":
            inputs.insert(0, self._table(op))
        if op.kernel is not None:
            inputs = [inputs[0], *self._kernel(op, op.kernel)]
        if op.kind == "PReLU":
            inputs.append(self._slopes(op))
        if op.kind == "Conv2DTranspose":
            # It takes its output's shape first, and its activations behind the weights.
            activation, weights, bias = inputs
            inputs = [*parameters, weights, activation, bias]
        if tflite_operators.has_relu_behind(op):
            linear = self._activation(op, f"{op.name}/linear")
            self._add(row, inputs, linear)
            row, inputs = tflite_operators.relu(op.relu_limit), [linear]
        self._add(row, inputs, output)

    def _parameter(self, op: FrozenOp, name: str, values: np.ndarray) -> int:
        index = self.writer.constant(f"{op.name}/{name}", values)
        if values.dtype == np.int8:
            self.writer.quantize(index, grid_of(op).scale, grid_of(op).zero_point)
        return index

    def _add(self, row: Operator, inputs: list[int], output: int) -> None:
        self.writer.operator(row.name, row.version, inputs, output, row.options, row.fields)

    def _kernel(self, op: FrozenOp, kernel: FrozenKernel) -> tuple[int, int]:
        """The weights and the bias of an operation."""
        scaled = (kernel.codes.astype(np.int16) * kernel.prescale).astype(np.int8)
        stored = file_codes.to_tflite_layout(op.kind, scaled)
        weights = self.writer.constant(f"{op.name}/kernel", stored)
        bias = self.writer.constant(f"{op.name}/bias", kernel.bias)
        scale = kernel.stored_scale
        self.writer.quantize(weights, scale, 0, 3 if op.kind in file_codes.DEPTHWISE else 0)
        self.writer.quantize(bias, self.graph.source_grid(op).scale * scale, 0)
        entry = manifest.LayerEntry(
            name=op.name,
            kind=op.kind,
            tensor=self.writer.name(weights),
            bits=kernel.bits,
            prescale=kernel.prescale,
            shape=kernel.codes.shape,
            sha256=manifest.codes_digest(kernel.codes),
            levels=kernel.levels,
            channel_bits=kernel.channel_bits,
            channel_levels=kernel.channel_levels,
        )
        self.entries[kernel.trained].append(entry)
        return weights, bias

    def _places(self, op: FrozenOp, row: Operator, inputs: list[int]) -> int:
        """The int32 tensor that an operator before the one of an operation makes."""
        name = f"{op.name}/{row.name.lower()}"
        constants = [self.writer.constant(f"{name}/{n}", v) for n, v in row.parameters.items()]
        made = self.writer.tensor(name, (1, *op.shape), "INT32")  # type: ignore[arg-type]
        self._add(row, inputs + constants, made)
        return made

    def _table(self, op: FrozenOp) -> int:
        index, grid = self.writer.constant(f"{op.name}/table", op.attributes["table"]), grid_of(op)
        self.writer.quantize(index, grid.scale, grid.zero_point)
        return index

    def _slopes(self, op: FrozenOp) -> int:
        coded = slope_codes(op)
        index = self.writer.constant(f"{op.name}/alpha", coded.codes)
        self.writer.quantize(index, coded.scale, 0)
        return index

    def _manifest(self) -> manifest.Manifest:
        pairs = zip(self.graph.ops, self.tensors, strict=True)
        activations = [
            manifest.ActivationEntry(
                self.writer.name(tensor), grid.bits, grid.qmin, grid.qmax, grid.zero_point
            )
            for op, tensor in sorted(pairs, key=lambda pair: pair[0].kind == "InputLayer")
            for grid in (grid_of(op),)
        ]
        return manifest.Manifest(
            versions=dict(self.graph.versions),
            recipe=dict(self.graph.recipe),
            layers=tuple(self.entries[True]),
            activations=tuple(activations),
            fixed=tuple(self.entries[False]),
            target=self.graph.target,
            finalized=self.graph.finalized,
        )
