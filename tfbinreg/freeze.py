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

from tfbinreg.folded import FoldedKernel
from tfbinreg.graph import Graph, Node, trace
from tfbinreg.grid import CodedTensor, Grid, prescale
from tfbinreg.kinds import KINDS, Role, fixed_grid, relu_limit
from tfbinreg.layers import QuantizeActivation, QuantizedHardSwish, QuantizedKernel
from tfbinreg.plain_layers import ChannelAffine
from tfbinreg.plan import Problem, raise_problems
from tfbinreg.sites import Site, check_finite, kernel_sites, require_quantized

# A channel that can move its output by less than this part of a level counts as constant.
_NEGLIGIBLE = 2.0**-12
# A normalization without a kernel before it multiplies by 64 codes of 1/64: a power of two keeps
# its factors exact, and large codes keep the rounding of the runtimes' multipliers small.
_UNIT_CODE = 64
_UNIT_GRID = Grid(8, True, np.array(1.0 / _UNIT_CODE), -127, 127)


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
        trained: False for the factors of a normalization that has no kernel before it, whose codes
            are all one number.
    """

    codes: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    bits: int
    prescale: int
    trained: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenOp:
    """One integer operation.

    Attributes:
        name: the Keras layer's name.
        kind: its class.
        layer: the float layer, for strides, padding and the like; weights are not read from it.
        inputs: indices of the operations whose outputs it takes.
        grid: grid of the output.
        relu: whether a ReLU is fused.
        relu_limit: the largest output of that ReLU, None if the grid alone limits it.
        kernel: weights, if it has any.
        bias: the variable that is added before the normalizations, if there is one.
        norms: the normalizations that are folded into the kernel, in order.
    """

    name: str
    kind: str
    layer: Any
    inputs: tuple[int, ...]
    grid: Grid | None
    relu: bool = False
    relu_limit: float | None = None
    kernel: FrozenKernel | None = None
    bias: Any = None
    norms: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenGraph:
    """The integer operations of a model in topological order.

    Attributes:
        ops: the operations.
        inputs: indices of the operations that are the model's inputs, in the model's order.
        outputs: indices of those whose results are its outputs, in the model's order.
        op_of: node of the model's layer graph -> index of the operation it is part of.
    """

    ops: tuple[FrozenOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    op_of: Mapping[int, int]

    def trained_kernels(self) -> dict[str, FrozenKernel]:
        """The kernels that hold trained codes, by layer name."""
        return {op.name: op.kernel for op in self.ops if op.kernel and op.kernel.trained}


def freeze(model: Any) -> FrozenGraph:
    """Turn a trained quantized model into integer operations.

    Raises:
        ValueError: if the model is not quantized, or listing by layer name everything that has no
            exact integer form.
    """
    require_quantized(model)
    check_finite(model)
    own = {id(site.layer): site for site in kernel_sites(model)}
    freezer = _Freezer(trace(model), own, model.recipe.stored_bits)
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
        name: CodedTensor(kernel.codes, kernel.scale, 0, kernel.bits)
        for name, kernel in freeze(model).trained_kernels().items()
    }


class _Freezer:
    """The steps of `freeze`. Fused layers are merged into the operation they follow."""

    def __init__(self, graph: Graph, sites: Mapping[int, Site], stored_bits: int) -> None:
        self.graph, self.sites, self.stored_bits = graph, sites, stored_bits
        self.ops: list[FrozenOp] = []
        self.op_of: dict[int, int] = {}  # node index -> index of the operation it is part of
        self.problems: list[Problem] = []

    def run(self, model_name: str) -> FrozenGraph:
        for node in self.graph.nodes:
            self._visit(node)
        raise_problems(self.problems, f"convert model {model_name!r}")
        for index, op in enumerate(self.ops):
            if KINDS[op.kind].role in (Role.KERNEL, Role.NORM):
                self.ops[index] = self._with_kernel(op)
        raise_problems(self.problems, f"convert model {model_name!r}")
        inputs = tuple(self.op_of[index] for index in self.graph.inputs)
        outputs = tuple(self.op_of[index] for index in self.graph.outputs)
        return FrozenGraph(tuple(self.ops), inputs, outputs, self.op_of)

    def _visit(self, node: Node) -> None:
        if isinstance(node.layer, QuantizeActivation):
            if isinstance(node.layer, QuantizedHardSwish):
                self._add(node, node.layer.operation, "HardSwish")
            self._set_grid(node)
            return
        inner = node.layer.layer if isinstance(node.layer, QuantizedKernel) else node.layer
        kind = KINDS.get(type(inner).__name__)
        if kind is None or (kind.role is Role.KERNEL and inner is node.layer):
            self._problem(inner.name, "is not quantized", "quantize the whole model")
            kind = kind or KINDS["Dropout"]
        if self._fuse(node, kind.role):
            return
        self._add(node, inner.name, type(inner).__name__)

    def _add(self, node: Node, name: str, kind_name: str) -> None:
        role = KINDS[kind_name].role if kind_name in KINDS else Role.SAME
        inputs = () if role is Role.INPUT else tuple(self.op_of[i] for i in node.inputs)
        self._need_grid(name, inputs)
        grid = None
        if role is Role.FIXED:
            grid = fixed_grid(node.layer)
        elif role in (Role.SAME, Role.RELU, Role.JOIN):
            grid = self.ops[inputs[0]].grid
        norms = (node.layer,) if role is Role.NORM else tuple(getattr(node.layer, "norms", ()))
        op = FrozenOp(
            name, kind_name, node.layer, inputs, grid, bias=_bias(node.layer), norms=norms
        )
        self.op_of[node.index] = len(self.ops)
        self.ops.append(op)

    def _fuse(self, node: Node, role: Role) -> bool:
        """Make a normalization or ReLU part of the operation before it, if that has no grid yet."""
        if role not in (Role.NORM, Role.RELU):
            return False
        index = self.op_of[node.inputs[0]]
        op = self.ops[index]
        head = KINDS.get(op.kind)
        if op.grid is not None or head is None or op.relu:
            return False
        if role is Role.NORM:
            if head.role not in (Role.KERNEL, Role.NORM):
                return False
            op = dataclasses.replace(op, norms=(*op.norms, node.layer))
        elif not head.fuses_relu:
            return False
        else:
            op = dataclasses.replace(op, relu=True, relu_limit=relu_limit(node.layer))
        self.ops[index] = op
        self.op_of[node.index] = index
        return True

    def _set_grid(self, node: Node) -> None:
        """A grid layer ends the operation before it, or rounds again to the grid it already has."""
        index = self.op_of.setdefault(node.index, self.op_of[node.inputs[0]])
        op = self.ops[index]
        if op.grid is not None:
            return
        grid = node.layer.quantizer.settle(node.layer.grid_variables, node.name)
        if (grid.signed or op.kind == "InputLayer") and grid.bits != 8:
            sort = "an input" if op.kind == "InputLayer" else "a signed activation"
            self._problem(
                node.name,
                f"{sort} of {grid.bits} bits has no exact int8 form",
                "use 8 bits (signed_activation_bits, input_bits) or put a ReLU there",
            )
        relu = op.relu or (not grid.signed and KINDS[op.kind].fuses_relu)
        self.ops[index] = dataclasses.replace(op, grid=grid, relu=relu)

    def _need_grid(self, name: str, inputs: tuple[int, ...]) -> None:
        for index in inputs:
            if self.ops[index].grid is None:
                what = f"its input {self.ops[index].name!r} is not on a grid"
                self._problem(name, what, "quantize the whole model")

    def _problem(self, name: str, what: str, remedy: str) -> None:
        self.problems.append(Problem(name, what, remedy))

    def _with_kernel(self, op: FrozenOp) -> FrozenOp:
        source, target = self.ops[op.inputs[0]].grid, op.grid
        if source is None or target is None:
            self._problem(op.name, "its output is not on a grid", "quantize the whole model")
            return op
        trained = isinstance(op.layer, QuantizedKernel)
        if trained:
            inner, site = op.layer.layer, self.sites[id(op.layer)]
            grid, codes = site.grid(), site.codes()
        else:
            inner, grid = op.layer, _UNIT_GRID
            channels = int(inner.input_shape[-1])
            codes = np.full((1, 1, channels, 1), _UNIT_CODE, np.int32)
        rows = channels_last(op.kind, codes)
        channels = rows.shape[1]
        factor, offset = norm_factors(op, channels)
        if not np.all(np.isfinite(factor)) or not np.all(np.isfinite(offset)):
            what = "its bias or batch normalization has NaN or infinite values"
            self._problem(op.name, what, "training diverged: train again at a lower rate")
            return op
        if isinstance(op.layer, FoldedKernel):
            factor = np.ones(channels)  # the codes are those of the folded kernel
        rows, scale = _fold(rows, grid, factor, source, target)
        multiple = prescale(grid.bits, self.stored_bits)
        bias = np.floor(offset * multiple / (float(source.scale) * scale) + 0.5)
        if isinstance(op.layer, FoldedKernel) and op.layer.bias_bits is not None:
            bias = op.layer.integer_bias()
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
            _original_layout(op.kind, rows, codes.shape).astype(np.int8),
            scale,
            bias.astype(np.int32),
            grid.bits,
            multiple,
            trained,
        )
        return dataclasses.replace(op, layer=inner, kernel=kernel)


def channels_last(kind: str, codes: np.ndarray) -> np.ndarray:
    """Codes as (weights per output channel, output channels)."""
    if kind == "Conv2DTranspose":  # (h, w, out, in)
        codes = np.swapaxes(codes, 2, 3)
    channels = codes.shape[-1]
    if codes.ndim == 4 and kind not in ("Conv2D", "Conv2DTranspose"):
        channels *= codes.shape[2]  # depthwise: (h, w, in, multiplier)
    return codes.reshape(-1, channels)


def _original_layout(kind: str, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `_channels_last`."""
    if kind != "Conv2DTranspose":
        return rows.reshape(shape)
    height, width, filters, inputs = shape
    return np.swapaxes(rows.reshape(height, width, inputs, filters), 2, 3)


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


def norm_factors(op: FrozenOp, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """(k, c), float64: the norms of (conv + bias) are k * conv + c, per output channel."""
    factor = np.ones(channels)
    offset = np.zeros(channels) if op.bias is None else op.bias.numpy().astype(np.float64)
    for norm in op.norms:
        own_factor, own_offset = affine(norm, channels)
        factor, offset = own_factor * factor, own_factor * offset + own_offset
    return factor, offset


def _bias(layer: Any) -> Any:
    """The bias variable of a quantized layer, None without one."""
    if not isinstance(layer, QuantizedKernel):
        return None
    return layer.bias if isinstance(layer, FoldedKernel) else layer.layer.bias


def affine(norm: Any, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """(k, c), float64, such that norm(x) = k * x + c."""
    if isinstance(norm, ChannelAffine):
        return norm.scale.numpy().astype(np.float64), norm.offset.numpy().astype(np.float64)
    gamma = norm.gamma.numpy() if norm.scale else np.ones(channels)
    beta = norm.beta.numpy() if norm.center else np.zeros(channels)
    mean = norm.moving_mean.numpy().astype(np.float64)
    variance = norm.moving_variance.numpy().astype(np.float64)
    factor = gamma.astype(np.float64) / np.sqrt(variance + norm.epsilon)
    return factor, beta.astype(np.float64) - factor * mean
