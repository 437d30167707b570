"""Writing a flatbuffer in which equal vectors, strings and tables exist once.

The format allows several references to one place; the stock writers make a copy for each, of which
zero points are the most: eight bytes for every channel of every kernel and bias. Buffers are
aligned to 16 bytes, as the schema asks and the stock Python writer does not.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable
from typing import Any

import flatbuffers
import numpy as np

_ALIGNMENT = 16
_IDENTIFIER = b"TFL3"
# Fields that the generated classes write value by value if they are lists.
_INT32_FIELDS = ("shape", "shapeSignature", "inputs", "outputs", "intermediates")


class _Builder(flatbuffers.Builder):
    """Remembers what it has written."""

    def __init__(self) -> None:
        super().__init__(1024)
        self.written: dict[Hashable, int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802
        """The vector's place; an equal vector that is already there is reused."""
        key = (x.dtype.str, x.tobytes())
        if key not in self.written:
            if x.dtype == np.uint8 and x.size:
                self.written[key] = self._aligned(x)
            else:
                self.written[key] = super().CreateNumpyVector(x)
        return self.written[key]

    def CreateString(self, s: Any, encoding: str = "utf-8", errors: str = "strict") -> int:  # noqa: N802
        """The string's place, likewise."""
        key = ("text", s if isinstance(s, bytes) else s.encode(encoding, errors))
        if key not in self.written:
            self.written[key] = super().CreateString(s, encoding, errors)
        return self.written[key]

    def _aligned(self, x: np.ndarray) -> int:
        self.StartVector(1, x.size, _ALIGNMENT)
        self.head: int = self.head - x.size
        self.Bytes[self.head : self.head + x.size] = x.tobytes()
        self.vectorNumElems = x.size
        return self.EndVector()


class _Shared:
    """A table that is written once for all equal tables."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def Pack(self, builder: _Builder) -> int:  # noqa: N802
        """The table's place."""
        key = ("table", _content(self._table))
        if key not in builder.written:
            builder.written[key] = self._table.Pack(builder)
        return builder.written[key]


def _content(value: Any) -> Hashable:
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.tobytes())
    if isinstance(value, (list, tuple)):
        return tuple(_content(item) for item in value)
    if hasattr(value, "__dict__"):
        fields = tuple((name, _content(item)) for name, item in sorted(vars(value).items()))
        return (type(value).__name__, fields)
    return value  # type: ignore[no-any-return]


def write(model: Any) -> bytes:
    """The bytes of a model object, everything equal written once; the object stays as it is."""
    shared = copy.copy(model)
    shared.subgraphs = [_graph(graph) for graph in model.subgraphs]
    builder = _Builder()
    builder.Finish(shared.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _graph(graph: Any) -> Any:
    made = _vectors(graph)
    made.tensors = [_tensor(tensor) for tensor in graph.tensors]
    made.operators = [_operator(operator) for operator in graph.operators or []]
    return made


def _tensor(tensor: Any) -> Any:
    made = _vectors(tensor)
    if made.quantization is not None:
        made.quantization = _Shared(made.quantization)
    return made


def _operator(operator: Any) -> Any:
    made = _vectors(operator)
    if made.builtinOptions is not None:
        made.builtinOptions = _Shared(made.builtinOptions)
    return made


def _vectors(table: Any) -> Any:
    """A copy with index vectors as arrays, which `_Builder` can share."""
    made = copy.copy(table)
    for name in _INT32_FIELDS:
        value = getattr(made, name, None)
        if value is not None:
            setattr(made, name, np.asarray(value, np.int32))
    return made
