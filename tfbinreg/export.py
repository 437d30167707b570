"""Frozen graph -> canonical int8 .tflite bytes.

The stock TFLiteConverter turns a graph of 8-bit fake-quant ops into the operators, shapes, padding
and fused activations. It is given placeholder weights: every number in the file (weights, biases,
scales, zero points) is then written here from the frozen graph, and the file is read back and
compared with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.emit import emit, is_identity
from tfbinreg.freeze import FrozenGraph, FrozenOp, freeze
from tfbinreg.version import __version__
from tflite_tools import codes as file_codes
from tflite_tools import flatbuffer, manifest

INPUT_TYPES = {"int8": tf.int8, "float32": tf.float32}


def to_tflite(model: Any, *, input_type: str = "int8") -> bytes:
    """Convert a trained quantized model to a TFLite file of integer operators.

    Weights are stored as int8 codes times the pre-scale (32, 16, 8 for 2, 3, 4 bits), biases as
    int32, b-bit activations in the top 2^b values of int8. The file carries a manifest: layers,
    bits, recipe, library versions, SHA-256 of the codes.

    Args:
        model: a trained model from `quantize_apply`.
        input_type: "int8", or "float32" for a file that quantizes its inputs and dequantizes its
            outputs itself.

    Returns:
        The file's bytes; inputs and outputs have batch size 1.

    Raises:
        ValueError: if the model has no exact integer form, listing every layer that stands in the
            way.
        RuntimeError: if the converter made a graph that does not hold the frozen codes.
    """
    if input_type not in INPUT_TYPES:
        raise ValueError(f"input_type must be one of {', '.join(INPUT_TYPES)}, got {input_type!r}.")
    frozen = freeze(model)
    converter = stock_converter(model, frozen, input_type)
    container = flatbuffer.read(converter.convert())
    entries = _write_numbers(container, frozen)
    header = manifest.Manifest(
        versions={"tfbinreg": __version__, **_compat.versions()},
        recipe=json.loads(model.recipe.to_json()),
        **entries,
    )
    flatbuffer.set_metadata(container, manifest.METADATA_NAME, header.to_json().encode())
    flatbuffer.drop_unused_buffers(container)
    data = flatbuffer.write(container)
    _check(data, frozen)
    return data


def stock_converter(model: Any, frozen: FrozenGraph, input_type: str) -> Any:
    """The stock TFLiteConverter of a traced graph of fake-quant operations.

    What it converts has placeholder numbers, and names that tell the operations.

    Args:
        model: the quantized model.
        frozen: the same, frozen.
        input_type: a key of `INPUT_TYPES`.
    """
    shapes = [tf.TensorSpec([1, *tensor.shape[1:]], tf.float32) for tensor in model.inputs]
    module = tf.Module()

    # Without autograph, which is slow and has nothing to do: no branch hangs on a tensor.
    @tf.function(input_signature=shapes, autograph=False)
    def run(*inputs: tf.Tensor) -> list[tf.Tensor]:
        given = dict(zip(frozen.inputs, inputs, strict=True))
        tensors: list[tf.Tensor] = []
        for index, op in enumerate(frozen.ops):
            with tf.name_scope(_scope(index)):
                taken = [tensors[i] for i in op.inputs] or [given[index]]
                tensors.append(emit(op, taken, np.random.default_rng(index)))
        return [tensors[index] for index in frozen.outputs]

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [run.get_concrete_function()], module
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = INPUT_TYPES[input_type]
    converter.inference_output_type = INPUT_TYPES[input_type]
    return converter


def _scope(index: int) -> str:
    return f"op{index}"


def _write_numbers(container: Any, frozen: FrozenGraph) -> dict[str, Any]:
    """Overwrite the placeholders; returns the manifest's entries."""
    (graph,) = container.subgraphs
    layers: list[manifest.LayerEntry] = []
    fixed: list[manifest.LayerEntry] = []
    activations: dict[int, manifest.ActivationEntry] = {}
    for operator in graph.operators:
        for output in operator.outputs:
            tensor = graph.tensors[output]
            op = _frozen_op(frozen, tensor)
            if op is None or flatbuffer.type_name(tensor) != "INT8":
                continue
            _write_activation(tensor, op, int(output), activations)
            if op.kernel is not None:
                entry = _write_kernel(container, graph, operator, op, frozen)
                (layers if op.kernel.trained else fixed).append(entry)
    for index in graph.inputs:
        tensor = graph.tensors[int(index)]
        op = _frozen_op(frozen, tensor)
        if op is not None and flatbuffer.type_name(tensor) == "INT8":
            _write_activation(tensor, op, int(index), activations)
    _order_edges(container, graph, frozen)
    return {
        "layers": tuple(layers),
        "activations": tuple(activations.values()),
        "fixed": tuple(fixed),
    }


def _order_edges(container: Any, graph: Any, frozen: FrozenGraph) -> None:
    """Put the file's inputs and outputs in the model's order, which the converter does not keep."""
    inner = {}  # a float32 edge tensor -> the int8 tensor it is quantized to or dequantized from
    for operator in graph.operators:
        name = flatbuffer.op_name(container, operator)
        if name == "QUANTIZE":
            inner[int(operator.inputs[0])] = int(operator.outputs[0])
        elif name == "DEQUANTIZE":
            inner[int(operator.outputs[0])] = int(operator.inputs[0])

    def ordered(edge: Sequence[int], wanted: tuple[int, ...]) -> list[int]:
        position = {_written_by(frozen, index): place for place, index in enumerate(wanted)}
        names = {i: flatbuffer.text(graph.tensors[inner.get(i, i)].name) for i in map(int, edge)}
        return sorted(names, key=lambda index: position[names[index]])

    graph.inputs = ordered(graph.inputs, frozen.inputs)
    graph.outputs = ordered(graph.outputs, frozen.outputs)


def _written_by(frozen: FrozenGraph, index: int) -> str:
    """Name of the operation whose tensor holds the result of operation `index`."""
    while is_identity(frozen.ops[index]):
        index = frozen.ops[index].inputs[0]
    return frozen.ops[index].name


def _frozen_op(frozen: FrozenGraph, tensor: Any) -> FrozenOp | None:
    """The operation whose output a tensor is: the last one named in the first part of its name.

    The converter names all operations that it has fused into one; behind ";;" stand others with
    which it shares a constant.
    """
    parts = flatbuffer.text(tensor.name).split(";;")
    found = next(filter(None, (re.findall(r"\bop(\d+)/", part) for part in parts)), None)
    return frozen.ops[max(int(index) for index in found)] if found else None


def _write_activation(
    tensor: Any, op: FrozenOp, index: int, entries: dict[int, manifest.ActivationEntry]
) -> None:
    grid = op.grid
    assert grid is not None
    tensor.name = op.name
    flatbuffer.set_quantization(tensor, grid.scale, grid.zero_point)
    entries[index] = manifest.ActivationEntry(
        op.name, grid.bits, grid.qmin, grid.qmax, grid.zero_point
    )


def _write_kernel(
    container: Any, graph: Any, operator: Any, op: FrozenOp, frozen: FrozenGraph
) -> manifest.LayerEntry:
    kernel, source = op.kernel, frozen.ops[op.inputs[0]].grid
    if kernel is None or source is None:
        raise RuntimeError(f"{op.name} has been frozen without a kernel or an input grid.")
    # TRANSPOSE_CONV takes its output shape first and its activations between weights and bias.
    places = (1, 3) if op.kind == "Conv2DTranspose" else (1, 2)
    weights, bias = (graph.tensors[int(operator.inputs[place])] for place in places)
    weights.name, bias.name = f"{op.name}/kernel", f"{op.name}/bias"
    scaled = (kernel.codes.astype(np.int16) * kernel.prescale).astype(np.int8)
    stored = file_codes.to_tflite_layout(op.kind, scaled)
    flatbuffer.set_constant(container, weights, stored.reshape(flatbuffer.indices(weights.shape)))
    weight_scale = (kernel.scale / np.float32(kernel.prescale)).astype(np.float32)
    flatbuffer.set_quantization(
        weights, weight_scale, 0, 3 if op.kind in file_codes.DEPTHWISE else 0
    )
    flatbuffer.set_constant(container, bias, kernel.bias)
    flatbuffer.set_quantization(bias, source.scale * weight_scale, 0)
    return manifest.LayerEntry(
        name=op.name,
        kind=op.kind,
        tensor=weights.name,
        bits=kernel.bits,
        prescale=kernel.prescale,
        shape=kernel.codes.shape,
        sha256=manifest.codes_digest(kernel.codes),
    )


def _check(data: bytes, frozen: FrozenGraph) -> None:
    """Compare the file's codes with the frozen graph's."""
    stored = file_codes.read_codes(data)
    wrong = [
        name
        for name, kernel in frozen.trained_kernels().items()
        if name not in stored or not np.array_equal(stored[name], kernel.codes)
    ]
    if wrong:
        raise RuntimeError(f"The converter lost the codes of: {', '.join(wrong)}.")
