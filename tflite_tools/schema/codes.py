"""Integer weight codes read back from a converted file."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tflite_tools.schema import bit_fields, contents
from tflite_tools.schema.contents import Model
from tflite_tools.schema.manifest import LayerEntry

# Kinds that TFLite stores as depthwise convolutions, output channels last.
DEPTHWISE = ("DepthwiseConv2D", "BatchNormalization", "ChannelAffine")


def to_keras_layout(kind: str, weights: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """TFLite weights as a Keras kernel of `shape`.

    CONV_2D holds (out, h, w, in), DEPTHWISE_CONV_2D (1, h, w, in * multiplier), TRANSPOSE_CONV
    (out, h, w, in) and FULLY_CONNECTED (out, in); Keras (h, w, in, out), (h, w, in, multiplier),
    (h, w, out, in) and (in, out).
    """
    if kind in DEPTHWISE:
        return weights.reshape(shape)
    return np.moveaxis(weights, 0, _channel_axis(kind)).reshape(shape)


def to_tflite_layout(kind: str, kernel: np.ndarray) -> np.ndarray:
    """The inverse of `to_keras_layout`."""
    if kind in DEPTHWISE:
        height, width, channels, multiplier = kernel.shape
        return kernel.reshape(1, height, width, channels * multiplier)
    return np.ascontiguousarray(np.moveaxis(kernel, _channel_axis(kind), 0))


def _channel_axis(kind: str) -> int:
    """The axis of a Keras kernel's output channels."""
    return 2 if kind == "Conv2DTranspose" else -1


def read_codes(data: bytes) -> dict[str, np.ndarray]:
    """The codes of every quantized kernel in a converted file.

    They are read from the weights in the file, with the pre-scale undone. The manifest is used only
    to assign tensors to layers.

    Args:
        data: bytes of a .tflite file made by `tflite_tools convert`.

    Returns:
        Layer name -> int8 codes in the Keras kernel layout.

    Raises:
        ValueError: if the file is damaged, has no manifest, or its weights do not fit it.
    """
    return codes_of(contents.load(data))


def codes_of(model: Model) -> dict[str, np.ndarray]:
    """The same for a parsed file.

    Raises:
        ValueError: if it has no manifest, or its weights do not fit it.
    """
    return {entry.name: layer_codes(model, entry) for entry in model.require_manifest().layers}


def layer_codes(model: Model, entry: LayerEntry) -> np.ndarray:
    """The codes of one layer, int8, in the Keras layout.

    Raises:
        ValueError: naming the layer, if its weights do not fit the manifest.
    """
    parts = _stored(model, entry)
    if not parts or any(part.dtype != np.int8 or part.ndim < 1 for part in parts):
        raise ValueError(f"{entry.name}: the file has no int8 weights {entry.tensor!r}.")
    if len({part.shape[1:] for part in parts}) > 1:
        raise ValueError(f"{entry.name}: the parts of the weights do not fit together.")
    weights = np.concatenate(parts)
    if weights.size != np.prod(entry.shape):
        raise ValueError(f"{entry.name}: the weights do not fit the manifest.")
    return to_keras_layout(entry.kind, unscaled(entry, weights), entry.shape)


def off_grid(entry: LayerEntry, codes: np.ndarray) -> int:
    """How many codes of a layer are not among those that its manifest allows.

    A channel has the levels of its codebook or, at b bits, the codes from -2^(b-1) to 2^(b-1) - 1
    (at 1 bit -1 and 1, at 0 bits 0); or the negatives of all these, if a normalization has reversed
    its sign; or only zeros, if one has made it constant.

    Args:
        entry: the layer.
        codes: in the Keras layout.
    """
    stored = to_tflite_layout(entry.kind, codes)
    rows = np.moveaxis(stored, -1 if entry.kind in DEPTHWISE else 0, 0).astype(np.int16)
    by_channel = _levels_by_channel(entry, len(rows))
    if len(by_channel) != len(rows):
        return int(codes.size)
    count = 0
    for row, levels in zip(rows, by_channel, strict=True):
        others = [np.count_nonzero(~np.isin(sign * row, levels)) for sign in (1, -1)]
        count += int(min(others)) if np.any(row) else 0
    return count


def _levels_by_channel(entry: LayerEntry, channels: int) -> Sequence[Sequence[int]]:
    if entry.channel_levels is not None:
        return entry.channel_levels
    if entry.levels is not None:
        return [entry.levels] * channels
    return [_levels(bits) for bits in entry.channel_bits or (entry.bits,) * channels]


def _levels(bits: int) -> Sequence[int]:
    """The codes of a channel of 0 to 8 bits."""
    if bits < 2:
        return ((0,), (-1, 1))[bits]
    low, high = bit_fields.limits(bits)
    return range(low, high + 1)


def part_name(tensor: str, number: int) -> str:
    """Name of a part of a weight tensor that is split over its output channels."""
    return f"{tensor}/part{number}"


def whole_name(tensor: str) -> str:
    """The name of the tensor that `part_name` was made from, or the name itself."""
    return re.sub(r"/part\d+$", "", tensor)


def _stored(model: Model, entry: LayerEntry) -> list[np.ndarray]:
    """A layer's weights as stored: one array, or the parts of a split convolution."""
    found: dict[str, np.ndarray] = {}
    for graph in model.graphs:
        decoded = {encoded.indices: encoded.output for encoded in graph.encoded}
        for tensor in graph.tensors:
            values = graph.tensors[decoded.get(tensor.index, tensor.index)].data
            if tensor.name.startswith(entry.tensor) and values is not None:
                found.setdefault(tensor.name, values)
    if entry.tensor in found:
        return [found[entry.tensor]]
    names = (part_name(entry.tensor, number) for number in range(len(found)))
    return [found[name] for name in names if name in found]


def unscaled(entry: LayerEntry, weights: np.ndarray) -> np.ndarray:
    """A layer's stored weights divided by its pre-scale, int8, in the layout of `weights`.

    Raises:
        ValueError: naming the layer, if they are not multiples of it.
    """
    codes, rest = np.divmod(weights.astype(np.int16), entry.prescale)
    if np.any(rest):
        raise ValueError(f"{entry.name}: the weights are no multiples of {entry.prescale}.")
    return codes.astype(np.int8)
