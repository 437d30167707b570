"""Quantized model -> frozen graph: integer codes, scales and biases, no Keras state.

Batch normalization is folded as (codes, scale) pairs: y = k * (conv - mean) + beta with
k = gamma / sqrt(variance + epsilon) multiplies each channel's scale by |k| and its codes by the
sign of k, so the codes stay the trained integers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfbinreg.graph import Graph, Node, trace
from tfbinreg.grid import CodedTensor, Grid
from tfbinreg.kinds import KINDS, Role
from tfbinreg.layers import QuantizeActivation, QuantizedKernel
from tfbinreg.plan import Problem, raise_problems
from tfbinreg.sites import Site, check_finite, kernel_sites, require_quantized

# A channel that can move its output by less than this part of a level counts as constant.
_NEGLIGIBLE = 2.0**-12


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenKernel:
    """A deployed kernel: value = codes * scale, bias value = bias * input scale * scale / prescale.

    Attributes:
        codes: int8, Keras layout; the trained codes, negated in channels whose BatchNormalization
            gamma is negative, zero in channels whose gamma makes them constant.
        scale: float32, () or (output channels,).
        bias: int32, (output channels,).
        bits: width the codes were trained at.
        prescale: P, by which the file's weights are multiplied.
    """

    codes: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    bits: int
    prescale: int


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenOp:
    """One integer operation.

    Attributes:
        name: the Keras layer's name.
        kind: its class.
        layer: the float layer, for strides, padding and the like; weights are not read from it.
        inputs: indices of the operations whose outputs it takes.
        grid: grid of the output; None for a softmax, whose grid is fixed.
        relu: whether a ReLU is fused.
        kernel: weights, if it has any.
        norm: the BatchNormalization layer folded into the kernel, if there was one.
    """

    name: str
    kind: str
    layer: Any
    inputs: tuple[int, ...]
    grid: Grid | None
    relu: bool = False
    kernel: FrozenKernel | None = None
    norm: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenGraph:
    """The integer operations of a model in topological order.

    Attributes:
        ops: the operations.
        inputs: indices of the operations that are the model's inputs, in the model's order.
        outputs: indices of those whose results are its outputs, in the model's order.
    """

    ops: tuple[FrozenOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def freeze(model: Any) -> FrozenGraph:
    """Turn a trained quantized model into integer operations.

    Raises:
        ValueError: if the model is not quantized, or listing by layer name everything that has no
            exact integer form.
    """
    require_quantized(model)
    check_finite(model)
    freezer = _Freezer(trace(model), {id(site.layer): site for site in kernel_sites(model)})
    return freezer.run(model.name)


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
        op.name: CodedTensor(op.kernel.codes, op.kernel.scale, 0, op.kernel.bits)
        for op in freeze(model).ops
        if op.kernel is not None
    }


class _Freezer:
    """The steps of `freeze`. Fused layers are merged into the operation they follow."""

    def __init__(self, graph: Graph, sites: Mapping[int, Site]) -> None:
        self.graph, self.sites = graph, sites
        self.ops: list[FrozenOp] = []
        self.op_of: dict[int, int] = {}  # node index -> index of the operation it is part of
        self.norms: dict[int, Any] = {}  # operation index -> BatchNormalization to fold
        self.problems: list[Problem] = []

    def run(self, model_name: str) -> FrozenGraph:
        for node in self.graph.nodes:
            self._visit(node)
        raise_problems(self.problems, f"convert model {model_name!r}")
        for index, op in enumerate(self.ops):
            if op.kernel is None and isinstance(op.layer, QuantizedKernel):
                self.ops[index] = self._with_kernel(index, op)
        raise_problems(self.problems, f"convert model {model_name!r}")
        inputs = tuple(self.op_of[index] for index in self.graph.inputs)
        outputs = tuple(self.op_of[index] for index in self.graph.outputs)
        return FrozenGraph(tuple(self.ops), inputs, outputs)

    def _visit(self, node: Node) -> None:
        if isinstance(node.layer, QuantizeActivation):
            self._set_grid(node)
            return
        inner = node.layer.layer if isinstance(node.layer, QuantizedKernel) else node.layer
        kind = KINDS.get(type(inner).__name__)
        if kind is None or (kind.role is Role.KERNEL and inner is node.layer):
            self._problem(inner.name, "is not quantized", "quantize the whole model")
            kind = kind or KINDS["Dropout"]
        if kind.role is Role.NORM:
            self.op_of[node.index] = self.op_of[node.inputs[0]]
            self.norms[self.op_of[node.index]] = node.layer
            return
        inputs = tuple(self.op_of[index] for index in node.inputs)
        grid = None
        if kind.role in (Role.SAME, Role.RELU, Role.SOFTMAX):
            self._need_grid(inner.name, inputs)
            grid = self.ops[inputs[0]].grid if kind.role is not Role.SOFTMAX else None
        self.op_of[node.index] = len(self.ops)
        self.ops.append(FrozenOp(inner.name, type(inner).__name__, node.layer, inputs, grid))
        if kind.role is Role.KERNEL or kind.role is Role.MERGE:
            self._need_grid(inner.name, inputs)

    def _set_grid(self, node: Node) -> None:
        """A grid layer ends the operation before it, or rounds again to the grid it already has."""
        index = self.op_of[node.inputs[0]]
        self.op_of[node.index] = index
        op = self.ops[index]
        grid = node.layer.quantizer.settle(node.layer.grid_variables, node.name)
        if op.grid is not None:
            return
        if (grid.signed or op.kind == "InputLayer") and grid.bits != 8:
            sort = "an input" if op.kind == "InputLayer" else "a signed activation"
            self._problem(
                node.name,
                f"{sort} of {grid.bits} bits has no exact int8 form",
                "use 8 bits (signed_activation_bits, input_bits) or put a ReLU there",
            )
        relu = not grid.signed and op.kind not in ("InputLayer", "GlobalAveragePooling2D")
        self.ops[index] = dataclasses.replace(op, grid=grid, relu=relu)

    def _need_grid(self, name: str, inputs: tuple[int, ...]) -> None:
        for index in inputs:
            if self.ops[index].grid is None:
                what = f"its input {self.ops[index].name!r} is not on a grid"
                self._problem(name, what, "quantize the whole model")

    def _problem(self, name: str, what: str, remedy: str) -> None:
        self.problems.append(Problem(name, what, remedy))

    def _with_kernel(self, index: int, op: FrozenOp) -> FrozenOp:
        site, inner = self.sites[id(op.layer)], op.layer.layer
        source, target = self.ops[op.inputs[0]].grid, op.grid
        if source is None or target is None:
            self._problem(op.name, "its output is not on a grid", "quantize the whole model")
            return op
        grid, codes = site.grid(), site.codes()
        # Output channels last: (h * w, channels * multiplier) for a depthwise kernel.
        depthwise = type(inner).__name__ == "DepthwiseConv2D"
        channels = int(np.prod(codes.shape[2:])) if depthwise else codes.shape[-1]
        rows = codes.reshape(-1, channels)
        factor, offset = norm_factors(self.norms.get(index), inner, channels)
        rows, scale = _fold(rows, grid, factor, source, target)
        bias = np.floor(offset * grid.prescale / (float(source.scale) * scale) + 0.5)
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
            rows.reshape(codes.shape).astype(np.int8),
            scale,
            bias.astype(np.int32),
            grid.bits,
            grid.prescale,
        )
        return dataclasses.replace(op, layer=inner, kernel=kernel, norm=self.norms.get(index))


def _fold(
    rows: np.ndarray, grid: Grid, factor: np.ndarray, source: Grid, target: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Multiply each channel's scale by |factor| and its codes by the sign of factor.

    Args:
        rows: codes, (weights per channel, output channels).
        grid: the kernel's grid.
        factor: k, float64, (output channels,).
        source: grid of the inputs.
        target: grid of the outputs.

    Returns:
        The folded codes, and the float32 scale: () if all channels share it, else per channel.
    """
    step = np.repeat(grid.scale.astype(np.float64), rows.shape[1] // grid.scale.size)
    folded = step * np.abs(factor)
    # How many levels of the output each channel's weights can move at the very most.
    reach = np.abs(rows).sum(axis=0) * folded * source.qmax_abs
    reach *= float(source.scale) / float(target.scale)
    constant = (reach < _NEGLIGIBLE) & (factor != 1.0)
    if np.any(constant):
        # A scale near zero would need an enormous bias; without weights any scale will do.
        folded[constant] = folded[~constant].max() if not np.all(constant) else step[constant]
    rows = np.where(constant, 0, rows * np.where(factor < 0, -1, 1))
    scale = folded.astype(np.float32)
    return rows, scale[0] if np.all(scale == scale[0]) else scale


def norm_factors(norm: Any, layer: Any, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """(k, c), float64, such that normalized(conv + bias) = k * conv + c, per output channel."""
    bias = np.zeros(channels) if layer.bias is None else layer.bias.numpy().astype(np.float64)
    if norm is None:
        return np.ones(channels), bias
    gamma = norm.gamma.numpy() if norm.scale else np.ones(channels)
    beta = norm.beta.numpy() if norm.center else np.zeros(channels)
    mean = norm.moving_mean.numpy().astype(np.float64)
    variance = norm.moving_variance.numpy().astype(np.float64)
    factor = gamma.astype(np.float64) / np.sqrt(variance + norm.epsilon)
    return factor, beta.astype(np.float64) + factor * (bias - mean)
