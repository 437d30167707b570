"""A kernel as sums over input channels: what constant channels add to them, and when exactly."""

from __future__ import annotations

import dataclasses

import numpy as np

from tflite_tools.arithmetic import fixed_point, geometry, multipliers
from tflite_tools.arithmetic.lookup_tables import Grid
from tflite_tools.pruning.relations import channels, usable
from tflite_tools.schema import file_layout
from tflite_tools.schema.contents import Graph, Op, Tensor

VARIES = 2**15 - 1  # stands for a channel that is not the same number for every input
_GROUPED = ("CONV_2D", "DEPTHWISE_CONV_2D")
_MOST = 2**30  # sums and biases below it are int32 with room to spare


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """An operator with weights that no other operator reads.

    Attributes:
        op: the operator.
        source: its activations.
        output: what it computes.
        weights: as stored, int64, (output channels, taps, input channels of a group).
        scales: of the weights, float32, one or one per output channel.
        bias: int64, (output channels,); zeros if the file has none.
        has_bias: whether the file has one.
        bordered: whether some outputs see a part of the filter only.
    """

    op: Op
    source: Tensor
    output: Tensor
    weights: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    has_bias: bool
    bordered: bool

    @property
    def groups(self) -> int:
        """Groups of channels: each output channel reads the input channels of its group. A
        depthwise kernel has one for each input channel."""
        return channels(self.source) // self.weights.shape[2]

    @property
    def mixes(self) -> bool:
        """Whether each output channel reads all input channels, of which any may be left out."""
        return self.groups == 1 and self.op.name != "DEPTHWISE_CONV_2D"

    def read(self) -> np.ndarray:
        """The input channels that each output channel reads: int64, (output channels, input
        channels of a group)."""
        numbers = np.arange(channels(self.source)).reshape(self.groups, -1)
        return np.repeat(numbers, len(self.bias) // self.groups, axis=0)

    def foldable(self, values: np.ndarray) -> np.ndarray:
        """The input channels that add the same to every position of an output; bool.

        Args:
            values: the constant channels' stored values, `VARIES` for the others; int16.
        """
        return values == grid(self.source)[1] if self.bordered else values != VARIES

    def added(self, values: np.ndarray) -> np.ndarray:
        """What foldable input channels add to the sums, int64, (output channels, input channels
        of a group)."""
        above = np.where(self.foldable(values), values.astype(np.int64) - grid(self.source)[1], 0)
        return self.weights.sum(axis=1) * self._values(above)

    def constants(self, values: np.ndarray) -> np.ndarray:
        """The output channels' stored values if they are constant, else `VARIES`; int16."""
        varies = np.any(self.weights.any(axis=1) & self._values(~self.foldable(values)), axis=1)
        sums = self.bias + self.added(values).sum(axis=1)
        (scale, zero_point), taken = grid(self.output), grid(self.source)[0]
        low, high = fixed_point.activation_limits(self.op.activation, scale, zero_point)
        made = np.full(len(sums), VARIES, np.int16)
        for channel in np.flatnonzero(~varies & (np.abs(sums) < _MOST)):
            own = self.scales[channel if self.scales.size > 1 else 0]
            (factor,) = multipliers.kernel(own, taken, scale)
            stored = fixed_point.scale(int(sums[channel]), *factor) + zero_point
            made[channel] = fixed_point.clamp(stored, low, high)
        return made

    def fits(self) -> bool:
        """Whether biases stay int32 whatever is added to them."""
        most = np.abs(self.bias) + 255 * np.abs(self.weights).sum(axis=(1, 2))
        return bool(np.all(most < _MOST))

    def _values(self, own: np.ndarray) -> np.ndarray:
        """What input channels have, for each output channel that reads them."""
        return own[None] if self.groups == 1 else own[self.read()]


def grid(tensor: Tensor) -> Grid:
    """Scale and zero point of an activation."""
    assert tensor.quantization is not None
    return np.float32(tensor.quantization.scale[0]), int(tensor.quantization.zero_point[0])


def of_operator(graph: Graph, op: Op) -> Kernel | None:
    """The kernel of an operator; None if it is of a form that is left as it is."""
    place = 2 if op.name == "TRANSPOSE_CONV" else 0
    if len(op.inputs) < place + 1 or min(op.inputs[:2]) < 0 or len(op.outputs) != 1:
        return None
    source, output = graph.tensors[op.inputs[place]], graph.tensors[op.outputs[0]]
    rows = _rows(graph, op)
    if rows is None or source.data is not None or not (usable(source) and usable(output)):
        return None
    groups, rest = divmod(channels(source), rows.shape[2])
    whole = groups == 1 or (op.name in _GROUPED and groups > 1 and len(rows) % groups == 0)
    scales = _scales(graph.tensors[op.inputs[1]], op, len(rows))
    bias = _bias(graph, op, len(rows))
    fits = whole and not rest and len(rows) == channels(output)
    if not fits or scales is None or bias is None:
        return None
    return Kernel(
        op=op,
        source=source,
        output=output,
        weights=rows,
        scales=scales,
        bias=bias,
        has_bias=file_layout.bias_index(op) is not None,
        bordered=_bordered(op, source, output, graph.tensors[op.inputs[1]]),
    )


def channel_axis(op: Op) -> int:
    """Where an operator's weights have its output channels."""
    return 3 if op.name == "DEPTHWISE_CONV_2D" else 0


def _rows(graph: Graph, op: Op) -> np.ndarray | None:
    """The weights by output channel, tap and input channel, if nothing else reads them."""
    data, rank = graph.tensors[op.inputs[1]].data, 2 if op.name == "FULLY_CONNECTED" else 4
    uses = sum(own.inputs.count(op.inputs[1]) for own in graph.ops)
    known = op.activation in fixed_point.ACTIVATIONS and not op.options.get("weightsFormat")
    if data is None or data.dtype != np.int8 or data.ndim != rank or uses != 1 or not known:
        return None
    rows = np.moveaxis(data.astype(np.int64), channel_axis(op), 0)
    depth = 1 if op.name == "DEPTHWISE_CONV_2D" else data.shape[-1]
    return rows.reshape(len(rows), -1, depth)


def _scales(tensor: Tensor, op: Op, count: int) -> np.ndarray | None:
    own = tensor.quantization
    if own is None or own.scale.size not in (1, count) or np.any(own.zero_point):
        return None
    return own.scale if own.scale.size == 1 or own.axis == channel_axis(op) else None


def _bias(graph: Graph, op: Op, count: int) -> np.ndarray | None:
    index = file_layout.bias_index(op)
    if index is None:
        return np.zeros(count, np.int64)
    data = graph.tensors[index].data
    if data is None or data.dtype != np.int32 or data.size != count:
        return None
    return data.astype(np.int64).reshape(-1)


def _bordered(op: Op, source: Tensor, output: Tensor, weights: Tensor) -> bool:
    if op.name == "FULLY_CONNECTED":
        return False
    if op.name == "TRANSPOSE_CONV":
        return True
    own = op.options
    return not all(
        geometry.never_leaves(
            source.shape[axis],
            weights.shape[axis],
            own.get(f"stride{letter}", 1),
            own.get(f"dilation{letter}Factor", 1),
            output.shape[axis],
        )
        for axis, letter in ((1, "H"), (2, "W"))
    )
