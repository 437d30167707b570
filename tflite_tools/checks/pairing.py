"""Two files of the same network, operator by operator: the canonical file and one made from it.

This works without names. Changes that formats may make are undone here: DECODE operators before a
kernel, and a convolution that is split over its output channels and joined by a CONCATENATION.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tflite_tools.schema import file_layout
from tflite_tools.schema.contents import Graph, Model, Op, Quantization, Tensor

KERNEL_OPS = file_layout.KERNEL_OPS
_DECODE = "CUSTOM:TFLM_DECODE"
_WEIGHTS = 1
_BIAS = {"TRANSPOSE_CONV": 3}


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """One operator with weights.

    Attributes:
        name: of its output tensor.
        op: name of the operator.
        weights: as integers, unpacked and decoded.
        scale: float32, one value or one for each output channel.
        axis: channel axis of `weights`.
        bias: int32, None without a bias.
        output: tensor index of what it computes.
        input: tensor index of the activations it reads.
        options: strides, padding and the like, by the schema's names.
        storage: type of the stored weights: INT8, INT4, or LUT and the bits of an index.
    """

    name: str
    op: str
    weights: np.ndarray
    scale: np.ndarray
    axis: int
    bias: np.ndarray | None
    output: int
    input: int
    options: Mapping[str, Any]
    storage: str

    @property
    def real(self) -> np.ndarray:
        """The weights as numbers, exact in float64."""
        scale = self.scale.astype(np.float64)
        shape = [1] * self.weights.ndim
        shape[self.axis] = -1
        return self.weights * (scale.reshape(shape) if scale.size > 1 else scale)

    @property
    def channels(self) -> int:
        """The number of its output channels."""
        return int(self.weights.shape[self.axis])


@dataclasses.dataclass(frozen=True, eq=False)
class Pairing:
    """The parts of two files that belong together.

    Attributes:
        kernels: (canonical, other), in the order they run.
        tensors: index of a canonical activation -> index of the other file's.
        split: names of the convolutions that the other file splits.
    """

    kernels: tuple[tuple[Kernel, Kernel], ...]
    tensors: dict[int, int]
    split: tuple[str, ...]


def kernel(graph: Graph, op: Op) -> Kernel:
    """The kernel of an operator.

    Raises:
        ValueError: naming the tensor, if its weights are not integers with scales.
    """
    place = op.inputs[_WEIGHTS] if len(op.inputs) > _WEIGHTS else -1
    source = 2 if op.name == "TRANSPOSE_CONV" else 0
    name = label(graph, op)
    if not op.outputs or len(op.inputs) <= source:
        raise ValueError(f"{name}: has no output or no input.")
    if place < 0 or graph.tensors[place].data is None or graph.tensors[place].quantization is None:
        raise ValueError(f"{name}: the weights are no constant with a scale.")
    tensor = graph.tensors[place]
    data, parameters = tensor.data, tensor.quantization
    assert data is not None and parameters is not None
    if data.dtype != np.int8 or data.ndim < 2:
        raise ValueError(f"{name}: the weights are {tensor.dtype}, not INT8 or INT4.")
    axis = 3 if op.name == "DEPTHWISE_CONV_2D" and data.ndim == 4 else 0
    per_channel = parameters.scale.size > 1
    if per_channel and (parameters.axis, parameters.scale.size) != (axis, data.shape[axis]):
        raise ValueError(f"{name}: the scales do not fit the weights.")
    return Kernel(
        name=name,
        op=op.name,
        weights=data,
        scale=parameters.scale,
        axis=axis,
        bias=_bias(graph, op),
        output=op.outputs[0],
        input=op.inputs[source],
        options=op.options,
        storage=_storage(graph, tensor),
    )


def _bias(graph: Graph, op: Op) -> np.ndarray | None:
    place = _BIAS.get(op.name, 2)
    if place >= len(op.inputs) or op.inputs[place] < 0:
        return None
    return graph.tensors[op.inputs[place]].data


def _storage(graph: Graph, tensor: Tensor) -> str:
    widths = {entry.output: entry.bits for entry in graph.encoded}
    return f"LUT{widths[tensor.index]}" if tensor.index in widths else tensor.dtype


def label(graph: Graph, op: Op) -> str:
    """The name of an operator in messages: its output, or its place if names are dropped."""
    made = graph.made(op)
    return (made[0].name if made else "") or f"{op.name} {op.index}"


def pair(canonical: Model, other: Model) -> Pairing:
    """Walk two files in step.

    Args:
        canonical: the file with one operator for each kernel.
        other: made from it, perhaps with DECODE operators, split convolutions, without names.

    Raises:
        ValueError: naming the operator of `canonical` at which they diverge.
    """
    ours, theirs = canonical.main, other.main
    for graph in (ours, theirs):
        for op in graph.ops:
            if not op.outputs:
                raise ValueError(f"{label(graph, op)}: has no output.")
    tensors = _edges(ours, theirs)
    rest = [op for op in theirs.ops if op.name != _DECODE]
    kernels, split = [], []
    for op in ours.ops:
        name = label(ours, op)
        if op.name == _DECODE:
            continue
        if op.name in KERNEL_OPS:
            mine = kernel(ours, op)
            parts, rest = _take(mine, theirs, rest, name)
            whole = _joined(parts)
            if len(parts) > 1:
                joint, rest = rest[0], rest[1:]
                whole = dataclasses.replace(whole, output=joint.outputs[0])
                split.append(name)
            kernels.append((mine, whole))
            _match(name, tensors, [mine.input], [whole.input])
            _note(tensors, [mine.output], [whole.output])
            continue
        twin = rest[0] if rest else None
        if twin is None or twin.name != op.name:
            raise ValueError(f"{name}: {op.name} has no counterpart.")
        _match_options(name, op.options, twin.options)
        rest = rest[1:]
        _match(name, tensors, _computed(ours, op), _computed(theirs, twin))
        _note(tensors, op.outputs, twin.outputs)
    if rest:
        raise ValueError(f"{label(theirs, rest[0])}: the operator is not in the canonical file.")
    _match("the outputs", tensors, list(ours.outputs), list(theirs.outputs))
    return Pairing(tuple(kernels), tensors, tuple(split))


def _edges(ours: Graph, theirs: Graph) -> dict[int, int]:
    if len(ours.inputs) != len(theirs.inputs) or len(ours.outputs) != len(theirs.outputs):
        raise ValueError("The files have other numbers of inputs or outputs.")
    return dict(zip(ours.inputs, theirs.inputs, strict=True))


def _computed(graph: Graph, op: Op) -> list[int]:
    return [index for index in op.inputs if index >= 0 and graph.tensors[index].data is None]


def _match(name: str, tensors: dict[int, int], mine: list[int], theirs: list[int]) -> None:
    if [tensors.get(index) for index in mine] != theirs:
        raise ValueError(f"{name}: is connected in another way.")


def _match_options(name: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Strides, padding, fused activations and the like."""
    for field in sorted({*mine, *theirs}):
        wanted, found = mine.get(field), theirs.get(field)
        if not np.array_equal(np.asarray(wanted), np.asarray(found)):
            raise ValueError(f"{name}: {field} is {found}, not {wanted}.")


def _note(
    tensors: dict[int, int], mine: tuple[int, ...] | list[int], theirs: tuple[int, ...] | list[int]
) -> None:
    tensors.update(zip(mine, theirs, strict=False))


def _take(mine: Kernel, graph: Graph, rest: list[Op], name: str) -> tuple[list[Kernel], list[Op]]:
    """The next kernels until they have as many channels as `mine`, and the operators behind."""
    parts: list[Kernel] = []
    channels = 0
    while channels < mine.channels:
        if not rest or rest[0].name != mine.op:
            raise ValueError(f"{name}: {mine.op} has no counterpart.")
        _match_options(name, mine.options, rest[0].options)
        parts.append(kernel(graph, rest[0]))
        channels += parts[-1].channels
        rest = rest[1:]
    if channels != mine.channels or parts[0].weights.shape[1:3] != mine.weights.shape[1:3]:
        raise ValueError(f"{name}: the weights have another shape.")
    if len(parts) > 1:
        joint = rest[0] if rest else None
        made = tuple(part.output for part in parts)
        if joint is None or joint.name != "CONCATENATION" or joint.inputs != made:
            raise ValueError(f"{name}: its parts are not put together.")
        if len({part.input for part in parts}) > 1:
            raise ValueError(f"{name}: its parts read different inputs.")
    return parts, rest


def _joined(parts: list[Kernel]) -> Kernel:
    first = parts[0]
    if len(parts) == 1:
        return first
    scales = [np.broadcast_to(part.scale, part.channels) for part in parts]
    biases = [part.bias for part in parts if part.bias is not None]
    return dataclasses.replace(
        first,
        weights=np.concatenate([part.weights for part in parts], axis=first.axis),
        scale=np.concatenate(scales),
        bias=np.concatenate(biases) if len(biases) == len(parts) else None,
    )


def same_grid(first: Quantization | None, second: Quantization | None) -> bool:
    """Whether two tensors store numbers in the same way."""
    if first is None or second is None:
        return first is second
    return np.array_equal(first.scale, second.scale) and np.array_equal(
        np.broadcast_to(first.zero_point, first.scale.shape),
        np.broadcast_to(second.zero_point, second.scale.shape),
    )
