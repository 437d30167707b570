"""Quantized model -> frozen graph: integer codes, scales and biases, no Keras state.

Batch normalization is folded as (codes, scale) pairs: y = k * (conv - mean) + beta with
k = gamma / sqrt(variance + epsilon) multiplies each channel's scale by |k| and its codes by the
sign of k, so the codes stay the trained integers.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.channel_folding import channels_last, fold, original_layout
from tfbinreg.core.grid import CodedTensor, Grid, prescale
from tfbinreg.core.problems import Problem, raise_problems
from tfbinreg.core.target import NOT_FINALIZED, state_of, target_of
from tfbinreg.deploy.frozen import FrozenGraph, FrozenKernel, FrozenOp
from tfbinreg.layers.folded_kernel import FoldedKernel
from tfbinreg.layers.kernel import QuantizeActivation, QuantizedHardSwish, QuantizedKernel
from tfbinreg.layers.sites import Site, check_finite, kernel_sites, require_quantized
from tfbinreg.network import edges
from tfbinreg.network.fusing import can_fuse
from tfbinreg.network.graph import Graph, Node, trace
from tfbinreg.network.layer_kinds import KINDS, Role, fixed_grid, operation_attributes, relu_limit
from tfbinreg.network.normalizations import ARRAYS, Affine, fold_norms
from tfbinreg.network.open_sizes import InputShape, fixed_shapes, with_input_shapes
from tfbinreg.version import __version__

# A normalization without a kernel before it multiplies by 64 codes of 1/64: a power of two keeps
# its factors exact, and large codes keep the rounding of the runtimes' multipliers small.
_UNIT_CODE = 64
_UNIT_GRID = Grid(8, True, np.array(1.0 / _UNIT_CODE), -127, 127)


@dataclasses.dataclass(frozen=True, eq=False)
class Offsets:
    """The variables that a kernel's bias is made of.

    Attributes:
        bias: added before the normalizations, None if there is none.
        norms: the normalizations that are folded into the kernel, in order.
    """

    bias: tf.Variable | None = None
    norms: tuple[Any, ...] = ()

    def folded(self, channels: int) -> Affine:
        """What becomes of the sums of a kernel: bias and normalizations as one; float64."""
        bias = np.zeros(channels) if self.bias is None else ARRAYS.read(self.bias)
        return fold_norms(Affine(np.ones(channels), bias), self.norms, ARRAYS)


@dataclasses.dataclass(frozen=True, eq=False)
class Frozen:
    """A frozen graph and where it comes from, for `finalize`.

    Attributes:
        graph: plain values.
        offsets: index of an operation with a kernel -> the variables behind its bias.
        grid_layers: index of an operation -> the `QuantizeActivation` that its outputs' grid is of.
    """

    graph: FrozenGraph
    offsets: Mapping[int, Offsets]
    grid_layers: Mapping[int, QuantizeActivation]


def freeze(model: Any, *, input_shape: InputShape | None = None) -> FrozenGraph:
    """Turn a trained quantized model into integer operations.

    Args:
        model: a trained model from `quantize_apply`.
        input_shape: sizes for inputs that the model leaves open (`open_sizes.InputShape`);
            None leaves them open.

    Raises:
        ValueError: if the model is not quantized, or listing by layer name everything that has no
            exact integer form.
    """
    return freeze_with_offsets(model, input_shape=input_shape).graph


def freeze_with_offsets(model: Any, *, input_shape: InputShape | None = None) -> Frozen:
    """`freeze`, and the variables that the biases come from."""
    require_quantized(model)
    check_finite(model)
    own = {id(site.layer): site for site in kernel_sites(model)}
    layers = trace(model)
    shapes = None if input_shape is None else fixed_shapes(model, input_shape)
    if shapes is not None:
        layers = with_input_shapes(layers, shapes)
    freezer = _Freezer(layers, own, model.recipe.stored_bits)
    ops, offsets = freezer.run(model.name)
    graph = FrozenGraph(
        ops=ops,
        inputs=tuple(freezer.op_of[index] for index in freezer.graph.inputs),
        outputs=tuple(freezer.outputs),
        input_names=tuple(edges.names(model.input, model.input_names)),
        output_names=tuple(edges.names(model.output, model.output_names)),
        recipe=json.loads(model.recipe.to_json()),
        versions={"tfbinreg": __version__, **_compat.versions()},
        target=target_of(model),
        finalized=state_of(model) != NOT_FINALIZED,
    )
    grids = {i: layer for i, layer in enumerate(freezer.grid_layers) if layer is not None}
    return Frozen(graph, offsets, grids)


def integer_codes(model: Any) -> dict[str, CodedTensor]:
    """The deployed integer codes of every quantized kernel, before pre-scaling.

    Args:
        model: a trained model from `quantize_apply`.

    Returns:
        Layer name -> `CodedTensor`, codes in the Keras kernel layout. Scales include a folded
        BatchNormalization; a negative gamma negates its channel's codes, a zero one zeroes them.

    Raises:
        ValueError: as `freeze`.
    """
    return {
        name: CodedTensor(kernel.codes, kernel.scale, 0, kernel.bits)
        for name, kernel in freeze(model).trained_kernels().items()
    }


class _Freezer:
    """The steps of `freeze`. Fused layers are merged into the operation they follow."""

    def __init__(self, graph: Graph, sites: Mapping[int, Site], stored_bits: int) -> None:
        self.graph, self.sites, self.stored_bits = graph, sites, stored_bits
        self.ops: list[FrozenOp] = []
        self.layers: list[Any] = []  # of each operation, the Keras layer it comes from
        self.offsets: list[Offsets] = []  # of each operation
        self.grid_layers: list[Any] = []  # of each operation, None where the grid is another's
        self.op_of: dict[int, int] = {}  # node index -> index of the operation it is part of
        self.outputs: list[int] = []
        self.problems: list[Problem] = []

    def run(self, model_name: str) -> tuple[tuple[FrozenOp, ...], dict[int, Offsets]]:
        for node in self.graph.nodes:
            self._visit(node)
        self._end_outputs()
        raise_problems(self.problems, f"convert model {model_name!r}")
        self._drop_unused()
        kernels = [i for i, op in enumerate(self.ops) if KINDS[op.kind].has_kernel]
        for index in kernels:
            self.ops[index] = self._with_kernel(index)
        raise_problems(self.problems, f"convert model {model_name!r}")
        return tuple(self.ops), {index: self.offsets[index] for index in kernels}

    def _visit(self, node: Node) -> None:
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
        """Whether a node only reshapes, to the shape that is there already."""
        if KINDS[name].op != "RESHAPE":
            return False
        return None not in node.shape and self.ops[self.op_of[node.inputs[0]]].shape == node.shape

    def _add(self, node: Node, name: str, kind_name: str) -> None:
        kind = KINDS[kind_name]
        inputs = () if kind.role is Role.INPUT else tuple(self.op_of[i] for i in node.inputs)
        self._need_grid(name, inputs)
        while kind.op == "RESHAPE" and KINDS[self.ops[inputs[0]].kind].op == "RESHAPE":
            inputs = self.ops[inputs[0]].inputs  # one instead of two
        grid = None
        if kind.role is Role.FIXED:
            grid = fixed_grid(node.layer)
        elif kind.role in (Role.SAME, Role.RELU, Role.JOIN):
            grid = self.ops[inputs[0]].grid
        inner = node.layer.layer if isinstance(node.layer, QuantizedKernel) else node.layer
        attributes = operation_attributes(inner, kind)
        self.op_of[node.index] = len(self.ops)
        self.ops.append(
            FrozenOp(self._unique(name), kind_name, inputs, grid, node.shape, attributes)
        )
        self.layers.append(node.layer)
        self.grid_layers.append(None)
        norms = (node.layer,) if kind.role is Role.NORM else tuple(getattr(node.layer, "norms", ()))
        self.offsets.append(Offsets(_bias(node.layer), norms))

    def _end_outputs(self) -> None:
        """Give every output of the model an operation of its own, a copy where it has none."""
        for node_index in self.graph.outputs:
            index = self.op_of[node_index]
            op = self.ops[index]
            self._need_grid(op.name, (index,))
            if index in self.outputs or op.kind == "InputLayer":
                copy = FrozenOp(self._unique(op.name), "Reshape", (index,), op.grid, op.shape)
                index = len(self.ops)
                self.ops.append(copy)
                self.layers.append(None)
                self.grid_layers.append(None)
                self.offsets.append(Offsets())
            self.outputs.append(index)

    def _drop_unused(self) -> None:
        """Drop the operations whose results nothing takes, and number the others anew."""
        taken = {index for op in self.ops for index in op.inputs} | set(self.outputs)
        kept = [i for i, op in enumerate(self.ops) if i in taken or op.kind == "InputLayer"]
        if len(kept) == len(self.ops):
            return
        place = {index: number for number, index in enumerate(kept)}
        self.ops = [
            dataclasses.replace(self.ops[i], inputs=tuple(place[j] for j in self.ops[i].inputs))
            for i in kept
        ]
        self.layers, self.offsets = [self.layers[i] for i in kept], [self.offsets[i] for i in kept]
        self.grid_layers = [self.grid_layers[i] for i in kept]
        self.outputs = [place[index] for index in self.outputs]
        self.op_of = {node: place[i] for node, i in self.op_of.items() if i in place}
        self._drop_unused()

    def _unique(self, name: str) -> str:
        """The name of a layer, numbered where the layer is called again."""
        taken = {op.name for op in self.ops}
        numbered = (f"{name}_{number}" for number in itertools.count(1))
        return next(text for text in itertools.chain([name], numbered) if text not in taken)

    def _fuse(self, node: Node, role: Role) -> bool:
        """Make a normalization or ReLU part of the operation before it, if that has no grid yet."""
        if role not in (Role.NORM, Role.RELU):
            return False
        index = self.op_of[node.inputs[0]]
        op, before = self.ops[index], self.offsets[index]
        if op.grid is not None or op.relu or not can_fuse(KINDS[op.kind], role):
            return False
        if role is Role.NORM:
            self.offsets[index] = Offsets(before.bias, (*before.norms, node.layer))
        else:
            limit = relu_limit(node.layer)
            self.ops[index] = dataclasses.replace(op, relu=True, relu_limit=limit)
        self.op_of[node.index] = index
        return True

    def _set_grid(self, node: Node) -> None:
        """A grid layer ends the operation before it, or rounds again to the grid it already has."""
        index = self.op_of.setdefault(node.index, self.op_of[node.inputs[0]])
        op = self.ops[index]
        if op.grid is not None:
            return
        grid = node.layer.quantizer.settle(node.layer.grid_variables, node.name)
        if grid.levels is not None or grid.channel_bits is not None:
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
        self.ops[index] = dataclasses.replace(op, grid=grid, relu=relu)
        self.grid_layers[index] = node.layer

    def _need_grid(self, name: str, inputs: tuple[int, ...]) -> None:
        for index in inputs:
            if self.ops[index].grid is None:
                what = f"the output of {self.ops[index].name!r} is not on a grid"
                self._problem(name, what, "quantize the whole model")

    def _problem(self, name: str, what: str, remedy: str) -> None:
        self.problems.append(Problem(name, what, remedy))

    def _with_kernel(self, index: int) -> FrozenOp:
        op, layer = self.ops[index], self.layers[index]
        source, target = self.ops[op.inputs[0]].grid, op.grid
        if source is None or target is None:
            self._problem(op.name, "its output is not on a grid", "quantize the whole model")
            return op
        trained = isinstance(layer, QuantizedKernel)
        if trained:
            site = self.sites[id(layer)]
            grid, codes = site.grid(), site.codes()
        else:
            grid = _UNIT_GRID
            codes = np.full((1, 1, int(op.shape[-1] or 0), 1), _UNIT_CODE, np.int32)
        rows = channels_last(op.kind, codes)
        channels = rows.shape[1]
        folded = self.offsets[index].folded(channels)
        factor, offset = folded.factor, folded.offset
        if not np.all(np.isfinite(factor)) or not np.all(np.isfinite(offset)):
            what = "its bias or batch normalization has NaN or infinite values"
            self._problem(op.name, what, "training diverged: train again at a lower rate")
            return op
        if isinstance(layer, FoldedKernel):
            factor = np.ones(channels)  # the codes are those of the folded kernel
        multiple = prescale(grid.qmin, grid.qmax, self.stored_bits)
        own_bias = isinstance(layer, FoldedKernel) and layer.bias_bits is not None
        # Biases of few bits were trained in the units of the channels' own scales.
        plain = dataclasses.replace(grid, channel_bits=None) if own_bias else grid
        rows, scale = fold(rows, plain, factor, offset * multiple, source, target)
        bias = np.floor(offset * multiple / (float(source.scale) * scale) + 0.5)
        if own_bias:
            bias = layer.integer_bias()
        if np.any(np.abs(bias) >= 2**31):
            worst = int(np.argmax(np.abs(bias)))
            what = f"the bias of output channel {worst} does not fit 32 bits"
            self._problem(
                op.name,
                f"{what} (its BatchNormalization multiplies by {factor[worst]:.3g})",
                "set that channel's gamma to 0, or remove the channel",
            )
            return op
        kernel = FrozenKernel(
            original_layout(op.kind, rows, codes.shape).astype(np.int8),
            scale,
            bias.astype(np.int32),
            grid.bits,
            multiple,
            trained,
            grid.levels,
            _channel_bits(grid, channels),
        )
        return dataclasses.replace(op, kernel=kernel)


def _channel_bits(grid: Grid, channels: int) -> tuple[int, ...] | None:
    """The bits of each output channel; a depthwise kernel's grid counts input channels."""
    if grid.channel_bits is None:
        return None
    return tuple(np.repeat(grid.channel_bits, channels // len(grid.channel_bits)).tolist())


def _bias(layer: Any) -> Any:
    """The bias variable of a quantized layer, None without one."""
    if not isinstance(layer, QuantizedKernel):
        return None
    return layer.bias if isinstance(layer, FoldedKernel) else layer.layer.bias
