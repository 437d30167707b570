"""Inputs to verify a file with: seeded random ones, or the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tflite_tools.running import runtime
from tflite_tools.schema.contents import Model, Op, Quantization, Tensor
from tflite_tools.schema.manifest import ActivationEntry

DEFAULT_SAMPLES, DEFAULT_SEED = 200, 0
_INT8_RANGE = (-128, 127)


class InputGrid(NamedTuple):
    """Quantization of an input, and its smallest and largest stored value."""

    quantization: Quantization
    low: int
    high: int


def input_grid(model: Model, tensor: Tensor) -> InputGrid | None:
    """The grid of an input; None if it has none.

    A float32 input has the grid of the tensor that a QUANTIZE operator makes of it.
    """
    target = edge_partner(model, tensor)
    if target.quantization is None or target.dtype != "INT8":
        return None
    entries = {} if model.manifest is None else {e.tensor: e for e in model.manifest.activations}
    entry = entries.get(target.name)
    limits = _INT8_RANGE if entry is None else stored_range(entry)
    return InputGrid(target.quantization, *limits)


def output_grid(model: Model, tensor: Tensor) -> Quantization | None:
    """Quantization of an output; of a float32 output, that of the tensor it is dequantized from."""
    return edge_partner(model, tensor).quantization


def edge_partner(model: Model, tensor: Tensor) -> Tensor:
    """The quantized tensor on the other side of a QUANTIZE or DEQUANTIZE at the graph's edge."""
    graph = model.main
    for op in graph.ops:
        if op.name == "QUANTIZE" and op.inputs == (tensor.index,):
            return graph.made(op)[0]
        if op.name == "DEQUANTIZE" and op.outputs == (tensor.index,):
            return graph.taken(op)[0]
    return tensor


def is_edge(model: Model, op: Op) -> bool:
    """Whether an operator quantizes an input of the model or dequantizes an output."""
    if op.name == "QUANTIZE":
        return set(op.inputs) <= set(model.main.inputs)
    return op.name == "DEQUANTIZE" and set(op.outputs) <= set(model.main.outputs)


def stored_range(entry: ActivationEntry) -> tuple[int, int]:
    """Smallest and largest int8 value that a tensor on a grid can take."""
    return entry.zero_point + entry.qmin, entry.zero_point + entry.qmax


def input_names(model: Model) -> list[str]:
    """Names of a file's inputs: those of the Keras model, whose order may be another.

    Those without a name, in a slim file, are called by their places.
    """
    names = [edge_partner(model, tensor).name for tensor in _inputs(model)]
    return [name or f"input {place}" for place, name in enumerate(names)]


def output_names(model: Model) -> list[str]:
    """Names of the layers that make a file's outputs."""
    graph = model.main
    return [edge_partner(model, graph.tensors[index]).name for index in graph.outputs]


def seeded(model: Model, *, samples: int, seed: int) -> dict[str, np.ndarray]:
    """Random inputs: stored values drawn evenly from the input grid, as real numbers.

    Args:
        model: the file.
        samples: how many.
        seed: of the generator; the same seed gives the same inputs.

    Returns:
        Name of an input -> float32 array, samples along the first axis.

    Raises:
        ValueError: if an input has no int8 grid.
    """
    random = np.random.default_rng(seed)
    arrays = {}
    for name, tensor in zip(input_names(model), _inputs(model), strict=True):
        grid = input_grid(model, tensor)
        if grid is None:
            raise ValueError(
                f"Input {tensor.name!r} has no int8 grid to draw samples from: pass --inputs."
            )
        shape = (samples, *tensor.shape[1:])
        low, high = max(grid.low, _INT8_RANGE[0]), min(grid.high, _INT8_RANGE[1])
        if low > high:
            raise ValueError(f"Input {tensor.name!r} has an empty range in the manifest.")
        stored = random.integers(low, high, shape, dtype=np.int8, endpoint=True)
        arrays[name] = runtime.dequantize(stored, grid.quantization)
    return arrays


def arrange(model: Model, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The user's arrays by the names of the file's inputs, as float32.

    A single array for a single input may have any name.

    Raises:
        ValueError: if an input has no array, or an array is not numeric.
    """
    chosen = by_name(arrays, input_names(model), "The file's inputs")
    for name, array in chosen.items():
        if array.dtype.kind not in "fiub" or not np.all(np.isfinite(array)):
            raise ValueError(f"Input {name!r} must hold finite real numbers.")
    return {name: np.asarray(array, np.float32) for name, array in chosen.items()}


def by_name(
    arrays: Mapping[str, np.ndarray], names: Sequence[str], what: str
) -> dict[str, np.ndarray]:
    """The arrays called `names`, in that order; a single one may have any name.

    Raises:
        ValueError: if one is missing.
    """
    if len(arrays) == 1 and len(names) == 1:
        return {names[0]: next(iter(arrays.values()))}
    if not all(name in arrays for name in names):
        given = ", ".join(arrays) or "nothing"
        raise ValueError(f"{what} are called {', '.join(names)}; got {given}.")
    return {name: arrays[name] for name in names}


def stored(model: Model, values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Real inputs as a file takes them: int8 for a quantized input, unchanged for float32.

    Args:
        model: the file.
        values: name of an input -> array.

    Returns:
        One array per input, in the file's order.

    Raises:
        ValueError: if they do not fit the file's inputs.
    """
    chosen = by_name(values, input_names(model), "The file's inputs")
    pairs = zip(_inputs(model), input_names(model), strict=True)
    arrays = tuple(_stored(tensor, chosen[name]) for tensor, name in pairs)
    runtime.check_inputs(model, arrays)
    return arrays


def real(model: Model, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A file's outputs as real numbers."""
    tensors = [model.main.tensors[index] for index in model.main.outputs]
    return [
        array
        if tensor.quantization is None or array.dtype == np.float32
        else runtime.dequantize(array, tensor.quantization)
        for tensor, array in zip(tensors, outputs, strict=True)
    ]


def _stored(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    dtype = runtime.numpy_type(tensor.dtype)
    _check_shape(tensor, values)
    if dtype is np.float32:
        return np.asarray(values, np.float32)
    if tensor.quantization is None:
        raise ValueError(f"Input {tensor.name!r} is {tensor.dtype} without a scale.")
    return runtime.quantize(values, tensor.quantization, dtype)


def _check_shape(tensor: Tensor, values: np.ndarray) -> None:
    """Samples along the first axis, each of the input's shape, as the user knows it."""
    shape = tensor.shape[1:]
    if values.shape[1:] == shape and values.ndim > 0:
        return
    advice = f"give an array of shape (samples, {', '.join(map(str, shape))})"
    if values.shape == shape:
        advice = "that is one sample without the axis of samples: give array[None]"
    raise ValueError(
        f"Input {tensor.name!r} takes samples of shape {shape}, got {values.dtype} of shape "
        f"{values.shape}: {advice}."
    )


def _inputs(model: Model) -> list[Tensor]:
    return [model.main.tensors[index] for index in model.main.inputs]
