"""TFLite flatbuffers as objects that can be edited: reading, writing, types and metadata.

This room is the only one that knows the schema. No TensorFlow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from tflite_tools.schema import bit_fields, compact

_TYPE_NAMES = {value: name for name, value in vars(schema.TensorType).items() if name.isupper()}
_OP_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
_ACTIVATIONS = {
    value: name for name, value in vars(schema.ActivationFunctionType).items() if name.isupper()
}
# Types of one or more whole bytes; variable-length types have no NumPy equivalent.
_NUMPY_TYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "FLOAT64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
}
_PACKED_BITS = {"INT4": 4, "INT2": 2}


def read(data: bytes) -> Any:
    """The schema's object for a .tflite file.

    Raises:
        ValueError: if `data` is not a complete TFLite model.
    """
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise ValueError("Not a TFLite model: the identifier TFL3 is missing.")
    try:
        model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
        _check(model)
    except Exception as error:  # the generated reader raises whatever a broken offset leads to
        raise ValueError(f"The TFLite model is damaged or cut short ({error}).") from error
    return model


def _check(model: Any) -> None:
    """Follow every reference once, so that a damaged file fails here and not later."""
    if not model.subgraphs:
        raise ValueError("no subgraph")
    for graph in model.subgraphs:
        count = len(graph.tensors)
        for tensor in graph.tensors:
            if not 0 <= tensor.buffer < len(model.buffers):
                raise ValueError(f"tensor {text(tensor.name)!r} has no buffer")
            type_name(tensor)
            if any(size < 0 for size in indices(tensor.shape)):
                raise ValueError(f"tensor {text(tensor.name)!r} has a negative dimension")
        for op in graph.operators or []:
            if not 0 <= op.opcodeIndex < len(model.operatorCodes):
                raise ValueError("an operator has no code")
            used = [*indices(op.inputs), *indices(op.outputs)]
            if any(not -1 <= index < count for index in used):
                raise ValueError("an operator refers to a missing tensor")
        for index in [*indices(graph.inputs), *indices(graph.outputs)]:
            if not 0 <= index < count:
                raise ValueError("the model's inputs or outputs are missing")
        for tensor in graph.tensors:
            constant(model, tensor)


def write(model: Any) -> bytes:
    """The bytes of a model object; what is equal in it is stored once."""
    return compact.write(model)


def text(name: Any) -> str:
    """A name of the flatbuffer as a string; names may be missing."""
    if isinstance(name, bytes):
        return name.decode("utf-8", "replace")
    return "" if name is None else str(name)


def indices(vector: Any) -> list[int]:
    """An index vector of the flatbuffer as a list; vectors may be missing."""
    return [] if vector is None else [int(index) for index in vector]


def type_name(tensor: Any) -> str:
    """Name of a tensor's type, "INT8" for example.

    Raises:
        ValueError: for a type the schema does not know.
    """
    if tensor.type not in _TYPE_NAMES:
        raise ValueError(f"tensor {text(tensor.name)!r} has the unknown type {tensor.type}")
    return _TYPE_NAMES[tensor.type]


def op_name(model: Any, op: Any) -> str:
    """Name of an operator: "CONV_2D", or the custom operator's own name."""
    code = model.operatorCodes[op.opcodeIndex]
    builtin = max(code.builtinCode or 0, code.deprecatedBuiltinCode or 0)
    name = _OP_NAMES.get(builtin, f"UNKNOWN_{builtin}")
    return f"CUSTOM:{text(code.customCode)}" if name == "CUSTOM" else name


def activation_name(op: Any) -> str:
    """The activation fused into an operator, "NONE" if there is none."""
    function = getattr(op.builtinOptions, "fusedActivationFunction", 0)
    return _ACTIVATIONS.get(function, f"UNKNOWN_{function}")


def constant(model: Any, tensor: Any) -> np.ndarray | None:
    """The values of a constant tensor, packed ones as int8; None if it is computed.

    Raises:
        ValueError: if the buffer does not hold as many values as the shape says.
    """
    buffer, kind = model.buffers[tensor.buffer].data, type_name(tensor)
    if buffer is None or len(buffer) == 0:
        return None
    shape = indices(tensor.shape)
    count = int(np.prod(shape, dtype=np.int64))
    data = np.asarray(buffer, np.uint8)
    if kind in _PACKED_BITS:
        try:
            return bit_fields.unpack(data, _PACKED_BITS[kind], count).reshape(shape)
        except ValueError as error:
            raise ValueError(f"tensor {text(tensor.name)!r}, shape {shape}: {error}") from error
    if kind not in _NUMPY_TYPES:
        return None
    values: np.ndarray = np.frombuffer(data.tobytes(), _NUMPY_TYPES[kind])
    if values.size != count:
        raise ValueError(f"tensor {text(tensor.name)!r} has {values.size} values, shape {shape}")
    return values.reshape(shape)


def set_constant(model: Any, tensor: Any, values: np.ndarray) -> None:
    """Give a constant tensor a buffer of its own with `values`, of its type and shape.

    Values of packed types are given as int8.

    Raises:
        ValueError: if type or shape differ, or a value does not fit.
    """
    kind = type_name(tensor)
    expected = np.int8 if kind in _PACKED_BITS else _NUMPY_TYPES.get(kind)
    if values.dtype != expected or list(values.shape) != indices(tensor.shape):
        raise ValueError(
            f"Tensor {text(tensor.name)!r} is {kind} {indices(tensor.shape)}, got "
            f"{values.dtype} {list(values.shape)}."
        )
    if kind in _PACKED_BITS:
        data = bit_fields.pack(values, _PACKED_BITS[kind])
    else:
        data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    _set_buffer(model, tensor, data)


def _set_buffer(model: Any, user: Any, data: np.ndarray) -> None:
    buffer = schema.BufferT()
    buffer.data = data
    model.buffers.append(buffer)
    user.buffer = len(model.buffers) - 1


def set_type(tensor: Any, name: str) -> None:
    """Set a tensor's type; `set_constant` has to follow for a constant."""
    tensor.type = getattr(schema.TensorType, name)


def concatenation(model: Any, inputs: list[int], output: int, axis: int) -> Any:
    """A CONCATENATION operator, with its operator code added where the model has none."""
    wanted = schema.BuiltinOperator.CONCATENATION
    known = [code.builtinCode for code in model.operatorCodes]
    if wanted not in known:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = wanted
        code.version = 1
        model.operatorCodes.append(code)
        known.append(wanted)
    operator = schema.OperatorT()
    operator.opcodeIndex = known.index(wanted)
    operator.inputs, operator.outputs = list(inputs), [output]
    operator.builtinOptionsType = schema.BuiltinOptions.ConcatenationOptions
    operator.builtinOptions = schema.ConcatenationOptionsT()
    operator.builtinOptions.axis = axis
    return operator


def scales(tensor: Any) -> np.ndarray:
    """The scales of a tensor, float32; none without quantization."""
    parameters = tensor.quantization
    missing = parameters is None or parameters.scale is None
    return np.zeros(0, np.float32) if missing else np.asarray(parameters.scale, np.float32)


def set_quantization(tensor: Any, scale: np.ndarray, zero_point: int, axis: int = 0) -> None:
    """Set a tensor's affine quantization; `scale` of one or several values along `axis`."""
    parameters = schema.QuantizationParametersT()
    parameters.scale = np.atleast_1d(np.asarray(scale, np.float32))
    parameters.zeroPoint = np.full(parameters.scale.shape, zero_point, np.int64)
    parameters.quantizedDimension = axis if parameters.scale.size > 1 else 0
    tensor.quantization = parameters


def metadata(model: Any, name: str) -> bytes | None:
    """The metadata buffer called `name`, None if there is none."""
    for entry in model.metadata or []:
        if text(entry.name) == name and 0 <= entry.buffer < len(model.buffers):
            data = model.buffers[entry.buffer].data
            return None if data is None else np.asarray(data, np.uint8).tobytes()
    return None


def set_metadata(model: Any, name: str, data: bytes) -> None:
    """Set the metadata buffer called `name`."""
    others = [entry for entry in model.metadata or [] if text(entry.name) != name]
    entry = schema.MetadataT()
    entry.name = name
    _set_buffer(model, entry, np.frombuffer(data, np.uint8))
    model.metadata = [*others, entry]


def signature(model: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Tensor indices of the inputs and outputs by the names the first signature gives them.

    Two empty mappings if the file has no signature.
    """
    if not model.signatureDefs:
        return {}, {}
    first = model.signatureDefs[0]
    inputs, outputs = (
        {text(entry.name): int(entry.tensorIndex) for entry in edges or []}
        for edges in (first.inputs, first.outputs)
    )
    return inputs, outputs


def drop_unused_buffers(model: Any) -> None:
    """Remove the buffers that no tensor and no metadata refers to; buffer 0 stays, empty."""
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    users = tensors + list(model.metadata or [])
    used = sorted({0, *(user.buffer for user in users)})
    position = {old: new for new, old in enumerate(used)}
    model.buffers = [model.buffers[index] for index in used]
    for user in users:
        user.buffer = position[user.buffer]
