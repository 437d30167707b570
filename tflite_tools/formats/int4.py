"""INT4 weights: two codes a byte, for layers of 4 bits and fewer.

The canonical file stores code * P with scale / P, where b-bit codes times P = 2^(7 - b) fill int8.
Of that, INT4 holds an eighth: stored values are divided by r, the smallest power of two with which
they fit, and the scale is multiplied by r, which float32 does exactly, so every weight stays the
same number and the multiplier keeps its mantissa. The accumulator, and with it the grid of the
biases, becomes r times coarser: biases are rounded to it. `variant` bounds what follows from that.
With the recipe's `stored_bits` of 4 the canonical file already holds what INT4 does, and r is 1.

Operators keep their versions: readers take INT4 with the old ones, and the reference kernels of
LiteRT have no later DEPTHWISE_CONV_2D than version 6.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tflite_tools.formats.result import RUNTIMES, Result, checked
from tflite_tools.schema import contents as models
from tflite_tools.schema import flatbuffer, manifest
from tflite_tools.schema.contents import Model
from tflite_tools.schema.manifest import LayerEntry

MOST_BITS = 4
_LOW, _HIGH = -8, 7
_OPS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
_BIAS = 2


def convert(model: Model, *, target: str = "any") -> Result:
    """Pack the weights of layers of 4 bits and fewer.

    Args:
        model: the canonical file.
        target: "any" and "tflm" leave FULLY_CONNECTED weights with different scales per channel as
            int8, which TFLM refuses as INT4; "litert" packs them.

    Raises:
        ValueError: if the file has no manifest, no layer can be packed, the target cannot run INT4,
            or the result is not the canonical network.
    """
    packed, warnings = encode(model, target=target)
    return checked(packed, model, runtimes=RUNTIMES[target], warnings=warnings)


def encode(model: Model, *, target: str = "any") -> tuple[Model, list[str]]:
    """The file of `convert` before it is compared, and warnings.

    Raises:
        ValueError: as `convert`, but for the comparison.
    """
    if target not in RUNTIMES:
        raise ValueError(f"INT4 weights do not run on {target}: its compiler needs the int8 file.")
    header, container = model.require_manifest(), flatbuffer.read(model.data)
    warnings: list[str] = []
    entries: list[LayerEntry] = []
    count = 0
    for entry in header.layers:
        why = _obstacle(container, entry, target) if entry.bits <= MOST_BITS else ""
        if why:
            warnings.append(f"{entry.name}: left int8, {why}")
        packed = entry.bits <= MOST_BITS and not why
        count += packed
        entries.append(_pack(container, entry) if packed else entry)
    if count == 0:
        reasons = "; ".join(warnings) or "all layers have more than 4 bits"
        raise ValueError(f"No layer can be stored as INT4 ({reasons}).")
    rewritten = dataclasses.replace(header, layers=tuple(entries))
    flatbuffer.set_metadata(container, manifest.METADATA_NAME, rewritten.to_json().encode())
    flatbuffer.drop_unused_buffers(container)
    return models.written(container), warnings


def _users(container: Any, entry: LayerEntry) -> tuple[Any, list[tuple[Any, Any]]]:
    """The weight tensor of a layer, and (graph, operator) that use it.

    Raises:
        ValueError: naming the layer, if the file has no such int8 tensor.
    """
    for graph in container.subgraphs:
        for index, tensor in enumerate(graph.tensors):
            if flatbuffer.text(tensor.name) != entry.tensor:
                continue
            if flatbuffer.type_name(tensor) != "INT8":
                break
            users = [op for op in graph.operators if index in flatbuffer.indices(op.inputs)]
            return tensor, [(graph, op) for op in users]
    raise ValueError(f"{entry.name}: the file has no int8 weights {entry.tensor!r}.")


def _obstacle(container: Any, entry: LayerEntry, target: str) -> str:
    """Why a layer cannot be INT4, "" if it can."""
    tensor, users = _users(container, entry)
    names = {flatbuffer.op_name(container, op) for _, op in users}
    if not names <= _OPS:
        return f"no runtime takes INT4 weights for {', '.join(sorted(names - _OPS))}"
    several = np.unique(flatbuffer.scales(tensor)).size > 1
    if "FULLY_CONNECTED" in names and several and target != "litert":
        return "TFLM takes no INT4 weights with a scale per channel for FULLY_CONNECTED"
    weights = flatbuffer.constant(container, tensor)
    if weights is not None and (entry.levels or entry.channel_levels):
        low, high = (int(end) // entry.prescale for end in (weights.min(), weights.max()))
        if low < _LOW or high > _HIGH:
            return f"its codebook reaches from {low} to {high}, INT4 from {_LOW} to {_HIGH}"
    if weights is not None and np.max(weights, initial=0) == (_HIGH + 1) * entry.prescale:
        # A normalization whose factor became negative in training makes it of -8.
        return "its codes reach 8, one more than INT4 holds"
    return ""


def divisor(entry: LayerEntry, weights: np.ndarray) -> int:
    """The smallest power of two that divides stored weights so that they fit INT4.

    Raises:
        ValueError: naming the layer, if there is none.
    """
    for factor in (1, 2, 4, 8, 16, 32, 64, 128):
        fits = weights.min(initial=0) >= _LOW * factor and weights.max(initial=0) <= _HIGH * factor
        if fits and entry.prescale % factor == 0 and not np.any(weights % factor):
            return factor
    raise ValueError(f"{entry.name}: the weights {entry.tensor!r} do not fit INT4.")


def _pack(container: Any, entry: LayerEntry) -> LayerEntry:
    """Rewrite one layer; returns its entry with the pre-scale that is left."""
    tensor, users = _users(container, entry)
    weights = flatbuffer.constant(container, tensor)
    if weights is None or not users:
        raise ValueError(f"{entry.name}: the weights {entry.tensor!r} are no constant in use.")
    factor = divisor(entry, weights)
    flatbuffer.set_type(tensor, "INT4")
    flatbuffer.set_constant(container, tensor, (weights // factor).astype(np.int8))
    names = {flatbuffer.op_name(container, op) for _, op in users}
    _rescale(tensor, factor, merge="FULLY_CONNECTED" in names)
    biases = {int(op.inputs[_BIAS]) for _, op in users if len(op.inputs) > _BIAS}
    for index in sorted(biases - {-1}):
        _coarsen(container, users[0][0].tensors[index], factor, merge="FULLY_CONNECTED" in names)
    return dataclasses.replace(entry, prescale=entry.prescale // factor)


def _rescale(tensor: Any, factor: int, *, merge: bool) -> None:
    """Multiply the scales; with `merge`, equal scales become one, as TFLM's INT4 kernel wants."""
    scales = flatbuffer.scales(tensor) * np.float32(factor)
    if merge and np.unique(scales).size == 1:
        scales = scales[:1]
    axis = 0 if tensor.quantization is None else int(tensor.quantization.quantizedDimension)
    flatbuffer.set_quantization(tensor, scales, 0, axis)


def _coarsen(container: Any, bias: Any, factor: int, *, merge: bool) -> None:
    values = flatbuffer.constant(container, bias)
    if values is None:
        raise ValueError(f"The bias {flatbuffer.text(bias.name)!r} is no constant.")
    rounded = np.rint(values.astype(np.float64) / factor).astype(np.int32)
    flatbuffer.set_constant(container, bias, rounded)
    _rescale(bias, factor, merge=merge)
