"""A .tflite file written from nothing: tensors, operators, signature. No TensorFlow.

With `flatbuffer` and `model` the only places that know the schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_tools.schema import flatbuffer

SIGNATURE = "serving_default"
_SCHEMA_VERSION = 3
_NUMPY_TYPES = {np.dtype(np.int8): "INT8", np.dtype(np.int32): "INT32"}


class Writer:
    """Collects one graph and turns it into bytes.

    Args:
        description: of the file, for people.
    """

    def __init__(self, description: str) -> None:
        self._graph = schema.SubGraphT()
        self._graph.name, self._graph.tensors, self._graph.operators = "main", [], []
        self._model = schema.ModelT()
        self._model.version, self._model.description = _SCHEMA_VERSION, description
        self._model.operatorCodes, self._model.subgraphs = [], [self._graph]
        self._model.buffers = [schema.BufferT()]  # the empty one of all computed tensors
        self._codes: dict[tuple[str, int], int] = {}
        self._names: set[str] = set()

    def tensor(self, name: str, shape: Sequence[int], dtype: str) -> int:
        """Add a computed tensor.

        Args:
            name: an index is appended where another tensor has this name.
            shape: with the batch axis.
            dtype: "INT8", "INT32" or "FLOAT32".

        Returns:
            The tensor's index.
        """
        made = schema.TensorT()
        made.name, made.shape = self._unique(name), np.asarray(shape, np.int32)
        made.buffer, made.hasRank = 0, True
        flatbuffer.set_type(made, dtype)
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def constant(self, name: str, values: np.ndarray) -> int:
        """Add a constant int8 or int32 tensor; returns its index."""
        index = self.tensor(name, values.shape, _NUMPY_TYPES[values.dtype])
        flatbuffer.set_constant(self._model, self._graph.tensors[index], values)
        return index

    def quantize(self, index: int, scale: Any, zero_point: int, axis: int = 0) -> None:
        """Set the quantization of a tensor; `scale` of one or several values along `axis`."""
        flatbuffer.set_quantization(self._graph.tensors[index], scale, zero_point, axis)

    def name(self, index: int) -> str:
        """The name a tensor has got."""
        return str(self._graph.tensors[index].name)

    def operator(
        self,
        name: str,
        version: int,
        inputs: Sequence[int],
        output: int,
        options: str = "",
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Add an operator behind those that are there.

        Args:
            name: of the builtin operator, "CONV_2D".
            version: of the operator.
            inputs: tensor indices.
            output: index of the tensor it computes.
            options: the schema's table of its options without the ending "Options", "" for none.
            fields: of that table, by the schema's names.

        Raises:
            ValueError: if the table has no field of a name.
        """
        made = schema.OperatorT()
        made.opcodeIndex = self._code(name, version)
        made.inputs, made.outputs = list(inputs), [output]
        if options:
            table = getattr(schema, f"{options}OptionsT")()
            for field, value in (fields or {}).items():
                if not hasattr(table, field):
                    raise ValueError(f"{options}Options has no field {field!r}.")
                setattr(table, field, value)
            made.builtinOptionsType = getattr(schema.BuiltinOptions, f"{options}Options")
            made.builtinOptions = table
        self._graph.operators.append(made)

    def edges(self, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> None:
        """Set the graph's inputs and outputs, tensor indices by the signature's names."""
        self._graph.inputs, self._graph.outputs = list(inputs.values()), list(outputs.values())
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
        signature.inputs, signature.outputs = _tensor_maps(inputs), _tensor_maps(outputs)
        self._model.signatureDefs = [signature]

    def finish(self, metadata: Mapping[str, bytes]) -> bytes:
        """The file's bytes, with metadata buffers by name."""
        for name, data in metadata.items():
            flatbuffer.set_metadata(self._model, name, data)
        return flatbuffer.write(self._model)

    def _code(self, name: str, version: int) -> int:
        if (name, version) not in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, name)
            # Old readers look here; codes beyond a byte have a placeholder.
            code.deprecatedBuiltinCode = min(
                code.builtinCode, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES
            )
            code.version = version
            self._codes[name, version] = len(self._codes)
            self._model.operatorCodes.append(code)
        return self._codes[name, version]

    def _unique(self, name: str) -> str:
        found, number = name, 0
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found


def _tensor_maps(edges: Mapping[str, int]) -> list[Any]:
    maps = []
    for name, index in edges.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        maps.append(entry)
    return maps
