"""What is in a .tflite file, for `inspect`. Works on any file, with or without a manifest."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tflite_tools.c import generate
from tflite_tools.schema import codes, file_layout, manifest
from tflite_tools.schema.contents import Graph, Model, Op, Quantization, Tensor
from tflite_tools.schema.manifest import LayerEntry


@dataclasses.dataclass(frozen=True)
class TensorSummary:
    """An input or output; scales and zero points are None for a tensor without quantization."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: tuple[float, ...] | None
    zero_point: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class OpSummary:
    """One row of the operator table; `dtype` and `shape` are those of the first output."""

    name: str
    inputs: tuple[str, ...]
    output: str
    dtype: str
    shape: tuple[int, ...]
    activation: str


@dataclasses.dataclass(frozen=True)
class WeightSummary:
    """One constant weight tensor.

    Attributes:
        layer: the Keras layer, or the tensor's own name if the file has no manifest.
        tensor: name of the tensor.
        shape: as stored.
        dtype: as stored; LUT and the bits of an index for weights that TFLM decodes.
        bits: width from the manifest, else the bits that the distinct values need; None for
            floating point.
        trained: whether `bits` comes from the manifest.
        prescale: factor P by which stored weights are multiplied; 1 without a manifest.
        channels: number of weight scales, 0 without quantization.
        distinct: how many different values there are.
        histogram: code -> count; None for floating point.
        stored_bytes: what the values take in the file, without tables.
        levels: the codes of a codebook, None if they are evenly spaced.
        channel_bits: the bits of each output channel of the whole layer, None if they share `bits`.
        codebooks: whether each output channel has a codebook.
        left_out: how many output channels generated C does without.
    """

    layer: str
    tensor: str
    shape: tuple[int, ...]
    dtype: str
    bits: int | None
    trained: bool
    prescale: int
    channels: int
    distinct: int
    histogram: dict[int, int] | None
    stored_bytes: int
    levels: tuple[int, ...] | None = None
    channel_bits: tuple[int, ...] | None = None
    codebooks: bool = False
    left_out: int = 0

    @property
    def code_bits(self) -> int | None:
        """The bits that the codes alone take; None for floating point."""
        size = int(np.prod(self.shape))
        if self.channel_bits:
            return -(-size * sum(self.channel_bits) // len(self.channel_bits))
        return None if self.bits is None else size * self.bits

    @property
    def width(self) -> str:
        """The bits in words, "" for floating point."""
        if self.channel_bits:
            pruned = self.channel_bits.count(0)
            ends = sorted({min(self.channel_bits), max(self.channel_bits)})
            text = f"bits per channel {'-'.join(map(str, ends))}"
            if self.codebooks:
                text = f"codebook per channel of {'-'.join(map(str, ends))} bits"
            return text + (f", {pruned} pruned" if pruned else "")
        if self.levels and len(self.levels) > 2:
            return f"codebook of {len(self.levels)} levels"
        return "" if self.bits is None else f"{self.bits} bit{'s' * (self.bits > 1)}"


@dataclasses.dataclass(frozen=True)
class Description:
    """Everything `inspect` shows. `size_by_category` sums to `size`; sizes are in bytes.

    `target` is the runtime whose integers the trained model follows, "tflm" or "litert", and
    `finalized` whether it does so already; both None if the file does not say.
    """

    size: int
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    ops: tuple[OpSummary, ...]
    weights: tuple[WeightSummary, ...]
    size_by_category: dict[str, int]
    versions: dict[str, str] | None
    recipe: dict[str, Any] | None
    target: str | None
    finalized: bool | None

    @property
    def left_out(self) -> str:
        """The channels that generated C does without, in words; "" if there are none."""
        gone = {weight.layer: weight.left_out for weight in self.weights if weight.left_out}
        layers = ", ".join(f"{layer} {count}" for layer, count in gone.items())
        total = sum(gone.values())
        return (
            f"C leaves out {total} channels that the network does not need: {layers}"
            if gone
            else ""
        )

    @property
    def packed_weight_bytes(self) -> int:
        """Bytes that the codes alone would take, `bits` each."""
        return sum((w.code_bits + 7) // 8 for w in self.weights if w.code_bits is not None)


def describe(model: Model) -> Description:
    """Describe a .tflite file."""
    header = model.manifest
    return Description(
        size=len(model.data),
        inputs=tuple(_tensor(model.main.tensors[index]) for index in model.main.inputs),
        outputs=tuple(_tensor(model.main.tensors[index]) for index in model.main.outputs),
        ops=tuple(_op(graph, op) for graph in model.graphs for op in graph.ops),
        weights=tuple(_weights(model)),
        size_by_category=file_layout.bytes_by_category(model, manifest.METADATA_NAME),
        versions=None if header is None else header.versions,
        recipe=None if header is None else header.recipe,
        target=None if header is None else header.target,
        finalized=None if header is None else header.finalized,
    )


def _tensor(tensor: Tensor) -> TensorSummary:
    parameters = tensor.quantization
    return TensorSummary(
        name=tensor.label,
        dtype=tensor.dtype,
        shape=tensor.shape,
        scale=None if parameters is None else tuple(float(s) for s in parameters.scale),
        zero_point=None if parameters is None else tuple(int(z) for z in parameters.zero_point),
    )


def _op(graph: Graph, op: Op) -> OpSummary:
    output = next(iter(graph.made(op)), None)
    return OpSummary(
        name=op.name,
        inputs=tuple(tensor.label for tensor in graph.taken(op)),
        output="" if output is None else output.label,
        dtype="" if output is None else output.dtype,
        shape=() if output is None else output.shape,
        activation=op.activation,
    )


def _weights(model: Model) -> list[WeightSummary]:
    entries = {} if model.manifest is None else {e.tensor: e for e in model.manifest.layers}
    found, left_out = [], generate.left_out(model)
    for graph_index, graph in enumerate(model.graphs):
        encoded = {entry.indices: entry for entry in graph.encoded}
        for index, kind in file_layout.constant_kinds(model, graph_index).items():
            if kind != "weights":
                continue
            tensor = graph.tensors[index]
            entry = entries.get(codes.whole_name(tensor.name))
            if index in encoded:
                values = graph.tensors[encoded[index].output]
                dtype = f"LUT{encoded[index].bits}"
            else:
                values, dtype = tensor, tensor.dtype
            weight = _weight(values, entry, name=tensor.name, dtype=dtype, stored=tensor)
            found.append(dataclasses.replace(weight, left_out=left_out.get(tensor.name, 0)))
    return found


def _weight(
    tensor: Tensor, entry: LayerEntry | None, *, name: str, dtype: str, stored: Tensor
) -> WeightSummary:
    data = np.zeros(0) if tensor.data is None else tensor.data
    integer = np.issubdtype(data.dtype, np.integer)
    if entry is not None and integer:
        data = codes.unscaled(entry, data)
    values, counts = np.unique(data, return_counts=True)
    return WeightSummary(
        layer=stored.label if entry is None else entry.name,
        tensor=name,
        shape=tensor.shape,
        dtype=dtype,
        bits=entry.bits if entry is not None else _bits_needed(values.size) if integer else None,
        trained=entry is not None,
        prescale=1 if entry is None else entry.prescale,
        channels=_channels(tensor.quantization),
        distinct=int(values.size),
        histogram=dict(zip(values.tolist(), counts.tolist(), strict=True)) if integer else None,
        stored_bytes=stored_bytes(stored),
        levels=None if entry is None else entry.levels,
        channel_bits=None if entry is None else entry.widths,
        codebooks=entry is not None and entry.channel_levels is not None,
    )


def stored_bytes(tensor: Tensor) -> int:
    """What a constant takes in the file; INT4 and INT2 values are unpacked in `data`."""
    if tensor.data is None:
        return 0
    fields = {"INT4": 2, "INT2": 4}.get(tensor.dtype, 1)
    return -(-tensor.data.nbytes // fields)


def _channels(parameters: Quantization | None) -> int:
    return 0 if parameters is None else int(parameters.scale.size)


def _bits_needed(distinct: int) -> int:
    return max(1, int(distinct - 1).bit_length())
