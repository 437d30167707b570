"""Convolutions split over their output channels, so that fewer weights are decoded at a time."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_tools.schema import codes, flatbuffer

MOST_PARTS = 10  # inputs of TFLM's CONCATENATION
_CHANNEL_AXIS = 3


def is_part(name: str, tensor: str) -> bool:
    """Whether `name` is that of a part of a split weight tensor."""
    return re.fullmatch(re.escape(tensor) + r"/part\d+", name) is not None


def split_convolutions(
    container: Any, tensors: Sequence[str], *, most_bytes: int
) -> tuple[str, ...]:
    """Split, in place, every CONV_2D whose weights take more than `most_bytes` as int8.

    Args:
        container: the file; biases, scales and results are split alike, nothing is computed anew.
        tensors: names of the weight tensors to look at.
        most_bytes: bound for the weights of a part.

    Returns:
        A line for each operator of another kind that stays above the bound.

    Raises:
        ValueError: naming the tensor, if one channel alone is above the bound, or more parts would
            be needed than CONCATENATION takes.
    """
    notes = []
    (graph,) = container.subgraphs
    operators = []
    for operator in graph.operators:
        name = _name(graph, operator)
        size = _size(graph, operator) if name in tensors else 0
        kind = flatbuffer.op_name(container, operator)
        if size <= most_bytes:
            operators.append(operator)
        elif kind != "CONV_2D" or _is_grouped(graph, operator):
            what = "only CONV_2D without groups can be split"
            notes.append(f"{name}: {size} bytes are decoded at once, {what}")
            operators.append(operator)
        else:
            operators += _parts(container, graph, operator, most_bytes)
    graph.operators = operators
    flatbuffer.drop_unused_buffers(container)
    return tuple(notes)


def _name(graph: Any, operator: Any) -> str:
    inputs = flatbuffer.indices(operator.inputs)
    return flatbuffer.text(graph.tensors[inputs[1]].name) if len(inputs) > 1 else ""


def _size(graph: Any, operator: Any) -> int:
    shape = flatbuffer.indices(graph.tensors[int(operator.inputs[1])].shape)
    return int(np.prod(shape, dtype=np.int64))


def _is_grouped(graph: Any, operator: Any) -> bool:
    """Whether a convolution's filters do not see all input channels."""
    inputs, weights = (graph.tensors[int(index)].shape for index in operator.inputs[:2])
    return int(inputs[_CHANNEL_AXIS]) != int(weights[_CHANNEL_AXIS])


def _parts(container: Any, graph: Any, operator: Any, most_bytes: int) -> list[Any]:
    """The convolutions that replace one, and what puts their results together."""
    name = _name(graph, operator)
    channels = flatbuffer.indices(graph.tensors[int(operator.inputs[1])].shape)[0]
    one = _size(graph, operator) // channels
    step = most_bytes // one
    count = 0 if step == 0 else -(-channels // step)
    if step == 0 or count > MOST_PARTS:
        least = max(one, one * -(-channels // MOST_PARTS))
        raise ValueError(
            f"{name}: cannot be split into parts of {most_bytes} bytes; "
            f"at most {MOST_PARTS} parts are possible, so --split_convs {least} or more."
        )
    bounds = np.linspace(0, channels, count + 1).astype(int)
    pairs = list(itertools.pairwise(bounds))
    pieces = [
        _pieces(container, graph, int(index), pairs, axis)
        for index, axis in zip([*operator.inputs[1:], operator.outputs[0]], (0, 0, 3), strict=True)
    ]
    made = []
    for weights, bias, output in zip(*pieces, strict=True):
        part = copy.copy(operator)
        part.inputs, part.outputs = [int(operator.inputs[0]), weights, bias], [output]
        made.append(part)
    joint = flatbuffer.concatenation(container, pieces[2], int(operator.outputs[0]), _CHANNEL_AXIS)
    return [*made, joint]


def _pieces(
    container: Any, graph: Any, index: int, pairs: list[tuple[int, int]], axis: int
) -> list[int]:
    """Indices of a tensor's parts; a constant becomes its own first part: none is left over."""
    if index < 0:
        return [-1] * len(pairs)
    whole = graph.tensors[index]
    values = flatbuffer.constant(container, whole)
    name, shape = flatbuffer.text(whole.name), flatbuffer.indices(whole.shape)
    found = []
    for number, (start, stop) in enumerate(pairs):
        part = copy.copy(whole)
        part.name = codes.part_name(name, number)
        part.shape = [*shape[:axis], int(stop - start), *shape[axis + 1 :]]
        part.shapeSignature = None
        _slice_quantization(part, whole, start, stop)
        if values is not None:
            flatbuffer.set_constant(container, part, np.ascontiguousarray(values[start:stop]))
        if number == 0 and values is not None:
            graph.tensors[index] = part
            found.append(index)
        else:
            graph.tensors.append(part)
            found.append(len(graph.tensors) - 1)
    return found


def _slice_quantization(part: Any, whole: Any, start: int, stop: int) -> None:
    scales = flatbuffer.scales(whole)
    if len(scales) > 1:
        axis = int(whole.quantization.quantizedDimension)
        flatbuffer.set_quantization(part, scales[start:stop], 0, axis)
