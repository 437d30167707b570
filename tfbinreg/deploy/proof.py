"""The proof that a file is what was frozen: everything in it, read back from its bytes.

It shares nothing with the writer except the table of operators. No TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfbinreg.deploy import tflite_operators
from tfbinreg.deploy.frozen import FrozenGraph, FrozenKernel, FrozenOp, slope_codes
from tflite_tools.schema import codes as file_codes
from tflite_tools.schema import contents as models

_LISTED = 10  # differences in one error
_EDGE_OPS = ("QUANTIZE", "DEQUANTIZE")


def prove(data: bytes, graph: FrozenGraph) -> None:
    """Compare a file with the frozen graph it was written from.

    For every operation it compares the operator, its options and parameters, where its inputs come
    from, the shape, scale and zero point of its output, and the codes, scales and biases of its
    kernel. It also compares the file's inputs, outputs and their names. LiteRT has to accept the
    file.

    Raises:
        RuntimeError: listing what differs, or with LiteRT's own words.
    """
    try:
        found = list(_Proof(models.load(data), graph).differences())
    except (ValueError, KeyError) as error:
        found = [str(error)]
    if found:
        more = f"\n  and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        lines = "".join(f"\n  - {line}" for line in found[:_LISTED])
        raise RuntimeError(f"The file is not what was frozen:{lines}{more}")
    try:
        Interpreter(model_content=data).allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise RuntimeError(f"LiteRT does not take the file: {error}") from error


class _Proof:
    """The steps of `prove`; each yields a line per difference."""

    def __init__(self, contents: models.Model, graph: FrozenGraph) -> None:
        self.contents, self.graph, self.file = contents, graph, contents.main
        self.manifest = contents.require_manifest()
        self.tensors = {tensor.name: tensor for tensor in self.file.tensors}
        self.makers = {output: op for op in self.file.ops for output in op.outputs}
        self.entries = {entry.name: entry for entry in self.manifest.kernels}

    def differences(self) -> Iterator[str]:
        if len(self.tensors) != len(self.file.tensors):
            yield "tensors share a name"
        for op in self.graph.ops:
            for line in self._operation(op):
                yield f"{op.name}: {line}"
        yield from self._count()
        yield from self._edges()

    def _operation(self, op: FrozenOp) -> Iterator[str]:
        tensor = self.tensors.get(op.name)
        if tensor is None:
            yield "the file has no such tensor"
            return
        yield from self._tensor(op, tensor)
        if op.kind == "InputLayer":
            return
        made = self.makers.get(tensor.index)
        if made is not None and tflite_operators.has_relu_behind(op):
            yield from self._same("ReLU", made.name, tflite_operators.relu(op.relu_limit).name)
            yield from self._tensor(op, self.file.tensors[made.inputs[0]])
            made = self.makers.get(made.inputs[0])
        if made is None:
            yield "nothing computes it"
            return
        yield from self._operator(op, made)

    def _tensor(self, op: FrozenOp, tensor: models.Tensor) -> Iterator[str]:
        yield from self._same("shape", tensor.shape, (1, *op.shape))
        yield from self._on_grid(op, tensor)

    def _on_grid(self, op: FrozenOp, tensor: models.Tensor) -> Iterator[str]:
        grid, found = op.grid, tensor.quantization
        yield from self._same("type", tensor.dtype, "INT8")
        if grid is None or found is None:
            yield "it has no grid"
            return
        yield from self._same("scale", found.scale, np.atleast_1d(grid.scale))
        yield from self._same("zero point", found.zero_point, np.array([grid.zero_point]))

    def _operator(self, op: FrozenOp, made: models.Op) -> Iterator[str]:
        shapes: Any = [self.graph.ops[index].shape for index in op.inputs]
        row = tflite_operators.operator(op, shapes)
        yield from self._same("operator", made.name, row.name)
        for name, value in row.fields.items():
            yield from self._same(name, made.options.get(name), value)
        taken = [self.file.tensors[index] for index in made.inputs]
        for before in tflite_operators.places_of(op)[::-1]:
            yield from self._before(op, before, taken)
        computed = [tensor.name for tensor in taken if tensor.data is None]
        yield from self._same("inputs", computed, [self.graph.ops[i].name for i in op.inputs])
        constants = [tensor for tensor in taken if tensor.data is not None]
        for wanted, tensor in zip(row.parameters.values(), constants, strict=False):
            yield from self._same(tensor.name, tensor.data, wanted)
            if wanted.dtype == np.int8:
                yield from self._on_grid(op, tensor)
        others = constants[len(row.parameters) :]
        if op.kernel is not None:
            yield from self._kernel(op, op.kernel, others)
        elif op.kind == "PReLU":
            yield from self._slopes(op, others)
        elif op.kind == "ValueFunction":
            yield from self._table(op, others)
        elif others:
            yield f"it takes {len(others)} constants too many"

    def _kernel(
        self, op: FrozenOp, kernel: FrozenKernel, constants: Sequence[models.Tensor]
    ) -> Iterator[str]:
        if len(constants) != 2 or op.name not in self.entries:
            yield "it has no weights and bias in the file and the manifest"
            return
        entry, (weights, bias) = self.entries[op.name], constants
        yield from self._same("tensor of the weights", weights.name, entry.tensor)
        described = (entry.kind, entry.bits, entry.prescale, entry.shape)
        frozen = (op.kind, kernel.bits, kernel.prescale, kernel.codes.shape)
        yield from self._same("manifest", described, frozen)
        yield from self._same("levels", entry.levels, kernel.levels)
        yield from self._same("bits per channel", entry.channel_bits, kernel.channel_bits)
        yield from self._same("levels per channel", entry.channel_levels, kernel.channel_levels)
        yield from self._same("codes", file_codes.layer_codes(self.contents, entry), kernel.codes)
        scale = kernel.scale / np.float32(kernel.prescale)
        yield from self._scales("weights", weights, scale)
        yield from self._same("bias", bias.data, kernel.bias)
        yield from self._scales("bias", bias, self.graph.source_grid(op).scale * scale)

    def _slopes(self, op: FrozenOp, constants: Sequence[models.Tensor]) -> Iterator[str]:
        coded = slope_codes(op)
        if len(constants) != 1:
            yield "it has no slopes"
            return
        yield from self._same("slopes", constants[0].data, coded.codes)
        yield from self._scales("slopes", constants[0], coded.scale)

    def _before(
        self, op: FrozenOp, row: tflite_operators.Operator, taken: list[models.Tensor]
    ) -> Iterator[str]:
        """An operator that makes places in a table; `taken`, what is taken with them, then has
        what it takes instead."""
        places = [tensor for tensor in taken if tensor.dtype == "INT32" and tensor.data is None]
        made = self.makers.get(places[0].index) if len(places) == 1 else None
        if made is None:
            yield f"it has no {row.name}"
            return
        yield from self._same("operator", made.name, row.name)
        for name, value in row.fields.items():
            yield from self._same(name, made.options.get(name), value)
        yield from self._same("shape", places[0].shape, (1, *op.shape))
        inputs = [self.file.tensors[index] for index in made.inputs]
        constants = [tensor.data for tensor in inputs if tensor.data is not None]
        wanted = list(row.parameters.values())
        if len(constants) != len(wanted) or not all(map(np.array_equal, constants, wanted)):
            yield f"the constants of {row.name} differ"
        taken.remove(places[0])
        taken += [tensor for tensor in inputs if tensor.data is None]

    def _table(self, op: FrozenOp, constants: Sequence[models.Tensor]) -> Iterator[str]:
        if len(constants) != 1:
            yield "it has no table"
            return
        yield from self._same("table", constants[0].data, op.attributes["table"])

    def _scales(self, what: str, tensor: models.Tensor, scale: np.ndarray) -> Iterator[str]:
        found = tensor.quantization
        if found is None:
            yield f"the {what} have no scale"
            return
        yield from self._same(f"scale of the {what}", found.scale, np.atleast_1d(scale))
        yield from self._same(f"zero point of the {what}", set(found.zero_point.tolist()), {0})

    def _count(self) -> Iterator[str]:
        """Check that the file contains nothing that was not frozen."""
        inner = [op for op in self.file.ops if op.name not in _EDGE_OPS]
        frozen = sum(
            (op.kind != "InputLayer")
            + tflite_operators.has_relu_behind(op)
            + len(tflite_operators.places_of(op))
            for op in self.graph.ops
        )
        if len(inner) != frozen:
            yield f"the file has {len(inner)} operators, the graph {frozen}"

    def _edges(self) -> Iterator[str]:
        inputs, outputs = self.contents.named_inputs, self.contents.named_outputs
        wanted = [self.graph.ops[index].name for index in self.graph.inputs]
        yield from self._same("names of the inputs", tuple(inputs), self.graph.input_names)
        yield from self._same("inputs", [self._inner(i) for i in self.file.inputs], wanted)
        yield from self._same("inputs' indices", tuple(inputs.values()), self.file.inputs)
        wanted = [self.graph.ops[index].name for index in self.graph.outputs]
        yield from self._same("names of the outputs", tuple(outputs), self.graph.output_names)
        yield from self._same("outputs", [self._inner(i) for i in self.file.outputs], wanted)
        yield from self._same("outputs' indices", tuple(outputs.values()), self.file.outputs)

    def _inner(self, edge: int) -> str:
        """Name of the int8 tensor that a float32 input or output stands for."""
        for op in self.file.ops:
            if op.name == "QUANTIZE" and op.inputs == (edge,):
                return self.file.tensors[op.outputs[0]].name
            if op.name == "DEQUANTIZE" and op.outputs == (edge,):
                return self.file.tensors[op.inputs[0]].name
        return self.file.tensors[edge].name

    @staticmethod
    def _same(what: str, found: Any, wanted: Any) -> Iterator[str]:
        """A line unless two values are equal; arrays to the last bit, shape and type too."""
        if isinstance(wanted, np.ndarray):
            equal = found is not None and np.array_equal(np.asarray(found), wanted)
            if not equal:
                yield f"{what} differs"
        elif found != wanted:
            yield f"{what} is {found!r}, not {wanted!r}"
