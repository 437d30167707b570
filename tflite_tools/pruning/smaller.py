"""A file without the channels that it can do without (`removal`), operator by operator the same."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tflite_tools.pruning import kernels, removal
from tflite_tools.pruning.kernels import Kernel
from tflite_tools.pruning.relations import channels
from tflite_tools.pruning.removal import Removal
from tflite_tools.schema import contents, file_layout, flatbuffer
from tflite_tools.schema.contents import Model, Op

_LAST = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Smaller:
    """A network without channels.

    Attributes:
        model: the file; the one it was made from if nothing can go. Operators and tensors have
            their numbers and names, and the manifest stays that of the whole network.
        left_out: output tensor of a kernel -> its channels that are left out, ascending.
    """

    model: Model
    left_out: Mapping[int, tuple[int, ...]]

    @property
    def count(self) -> int:
        """How many output channels of kernels are left out."""
        return sum(map(len, self.left_out.values()))

    def by_weights(self) -> dict[str, int]:
        """Name of a weight tensor -> output channels that are left out."""
        graph = self.model.main
        makers = ((graph.producer(tensor), gone) for tensor, gone in self.left_out.items())
        return {graph.tensors[op.inputs[1]].name: len(gone) for op, gone in makers if op}


def of_model(model: Model) -> Smaller:
    """The same network, bit for bit in TFLM, with as few channels as it needs.

    Args:
        model: a canonical int8 file; one with several subgraphs stays as it is.
    """
    if len(model.graphs) != 1 or model.main.encoded:
        return Smaller(model, {})
    found = removal.of_graph(model.main)
    if not found.kept:
        return Smaller(model, {})
    left_out = {
        op.outputs[0]: tuple(np.flatnonzero(~found.kept[op.outputs[0]]).tolist())
        for op in model.main.ops
        if op.name in file_layout.KERNEL_OPS and op.outputs[0] in found.kept
    }
    return Smaller(_Writer(model, found).run(), left_out)


class _Writer:
    """The steps of `of_model` on the flatbuffer's objects."""

    def __init__(self, model: Model, found: Removal) -> None:
        self.source, self.removal = model.main, found
        self.container = flatbuffer.read(model.data)
        (self.graph,) = self.container.subgraphs

    def run(self) -> Model:
        """The file."""
        for index, kept in self.removal.kept.items():
            self._shorten(self.graph.tensors[index], int(kept.sum()))
        for op in self.source.ops:
            if op.name in file_layout.KERNEL_OPS:
                kernel = kernels.of_operator(self.source, op)
                if kernel is not None:
                    self._kernel(kernel)
            elif op.outputs and op.outputs[0] in self.removal.kept:
                self._constants(op)
                self._shape(op)
        flatbuffer.drop_unused_buffers(self.container)
        return contents.written(self.container)

    def _shorten(self, tensor: Any, count: int) -> None:
        """The last axis of an activation."""
        tensor.shape = [*flatbuffer.indices(tensor.shape)[:-1], count]
        if tensor.shapeSignature is not None:
            tensor.shapeSignature = [*flatbuffer.indices(tensor.shapeSignature)[:-1], count]

    def _kept(self, tensor: int) -> np.ndarray:
        """A mask of the channels of a tensor."""
        whole: np.ndarray = np.ones(channels(self.source.tensors[tensor]), bool)
        return self.removal.kept.get(tensor, whole)

    def _kernel(self, kernel: Kernel) -> None:
        rows, columns = self._kept(kernel.output.index), self._kept(kernel.source.index)
        if rows.all() and columns.all():
            return
        op, axis = kernel.op, kernels.channel_axis(kernel.op)
        bias = kernel.bias
        stored = self.source.tensors[op.inputs[1]].data
        assert stored is not None
        if kernel.mixes:
            added = kernel.added(self.removal.values[kernel.source.index])
            bias = bias + added[:, ~columns].sum(axis=1)
            stored = stored[..., columns]
        self._replace(op, 1, np.compress(rows, stored, axis), rows, axis)
        place = file_layout.bias_place(op)
        if place is not None:
            self._replace(op, place, bias[rows].astype(np.int32), rows, 0)
        if op.name == "TRANSPOSE_CONV":
            self._last_value(op, 0, int(rows.sum()))

    def _constants(self, op: Op) -> None:
        """The constant operands of an operator that goes channel by channel."""
        kept = self._kept(op.outputs[0])
        for place, index in enumerate(op.inputs):
            tensor = self.source.tensors[index]
            if tensor.data is not None and tensor.dtype == "INT8" and channels(tensor) == kept.size:
                self._replace(op, place, tensor.data[..., kept], kept, _LAST)

    def _shape(self, op: Op) -> None:
        """The sizes that an operator has among its constants."""
        count = int(self._kept(op.outputs[0]).sum())
        if op.name == "RESHAPE":
            if len(op.inputs) > 1:
                self._last_value(op, 1, count)
            options = self.graph.operators[op.index].builtinOptions
            if options is not None and options.newShape is not None:
                options.newShape = _ended(np.asarray(options.newShape, np.int32), count)
        elif op.name in ("SLICE", "STRIDED_SLICE"):
            self._last_value(op, 2, count)

    def _last_value(self, op: Op, place: int, count: int) -> None:
        values = self.source.tensors[op.inputs[place]].data
        assert values is not None
        self._replace(op, place, _ended(values, count))

    def _replace(
        self,
        op: Op,
        place: int,
        values: np.ndarray,
        rows: np.ndarray | None = None,
        axis: int = 0,
    ) -> None:
        """Give an operator another constant; other operators that read the old one keep it."""
        index = op.inputs[place]
        tensor = copy.copy(self.graph.tensors[index])
        tensor.shape, tensor.shapeSignature = list(values.shape), None
        scales = flatbuffer.scales(tensor)
        if rows is not None and scales.size > 1:
            flatbuffer.set_quantization(tensor, scales[rows], 0, axis)
        flatbuffer.set_constant(self.container, tensor, np.ascontiguousarray(values))
        if sum(own.inputs.count(index) for own in self.source.ops) == 1:
            self.graph.tensors[index] = tensor
            return
        self.graph.tensors.append(tensor)
        operator = self.graph.operators[op.index]
        operator.inputs = flatbuffer.indices(operator.inputs)
        operator.inputs[place] = len(self.graph.tensors) - 1


def _ended(values: np.ndarray, count: int) -> np.ndarray:
    """Sizes with another last one, unless that is left open."""
    made = values.copy()
    if made.size and made.reshape(-1)[-1] != -1:
        made.reshape(-1)[-1] = count
    return made
