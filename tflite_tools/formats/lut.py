"""Weights as indices of 1 to 7 bits into tables of values, for TFLM alone (extra `micro`).

`tflite_micro`'s compression library packs the indices and puts a DECODE operator in front of every
layer, which decodes the weights into the arena at each run. TFLM's kernel takes the number of
tables from the quantization of the weights: one table on weights with one scale per channel runs
and is silently wrong. The mode is therefore no choice here: it follows from the quantization alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import warnings as python_warnings
from typing import Any

import numpy as np

from tflite_tools.formats import split
from tflite_tools.formats.result import Result, checked
from tflite_tools.running import runtime
from tflite_tools.running.runtime import TFLM
from tflite_tools.schema import contents as models
from tflite_tools.schema import flatbuffer, lut_decode
from tflite_tools.schema.contents import Model, Tensor
from tflite_tools.schema.manifest import LayerEntry

MOST_BITS = 7
# What a DECODE operator and its two tensors take in the file besides indices and tables.
OPERATOR_BYTES = 200
_MISSING = "Tables need tflite-micro: pip install tflite-micro, or 'tfbinreg[micro]'"


@dataclasses.dataclass(frozen=True)
class TensorPlan:
    """How one weight tensor is stored.

    Attributes:
        layer: name of the layer.
        tensor: name of the tensor.
        bits: of an index.
        axis: of the channels that have a table each; None for one table.
        before: bytes of the weights.
        after: bytes of indices, header and tables.
    """

    layer: str
    tensor: str
    bits: int
    axis: int | None
    before: int
    after: int

    @property
    def shrinks(self) -> bool:
        """Whether indices can be so wide, and the file becomes smaller."""
        return self.bits <= MOST_BITS and self.after + OPERATOR_BYTES < self.before

    @property
    def note(self) -> str:
        """Why it is left int8, if it is."""
        if self.bits > MOST_BITS:
            return f"{self.layer}: left int8, its values need indices of more than {MOST_BITS} bits"
        size = self.after + OPERATOR_BYTES
        why = f"tables and their operator would take {size} bytes for {self.before}"
        return f"{self.layer}: left int8, {why}"


def convert(model: Model, *, target: str = "any", split_convs: int | None = None) -> Result:
    """Store the weights of layers of 7 bits and fewer as indices into tables.

    Args:
        model: the canonical file.
        target: "any" or "tflm"; no other runtime has a DECODE operator.
        split_convs: most bytes of decoded weights at a time: larger convolutions become several,
            over their output channels, and a CONCATENATION. None leaves them whole.

    Raises:
        ValueError: if the file has no manifest, no layer becomes smaller, a
            convolution cannot be split so far, the target has no tables, or the result is not the
            canonical network.
        RuntimeError: if tflite-micro is missing.
    """
    if target not in ("any", "tflm"):
        raise ValueError(f"Tables do not run on {target}: only TFLM has their DECODE operator.")
    encoded, notes = encode(model, split_convs=split_convs)
    figures = _costs(model, encoded)
    if split_convs is not None:
        whole, _ = encode(model)
        figures["unsplit_arena_bytes"] = runtime.least_arena(whole)
        if figures["unsplit_arena_bytes"] <= figures["arena_bytes"]:
            notes.append("splitting does not lower the arena: activations decide its size")
    return checked(encoded, model, runtimes=(TFLM,), warnings=notes, figures=figures)


def encode(model: Model, *, split_convs: int | None = None) -> tuple[Model, list[str]]:
    """The file of `convert` before it is compared, and warnings.

    Raises:
        ValueError: as `convert`, but for the comparison.
        RuntimeError: if tflite-micro is missing.
    """
    if not runtime.available(TFLM):
        raise RuntimeError(_MISSING)
    plans = plan(model)
    chosen = [entry for entry in plans if entry.shrinks]
    notes = [entry.note for entry in plans if not entry.shrinks]
    if not chosen:
        raise ValueError(
            f"No layer becomes smaller with tables ({'; '.join(notes) or 'no layer'})."
        )
    source = model
    if split_convs is not None:
        container = flatbuffer.read(model.data)
        names = [entry.tensor for entry in chosen]
        notes += split.split_convolutions(container, names, most_bytes=split_convs)
        source = models.written(container)
    return models.load(compress(source.data, spec(source, chosen))), notes


def plan(model: Model) -> tuple[TensorPlan, ...]:
    """How the layers of 7 bits and fewer, and all codebooks, would be stored."""
    layers = model.require_manifest().layers
    entries = {e.tensor: e for e in layers if e.bits <= MOST_BITS or not e.is_even}
    plans = []
    for tensor in model.main.tensors:
        entry = entries.get(tensor.name)
        if entry is not None:
            plans.append(_plan(tensor, entry))
    return tuple(plans)


def _plan(tensor: Tensor, entry: LayerEntry) -> TensorPlan:
    weights = tensor.data
    if weights is None or weights.dtype != np.int8:
        raise ValueError(f"{entry.name}: the file has no int8 weights {entry.tensor!r}.")
    axis = channel_axis(tensor)
    if axis is not None and not 0 <= axis < weights.ndim:
        raise ValueError(f"{entry.name}: the weights have no axis {axis} for their scales.")
    slices = [weights] if axis is None else list(np.moveaxis(weights, axis, 0))
    longest = max(np.unique(part).size for part in slices)
    bits = max(1, (longest - 1).bit_length())
    after = math.ceil(weights.size * bits / 8) + lut_decode.HEADER_BYTES + len(slices) * longest
    return TensorPlan(entry.name, entry.tensor, bits, axis, weights.size, after)


def channel_axis(tensor: Tensor) -> int | None:
    """The axis with one table per channel; None for one table, if there is only one scale.

    This alone decides the mode, as it does in TFLM's kernel.
    """
    parameters = tensor.quantization
    return None if parameters is None or parameters.scale.size <= 1 else parameters.axis


def spec(model: Model, plans: list[TensorPlan]) -> list[Any]:
    """The compression library's specification of the planned tensors or their parts."""
    from tflite_micro.tensorflow.lite.micro.compression import spec as library

    specs = []
    for tensor in model.main.tensors:
        name = tensor.name
        entry = next((p for p in plans if name == p.tensor or split.is_part(name, p.tensor)), None)
        if entry is None:
            continue
        axis = channel_axis(tensor)
        mode = library.PerTensor() if axis is None else library.PerChannel(axis=axis)
        method = library.LookUpTableCompression(index_bitwidth=entry.bits, mode=mode)
        specs.append(library.Tensor(subgraph=0, tensor=tensor.index, compression=[method]))
    return specs


def compress(data: bytes, specs: list[Any]) -> bytes:
    """Run the compression library, which prints to stderr what it warns of.

    Raises:
        ValueError: with its reason, if it refuses.
    """
    from tflite_micro import compression

    quiet = contextlib.redirect_stderr(io.StringIO())
    try:
        with python_warnings.catch_warnings(), quiet:
            python_warnings.simplefilter("ignore")
            compressed = bytes(compression.compress(data, specs))
    except Exception as error:  # its own error types, and whatever its parts raise
        raise ValueError(f"tflite-micro cannot compress the file: {error}") from error
    # The library's own writer repeats what is equal.
    return flatbuffer.write(flatbuffer.read(compressed))


def _costs(model: Model, encoded: Model) -> dict[str, int]:
    """Arena before and after, the largest tensor that is decoded, and how many are."""
    decoded = [encoded.main.tensors[entry.output] for entry in encoded.main.encoded]
    return {
        "arena_bytes": runtime.least_arena(encoded),
        "canonical_arena_bytes": runtime.least_arena(model),
        "largest_decoded_bytes": max((math.prod(t.shape) for t in decoded), default=0),
        "decoded_tensors": len(decoded),
    }
