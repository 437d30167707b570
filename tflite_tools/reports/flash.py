"""What a network takes of a device's flash."""

from __future__ import annotations

import dataclasses

import numpy as np

from tflite_tools.c import coding, generate
from tflite_tools.schema import file_layout
from tflite_tools.schema.contents import Model
from tflite_tools.schema.manifest import LayerEntry

NOT_COUNTED = "the kernels' code, a record of up to 70 bytes for each operator"
_SCALE_BYTES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flash:
    """What was counted, in bytes.

    Attributes:
        weights: the packed codes at their trained bits.
        constants: in C biases, multipliers, shifts and tables; else biases and scales.
        arena_bytes: RAM of the C, which is no flash; None if the network cannot be written as C.
        obstacle: why it cannot, "" if it can.
    """

    weights: int
    constants: int
    arena_bytes: int | None
    obstacle: str

    @property
    def total(self) -> int:
        """Weights and constants."""
        return self.weights + self.constants

    def text(self) -> str:
        """What the total consists of."""
        kind = "biases and scales" if self.obstacle else "constants of the C sources"
        return f"packed weights {self.weights}, {kind} {self.constants}"


def count(model: Model) -> Flash:
    """Count weights and constants of a canonical file, as they are in its C sources.

    Codes of an untrained file may need fewer bits than training will use: weights are counted at
    the bits that their layers may use, and channels that the C leaves out as if it had them. A
    network that cannot be C is counted by its file.

    Raises:
        ValueError: if the file has no manifest.
    """
    trained = _packed(model)
    try:
        sources = generate.generate(model, whole=True)
    except ValueError as error:
        return Flash(
            weights=trained,
            constants=_biases_and_scales(model),
            arena_bytes=None,
            obstacle=" ".join(str(error).split()),
        )
    return Flash(
        weights=max(trained, sources.packed_weight_bytes),
        constants=sources.constant_bytes,
        arena_bytes=sources.arena_bytes,
        obstacle="",
    )


def _packed(model: Model) -> int:
    """Bytes of all codes at the widths that C has for the bits of their layers."""
    return sum(-(-_code_bits(layer) // 8) for layer in model.require_manifest().layers)


def _code_bits(layer: LayerEntry) -> int:
    size, channels = int(np.prod(layer.shape)), layer.widths or (layer.bits,)
    return size * sum(map(coding.width, channels)) // len(channels)


def _biases_and_scales(model: Model) -> int:
    size = 0
    for graph in model.graphs:
        places = {file_layout.bias_index(op) for op in graph.ops}
        biases = [graph.tensors[index].data for index in places if index is not None]
        size += sum(bias.nbytes for bias in biases if bias is not None)
    tensors = {tensor.name: tensor for graph in model.graphs for tensor in graph.tensors}
    for layer in model.require_manifest().layers:
        parameters = tensors[layer.tensor].quantization if layer.tensor in tensors else None
        size += 0 if parameters is None else _SCALE_BYTES * parameters.scale.size
    return size
