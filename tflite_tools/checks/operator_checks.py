"""The check of every operator by itself, and the runtimes' differences operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tflite_tools.checks import isolate
from tflite_tools.checks.isolate import Isolated
from tflite_tools.checks.verdict import Check, Verdict, decide
from tflite_tools.running import runtime, samples
from tflite_tools.running.runtime import LITERT, TFLM
from tflite_tools.schema.contents import Model, Tensor

SAMPLES = 16


def check_layers(
    model: Model,
    activations: Mapping[str, np.ndarray] | None,
    *,
    runtime_name: str = LITERT,
    exact: bool = False,
    time_limit: float,
) -> Check:
    """Every operator, given the trained model's activations, makes the trained model's next ones.

    Args:
        model: the file.
        activations: name of a layer -> the trained model's activations after it, float, samples
            along the first axis; `SAMPLES` of them are used.
        runtime_name: the runtime that the operators run in.
        exact: whether the model computes this runtime's integers, so that no result may differ.
        time_limit: seconds.

    Raises:
        RuntimeFailedError: if the runtime cannot run the operators.
    """
    if activations is None:
        return Check("layers", Verdict.SKIPPED, "no reference model was given")
    try:
        isolated = isolate.isolate(model)
        stored = _stored(model, isolated, activations)
    except ValueError as error:
        return Check("layers", Verdict.SKIPPED, str(error))
    inputs = isolate.inputs_for(isolated, lambda name, _: stored[name])
    run = runtime.run(isolated.model, inputs, runtime=runtime_name, time_limit=time_limit)
    expected = [stored[name] for name in isolated.outputs]
    problems, worst = isolate.misfits(isolated, run.outputs, expected, exact=exact)
    far = "bit for bit" if exact else f"worst {worst:.3f} levels off on average"
    detail = (
        f"{len(expected)} operators, each given the reference's activations, make the next ones "
        f"in {runtime_name} ({far})"
    )
    return decide("layers", problems, detail, {"operators": len(expected), "worst_mean": worst})


def _stored(
    model: Model, isolated: Isolated, activations: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The reference's activations as the file stores them."""
    tensors = {tensor.name: tensor for tensor in model.main.tensors}
    stored = {}
    for name in {*isolated.inputs, *isolated.outputs}:
        tensor = tensors[name]
        if name not in activations or tensor.quantization is None or tensor.dtype != "INT8":
            raise ValueError(f"The reference has no activations for {name!r}.")
        values = activations[name][:SAMPLES]
        if values[0].size != np.prod(tensor.shape):
            raise ValueError(f"The reference's activations have another shape at {name!r}.")
        codes = runtime.quantize(values, tensor.quantization, np.int8)
        stored[name] = codes.reshape(len(values), *tensor.shape[1:])
    return stored


def rounding_misfits(model: Model, *, seed: int, time_limit: float) -> list[tuple[str, str]]:
    """The operators where TFLM and LiteRT differ by more than their rounding.

    Operators are fed with random activations from their grids.

    Raises:
        ValueError: if the file cannot be cut into operators.
        RuntimeFailedError: if a runtime cannot run them.
    """
    isolated = isolate.isolate(model)
    inputs = isolate.inputs_for(isolated, random_activations(model, seed))
    outputs = {
        name: runtime.run(isolated.model, inputs, runtime=name, time_limit=time_limit).outputs
        for name in (LITERT, TFLM)
    }
    return isolate.misfits(isolated, outputs[TFLM], outputs[LITERT])[0]


def random_activations(model: Model, seed: int) -> Callable[[str, Tensor], np.ndarray]:
    """A function for `isolate.inputs_for` that draws stored values from a tensor's grid."""
    entries = {entry.tensor: entry for entry in model.require_manifest().activations}
    random = np.random.default_rng(seed)

    def draw(name: str, tensor: Tensor) -> np.ndarray:
        entry = entries.get(name)
        low, high = (-128, 127) if entry is None else samples.stored_range(entry)
        shape = (SAMPLES, *tensor.shape[1:])
        return random.integers(max(low, -128), min(high, 127), shape, np.int8, endpoint=True)

    return draw
