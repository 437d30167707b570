"""The manifest inside a converted file: which tensor is which layer, at how many bits.

It names things; codes are always read from the weights themselves.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from tflite_tools.schema import flatbuffer

METADATA_NAME = "tfbinreg_manifest"
FORMAT = 1
MISSING = (
    "The file has no tfbinreg manifest: --slim or --target ethos-u has dropped it, or another tool "
    "made the file. Give the int8 file that `tflite_tools convert` writes without them."
)
TARGETS = ("litert", "tflm")  # version 0.1.0 knew the first alone
_MAX_BITS = 8
_LARGEST_CODE = 127
# Fields that most layers leave out; a version that does not know them refuses a manifest with them.
_OPTIONAL = ("levels", "channel_bits", "channel_levels")


@dataclasses.dataclass(frozen=True)
class LayerEntry:
    """One quantized kernel.

    Attributes:
        name: name of the Keras layer.
        kind: its class.
        tensor: name of its weight tensor in the file.
        bits: width the codes were trained at.
        prescale: factor P by which the file's weights are multiplied.
        shape: shape of the Keras kernel.
        sha256: of the codes, int8, in the Keras layout.
        levels: the trained codes there are, ascending, of a codebook; None if they are evenly
            spaced. A channel whose sign normalization has turned round has their negatives.
        channel_bits: the bits of each output channel, 0 for one that is pruned; None if all have
            `bits`.
        channel_levels: a codebook for each output channel, (0,) for one that is pruned; None if
            they share `levels`, or are evenly spaced.
    """

    name: str
    kind: str
    tensor: str
    bits: int
    prescale: int
    shape: tuple[int, ...]
    sha256: str
    levels: tuple[int, ...] | None = None
    channel_bits: tuple[int, ...] | None = None
    channel_levels: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        _check_text(self.name, self.kind, self.tensor, self.sha256)
        _check_range(1, _MAX_BITS, self.bits)
        _check_range(1, 2 ** (_MAX_BITS - 1), self.prescale)
        _check_range(1, 2**31, *self.shape)
        _check_range(-_LARGEST_CODE, _LARGEST_CODE, *(self.levels or ()))
        _check_range(0, self.bits, *(self.channel_bits or ()))
        for levels in self.channel_levels or ():
            _check_range(1, 2**self.bits, len(levels))
            _check_range(-_LARGEST_CODE, _LARGEST_CODE, *levels)

    @property
    def is_even(self) -> bool:
        """Whether all channels have the evenly spaced codes of `bits`."""
        return self.levels is self.channel_bits is self.channel_levels is None

    @property
    def widths(self) -> tuple[int, ...] | None:
        """The bits of each output channel, 0 if it is pruned; None if they share `bits`."""
        if self.channel_levels is not None:
            return tuple((len(levels) - 1).bit_length() for levels in self.channel_levels)
        return self.channel_bits

    @property
    def pruned(self) -> int:
        """How many output channels are pruned."""
        return (self.widths or ()).count(0)


@dataclasses.dataclass(frozen=True)
class ActivationEntry:
    """One activation tensor on a learned grid: codes [qmin, qmax] around `zero_point`."""

    tensor: str
    bits: int
    qmin: int
    qmax: int
    zero_point: int

    def __post_init__(self) -> None:
        _check_text(self.tensor)
        _check_range(1, _MAX_BITS, self.bits)
        _check_range(-(2**15), 2**15, self.qmin, self.qmax, self.zero_point)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What the exporter knows and the file alone does not say.

    Attributes:
        versions: of tfbinreg and the libraries that made the file.
        recipe: the recipe as a JSON object.
        layers: the quantized kernels.
        activations: the activation tensors.
        fixed: kernels that were not trained: a Rescaling, a normalization by itself, an average.
        target: the runtime whose integers the trained model follows: "tflm" or "litert".
        finalized: whether the model was finalized; None in files that do not say.
    """

    versions: dict[str, str]
    recipe: dict[str, Any]
    layers: tuple[LayerEntry, ...]
    activations: tuple[ActivationEntry, ...]
    fixed: tuple[LayerEntry, ...] = ()
    target: str = TARGETS[0]
    finalized: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.versions, dict) or not isinstance(self.recipe, dict):
            raise ValueError("versions and recipe must be objects")
        _check_text(*self.versions.values())
        if self.target not in TARGETS or self.finalized not in (None, True, False):
            raise ValueError(f"target {self.target!r}, finalized {self.finalized!r}")

    @property
    def kernels(self) -> tuple[LayerEntry, ...]:
        """The layers, and what was not trained."""
        return (*self.layers, *self.fixed)

    def to_json(self) -> str:
        """JSON text that `parse` reads back, without what most files and layers do not have."""
        fields = {"format": FORMAT, **dataclasses.asdict(self)}
        if not self.fixed:
            del fields["fixed"]
        for entry in (*fields["layers"], *fields.get("fixed", ())):
            for name in _OPTIONAL:
                if entry[name] is None:
                    del entry[name]
        return json.dumps(fields)


def _check_text(*values: object) -> None:
    wrong = [value for value in values if not isinstance(value, str)]
    if wrong:
        raise ValueError(f"expected text, got {wrong[0]!r}")


def _check_range(low: int, high: int, *values: object) -> None:
    for value in values:
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or not low <= value <= high:  # type: ignore[operator]
            raise ValueError(f"expected a whole number from {low} to {high}, got {value!r}")


def codes_digest(codes: np.ndarray) -> str:
    """SHA-256 of int8 codes in row-major order."""
    return hashlib.sha256(np.ascontiguousarray(codes, np.int8).tobytes()).hexdigest()


def parse(text: str) -> Manifest:
    """Read a manifest.

    Raises:
        ValueError: if the text is no manifest of this format.
    """
    try:
        fields = json.loads(text)
        if fields.pop("format") != FORMAT:
            raise ValueError("it has another format number")
        layers, fixed = (
            tuple(LayerEntry(**_tuples(entry)) for entry in entries)
            for entries in (fields.pop("layers"), fields.pop("fixed", ()))
        )
        activations = tuple(ActivationEntry(**entry) for entry in fields.pop("activations"))
        return Manifest(layers=layers, activations=activations, fixed=fixed, **fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"The manifest in the file cannot be read: {error}.") from error


def _tuples(entry: Any) -> dict[str, Any]:
    """A layer's fields, with JSON's lists as tuples."""
    lists = ("shape", *(name for name in _OPTIONAL if name in entry))
    found = {**entry, **{name: tuple(entry[name]) for name in lists}}
    if "channel_levels" in found:
        found["channel_levels"] = tuple(map(tuple, found["channel_levels"]))
    return found


def find(model: Any) -> Manifest | None:
    """The manifest of a flatbuffer object, None if it has none.

    Raises:
        ValueError: if it has one that cannot be read.
    """
    data = flatbuffer.metadata(model, METADATA_NAME)
    return None if data is None else parse(data.decode("utf-8", "replace"))
