"""The operations of a quantized model and the layers they come from; kernels are added later."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.core.problems import Problem
from tfbinreg.deploy.frozen import FrozenOp
from tfbinreg.layers.folded_kernel import FoldedKernel
from tfbinreg.layers.kernel import QuantizeActivation, QuantizedHardSwish, QuantizedKernel
from tfbinreg.network.fusing import can_fuse
from tfbinreg.network.graph import Graph, Node
from tfbinreg.network.layer_kinds import KINDS, Role, fixed_grid, operation_attributes, relu_limit
from tfbinreg.network.normalizations import ARRAYS, Affine, fold_norms

_POOL = "MaxPooling2D"


@dataclasses.dataclass(frozen=True, eq=False)
class Offsets:
    """The variables that a kernel's bias is computed from.

    Attributes:
        bias: added before the normalizations, None if there is none.
        norms: the normalizations that are folded into the kernel, in order.
    """

    bias: tf.Variable | None = None
    norms: tuple[Any, ...] = ()

    @property
    def last(self) -> Any:
        """The last normalization, else the bias: it is moved when a bias is rounded."""
        return self.norms[-1] if self.norms else self.bias

    def folded(self, channels: int) -> Affine:
        """What becomes of the sums of a kernel: bias and normalizations as one; float64."""
        bias = np.zeros(channels) if self.bias is None else ARRAYS.read(self.bias)
        return fold_norms(Affine(np.ones(channels), bias), self.norms, ARRAYS)


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """An operation, and the Keras layers it comes from.

    Attributes:
        op: plain values, without a kernel.
        layer: the one that starts it, None for a copy.
        offsets: what its bias is made of.
        grid_layer: that of its outputs' grid, None where the grid is another operation's.
    """

    op: FrozenOp
    layer: Any = None
    offsets: Offsets = Offsets()
    grid_layer: QuantizeActivation | None = None

    def changed(self, **changes: Any) -> Operation:
        """The same with other values in `op`."""
        return dataclasses.replace(self, op=dataclasses.replace(self.op, **changes))


@dataclasses.dataclass(frozen=True, eq=False)
class Operations:
    """Those of a model in topological order.

    Attributes:
        operations: all of them.
        inputs: indices of those that are the model's inputs, in the model's order.
        outputs: indices of those whose results are its outputs, in order; all different.
        problems: what has no exact integer form. If there are any, the rest cannot be used.
    """

    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    problems: tuple[Problem, ...]


def operations_of(graph: Graph) -> Operations:
    """The operations of a quantized model. Fused layers are part of the one they follow."""
    walk = _Walk()
    for node in graph.nodes:
        walk.visit(node)
    outputs = [walk.end_output(walk.op_of[index]) for index in graph.outputs]
    found = Operations(
        tuple(walk.operations),
        tuple(walk.op_of[index] for index in graph.inputs),
        tuple(outputs),
        tuple(walk.problems),
    )
    return _without_unused(found)


class _Walk:
    """The steps of `operations_of`."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.op_of: dict[int, int] = {}  # node index -> index of the operation it is part of
        self.outputs: set[int] = set()
        self.problems: list[Problem] = []

    def visit(self, node: Node) -> None:
        if isinstance(node.layer, QuantizeActivation):
            if isinstance(node.layer, QuantizedHardSwish):
                self._add(node, node.layer.operation, "HardSwish")
            self._set_grid(node)
            return
        inner = node.layer.layer if isinstance(node.layer, QuantizedKernel) else node.layer
        name = type(inner).__name__
        if name not in KINDS or (KINDS[name].role is Role.KERNEL and inner is node.layer):
            self._problem(inner.name, "is not quantized", "quantize the whole model")
            self.op_of[node.index] = self.op_of[node.inputs[0]]
        elif KINDS[name].op == "none" or self._keeps_shape(node, name):
            self.op_of[node.index] = self.op_of[node.inputs[0]]
        elif not self._fuse(node, KINDS[name].role):
            self._add(node, inner.name, name)

    def _keeps_shape(self, node: Node, name: str) -> bool:
        """Whether a node only reshapes, to the shape that it already has."""
        if KINDS[name].op != "RESHAPE":
            return False
        return None not in node.shape and self._op(self.op_of[node.inputs[0]]).shape == node.shape

    def _op(self, index: int) -> FrozenOp:
        return self.operations[index].op

    def _append(self, operation: Operation) -> int:
        self.operations.append(operation)
        return len(self.operations) - 1

    def _add(self, node: Node, name: str, kind_name: str) -> None:
        kind = KINDS[kind_name]
        inputs = () if kind.role is Role.INPUT else tuple(self.op_of[i] for i in node.inputs)
        self._need_grid(name, inputs)
        while kind.op == "RESHAPE" and KINDS[self._op(inputs[0]).kind].op == "RESHAPE":
            inputs = self._op(inputs[0]).inputs  # one instead of two
        grid = None
        if kind.role is Role.FIXED:
            grid = fixed_grid(node.layer)
        elif kind.role in (Role.SAME, Role.RELU, Role.JOIN):
            grid = self._op(inputs[0]).grid
        inner = node.layer.layer if isinstance(node.layer, QuantizedKernel) else node.layer
        attributes = operation_attributes(inner, kind)
        if kind_name == "PaddedMaxPooling2D":
            inputs, kind_name = (self._border(name, inputs[0], attributes.pop("margins")),), _POOL
            attributes["padding"] = "valid"
        if kind_name == "ResizeBilinear":  # whose rounding depends on both sizes
            attributes["source"] = self._op(inputs[0]).shape[:2]
        op = FrozenOp(self._unique(name), kind_name, inputs, grid, node.shape, attributes)
        norms = (node.layer,) if kind.role is Role.NORM else tuple(getattr(node.layer, "norms", ()))
        offsets = Offsets(_bias(node.layer), norms)
        self.op_of[node.index] = self._append(Operation(op, node.layer, offsets))

    def _border(self, name: str, source: int, margins: Sequence[tuple[int, int]]) -> int:
        """A copy of an image in a border of the least number of its grid."""
        op = self._op(source)
        *sizes, channels = op.shape
        padded = (
            size if size is None else size + sum(pair)
            for size, pair in zip(sizes, margins, strict=True)
        )
        attributes = {"padding": tuple(margins), "lowest": True}
        shape, name = (*padded, channels), self._unique(f"{name}_border")
        border = FrozenOp(name, "ZeroPadding2D", (source,), op.grid, shape, attributes)
        return self._append(Operation(border))

    def end_output(self, index: int) -> int:
        """The operation that is an output of the model: this one, or a copy if it cannot be."""
        op = self._op(index)
        self._need_grid(op.name, (index,))
        if index in self.outputs or op.kind == "InputLayer":
            copy = FrozenOp(self._unique(op.name), "Reshape", (index,), op.grid, op.shape)
            index = self._append(Operation(copy))
        self.outputs.add(index)
        return index

    def _unique(self, name: str) -> str:
        """The name of a layer, numbered where the layer is called again."""
        taken = {operation.op.name for operation in self.operations}
        numbered = (f"{name}_{number}" for number in itertools.count(1))
        return next(text for text in itertools.chain([name], numbered) if text not in taken)

    def _fuse(self, node: Node, role: Role) -> bool:
        """Make a normalization or ReLU part of the operation before it, if that has no grid yet."""
        if role not in (Role.NORM, Role.RELU):
            return False
        index = self.op_of[node.inputs[0]]
        before = self.operations[index]
        op = before.op
        if op.grid is not None or op.relu or not can_fuse(KINDS[op.kind], role):
            return False
        if role is Role.NORM:
            offsets = Offsets(before.offsets.bias, (*before.offsets.norms, node.layer))
            self.operations[index] = dataclasses.replace(before, offsets=offsets)
        else:
            limit = relu_limit(node.layer)
            self.operations[index] = before.changed(relu=True, relu_limit=limit)
        self.op_of[node.index] = index
        return True

    def _set_grid(self, node: Node) -> None:
        """A grid layer ends the operation before it, or rounds again to the grid it already has."""
        index = self.op_of.setdefault(node.index, self.op_of[node.inputs[0]])
        op = self._op(index)
        if op.grid is not None:
            return
        grid = node.layer.quantizer.settle(node.layer.grid_variables, node.name)
        if grid.levels is not None or grid.widths is not None:
            what = "an activation with a codebook or bits per channel has no exact int8 form"
            self._problem(node.name, what, "use a method that spaces its activations evenly")
        if (grid.signed or op.kind == "InputLayer") and grid.bits != 8:
            sort = "an input" if op.kind == "InputLayer" else "a signed activation"
            self._problem(
                node.name,
                f"{sort} of {grid.bits} bits has no exact int8 form",
                "use 8 bits (signed_activation_bits, input_bits) or put a ReLU there",
            )
        relu = op.relu or (not grid.signed and KINDS[op.kind].fuses_relu)
        ended = self.operations[index].changed(grid=grid, relu=relu)
        self.operations[index] = dataclasses.replace(ended, grid_layer=node.layer)

    def _need_grid(self, name: str, inputs: tuple[int, ...]) -> None:
        for index in inputs:
            if self._op(index).grid is None:
                what = f"the output of {self._op(index).name!r} is not on a grid"
                self._problem(name, what, "quantize the whole model")

    def _problem(self, name: str, what: str, remedy: str) -> None:
        self.problems.append(Problem(name, what, remedy))


def _without_unused(found: Operations) -> Operations:
    """Without the operations whose results nothing takes, and the others numbered anew."""
    ops = [operation.op for operation in found.operations]
    taken = {index for op in ops for index in op.inputs} | set(found.outputs)
    kept = [i for i, op in enumerate(ops) if i in taken or op.kind == "InputLayer"]
    if len(kept) == len(ops):
        return found
    place = {index: number for number, index in enumerate(kept)}
    fewer = Operations(
        tuple(
            found.operations[i].changed(inputs=tuple(place[j] for j in ops[i].inputs)) for i in kept
        ),
        tuple(place[index] for index in found.inputs),
        tuple(place[index] for index in found.outputs),
        found.problems,
    )
    return _without_unused(fewer)


def _bias(layer: Any) -> Any:
    """The bias variable of a quantized layer, None without one."""
    if not isinstance(layer, QuantizedKernel):
        return None
    return layer.bias if isinstance(layer, FoldedKernel) else layer.layer.bias
