"""The border between training and file: a quantized model as plain values. NumPy only.

Before it there are Keras layers and variables, after it only numbers: the file, the integer model
and every check are made from a `FrozenGraph` alone.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfbinreg.core.grid import CodedTensor, Grid
from tfbinreg.core.target import TFLM

_FORMAT = 1


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenKernel:
    """A deployed kernel: value = codes * scale, bias value = bias * input scale * scale / prescale.

    Attributes:
        codes: int8, Keras layout; the trained codes, negated in channels whose BatchNormalization
            gamma is negative, zero in channels whose gamma makes them constant.
        scale: float32, () or (output channels,).
        bias: int32, (output channels,).
        bits: width the codes were trained at.
        prescale: P, by which the file's weights are multiplied.
        trained: False for the factors of a normalization that has no kernel before it, whose codes
            are all one number.
        levels: the trained codes there are (`Grid.levels`); None if they are evenly spaced.
        channel_bits: the bits of each output channel (`Grid.channel_bits`); None if they share
            `bits`.
        channel_levels: the trained codes of each output channel (`Grid.channel_levels`); None if
            they share `levels`, or are evenly spaced.
    """

    codes: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    bits: int
    prescale: int
    trained: bool = True
    levels: tuple[int, ...] | None = None
    channel_bits: tuple[int, ...] | None = None
    channel_levels: tuple[tuple[int, ...], ...] | None = None

    @property
    def stored_scale(self) -> np.ndarray:
        """That of the file's weights, float32, () or (output channels,)."""
        return stored_scale(self.scale, self.prescale)


def stored_scale(scale: np.ndarray, prescale: int) -> np.ndarray:
    """The scale of codes that are multiplied by the pre-scale, float32."""
    return (scale / np.float32(prescale)).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenOp:
    """One integer operation.

    Attributes:
        name: the Keras layer's name; unique in its graph.
        kind: the layer's class as the layer-kind table knows it.
        inputs: indices of the operations whose outputs it takes.
        grid: grid of the output.
        shape: of the output, without the batch axis; None for an unknown size.
        attributes: strides, padding and the like: `Kind.attributes` of the layer.
        relu: whether a ReLU is fused.
        relu_limit: the largest output of that ReLU; None if only the grid limits it.
        kernel: weights, if it has any.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    grid: Grid | None
    shape: tuple[int | None, ...]
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    relu: bool = False
    relu_limit: float | None = None
    kernel: FrozenKernel | None = None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FrozenGraph:
    """The integer operations of a model in topological order.

    Layers that do nothing at inference (Dropout) are left out.

    Attributes:
        ops: the operations.
        inputs: indices of the operations that are the model's inputs, in the model's order.
        outputs: indices of those whose results are its outputs, in order; all different.
        input_names: the user's names of the inputs.
        output_names: the user's names of the outputs.
        recipe: the recipe as a JSON object.
        versions: of the libraries that the model was trained with, by name.
        notes: the user's additions to the quantization card (`tflite_tools.schema.card.NOTES`).
        target: the runtime whose integers the model follows.
        finalized: whether it already does so; None if that is not known.
    """

    ops: tuple[FrozenOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    target: str = TFLM
    finalized: bool | None = None

    def trained_kernels(self) -> dict[str, FrozenKernel]:
        """The kernels that hold trained codes, by layer name."""
        return {op.name: op.kernel for op in self.ops if op.kernel and op.kernel.trained}

    def source_grid(self, op: FrozenOp) -> Grid:
        """The grid of an operation's first input.

        Raises:
            ValueError: if it has none, naming the operation.
        """
        grid = self.ops[op.inputs[0]].grid
        if grid is None:
            raise ValueError(f"The input of {op.name!r} is not on a grid.")
        return grid

    def to_bytes(self) -> bytes:
        """The graph as the bytes of an .npz file, which `from_bytes` reads without Keras."""
        arrays: dict[str, np.ndarray] = {}

        def packed(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                arrays[f"array{len(arrays)}"] = value
                return {"array": f"array{len(arrays) - 1}"}
            if isinstance(value, (FrozenOp, FrozenKernel, Grid)):
                fields = dataclasses.fields(value)
                return {field.name: packed(getattr(value, field.name)) for field in fields}
            if isinstance(value, Mapping):
                return {name: packed(entry) for name, entry in value.items()}
            if isinstance(value, (tuple, list)):
                return [packed(entry) for entry in value]
            return value.item() if isinstance(value, np.generic) else value

        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        header = json.dumps({"format": _FORMAT, **packed(fields)})
        stream = io.BytesIO()
        np.savez_compressed(stream, header=np.frombuffer(header.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> FrozenGraph:
        """Read what `to_bytes` has written.

        Raises:
            ValueError: if the bytes are damaged, or contain something else.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                header = json.loads(arrays["header"].tobytes())
                if header.pop("format") != _FORMAT:
                    raise ValueError("it has another format number")
                fields = _unpacked(header, arrays)
            fields["ops"] = tuple(_op(op) for op in fields["ops"])
            return cls(**fields)
        except Exception as error:  # NumPy's and zip's readers raise whatever damage leads to
            raise ValueError(f"This is no frozen graph, or it is damaged ({error}).") from error


def _unpacked(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"array"}:
            return arrays[value["array"]]
        return {name: _unpacked(entry, arrays) for name, entry in value.items()}
    return tuple(_unpacked(entry, arrays) for entry in value) if isinstance(value, list) else value


def _op(fields: dict[str, Any]) -> FrozenOp:
    grid, kernel = fields.pop("grid"), fields.pop("kernel")
    return FrozenOp(
        **fields,
        grid=None if grid is None else Grid(**grid),
        kernel=None if kernel is None else FrozenKernel(**kernel),
    )


def slope_codes(op: FrozenOp) -> CodedTensor:
    """The slopes of a PReLU as a file holds them: int8, symmetric, one scale."""
    slopes = np.asarray(op.attributes["alpha"], np.float32)
    largest = np.max(np.abs(slopes))
    scale = np.float32(largest / 127.0) if largest > 0 else np.float32(1.0)
    codes = np.clip(np.rint(slopes / scale), -127, 127).astype(np.int8)
    return CodedTensor(codes, np.asarray(scale), 0, 8)
