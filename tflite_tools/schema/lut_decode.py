"""Weights that TFLM's DECODE operator makes from indices and tables of values.

`TFLM_DECODE` reads pairs of tensors, packed indices and an ancillary one: 16 bytes of header, then
the tables. Read here as TFLM's kernel does, which takes the number of tables and their axis from
the quantization of the decoded tensor and not from the header: one table on weights with one scale
per channel is wrong, whatever the header says.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tflite_tools.schema import bit_fields, flatbuffer

DECODE_OP = "CUSTOM:TFLM_DECODE"
HEADER_BYTES = 16
_LUT_TYPE, _TYPE, _WIDTH, _STRIDE = 0, 0, 5, 6


@dataclasses.dataclass(frozen=True)
class Decoded:
    """Tensor indices of one decoded tensor: the result, its indices and its tables."""

    output: int
    encoded: int
    ancillary: int


def decoded(container: Any, graph: Any) -> tuple[Decoded, ...]:
    """All tensors that DECODE operators make in a subgraph.

    Raises:
        ValueError: if such an operator does not read pairs.
    """
    found = []
    for operator in graph.operators or []:
        if flatbuffer.op_name(container, operator) != DECODE_OP:
            continue
        inputs = flatbuffer.indices(operator.inputs)
        outputs = flatbuffer.indices(operator.outputs)
        if len(inputs) != 2 * len(outputs) or min([*inputs, *outputs], default=-1) < 0:
            raise ValueError("A TFLM_DECODE operator does not read pairs of tensors.")
        pairs = zip(outputs, inputs[::2], inputs[1::2], strict=True)
        found += [Decoded(*indices) for indices in pairs]
    return tuple(found)


def values(container: Any, graph: Any, entry: Decoded) -> np.ndarray:
    """What TFLM decodes: int8 values of the decoded tensor's shape.

    Raises:
        ValueError: naming the tensor, if it is no table of int8 values, or cut short.
    """
    tensor = graph.tensors[entry.output]
    name = flatbuffer.text(tensor.name) or f"tensor {entry.output}"
    indices = flatbuffer.constant(container, graph.tensors[entry.encoded])
    ancillary = flatbuffer.constant(container, graph.tensors[entry.ancillary])
    if indices is None or ancillary is None or ancillary.dtype != np.uint8:
        raise ValueError(f"{name}: its indices or tables are missing.")
    if ancillary.size < HEADER_BYTES or ancillary[_TYPE] != _LUT_TYPE:
        raise ValueError(f"{name}: only tables of values can be decoded.")
    if flatbuffer.type_name(tensor) != "INT8":
        raise ValueError(f"{name}: only int8 values can be decoded.")
    try:
        return _look_up(tensor, indices, ancillary)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{name}: {error}") from error


def width(container: Any, graph: Any, entry: Decoded) -> int:
    """Bits of an index."""
    ancillary = flatbuffer.constant(container, graph.tensors[entry.ancillary])
    return 0 if ancillary is None or ancillary.size < HEADER_BYTES else int(ancillary[_WIDTH] & 7)


def _look_up(tensor: Any, indices: np.ndarray, ancillary: np.ndarray) -> np.ndarray:
    shape = flatbuffer.indices(tensor.shape)
    stride = int(ancillary[_STRIDE])
    tables = ancillary[HEADER_BYTES:].view(np.int8)
    count = int(np.prod(shape, dtype=np.int64))
    places = bit_fields.unpack_indices(indices, int(ancillary[_WIDTH] & 7), count).reshape(shape)
    scales = flatbuffer.scales(tensor)
    if len(scales) > 1:
        axis = int(tensor.quantization.quantizedDimension)
        across = [1] * len(shape)
        across[axis] = shape[axis]
        places = places + stride * np.arange(shape[axis]).reshape(across)
    found: np.ndarray = tables[places]
    return found
