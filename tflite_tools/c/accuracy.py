"""How many of a user's samples each runtime gets right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tflite_tools.c import generate, stream_run
from tflite_tools.c.host_run import CompilerError
from tflite_tools.checks.verdict import Accuracy
from tflite_tools.running import runtime, samples
from tflite_tools.running.runtime import TFLM, RuntimeFailedError
from tflite_tools.schema.contents import Model

LABELS = "labels"
Runner = Callable[[], Sequence[np.ndarray]]


def labels_of(model: Model, arrays: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """The labels by the names of the outputs they belong to, as whole numbers.

    Args:
        model: the file.
        arrays: one array, or one called "labels" for the only output, or arrays by output.
        count: of the samples.

    Raises:
        ValueError: if there are none for any output, or they are no classes of it.
    """
    names = samples.output_names(model)
    given = {"": arrays[LABELS]} if len(names) == 1 and LABELS in arrays else arrays
    if len(given) == len(names) == 1:
        given = {names[0]: next(iter(given.values()))}
    chosen = {name: given[name] for name in names if name in given}
    if not chosen:
        raise ValueError(f"The labels need an array for one of {', '.join(names)}.")
    return {name: _classes(model, name, array, count) for name, array in chosen.items()}


def _classes(model: Model, name: str, labels: np.ndarray, count: int) -> np.ndarray:
    """The class of every place of an output that has one, int64, samples along the first axis."""
    shape = _output_shape(model, name)
    if labels.ndim > 1 and labels.shape[1:] == shape and shape[-1] > 1:  # one-hot
        labels = np.argmax(labels, axis=-1)
    most = max(shape[-1] if shape else 1, 2) - 1
    places = count * int(np.prod(shape[:-1]))
    whole = labels.dtype.kind in "iub" or np.all(labels == np.floor(labels))
    if len(labels) != count or labels.size != places or not whole:
        raise ValueError(
            f"The labels of {name!r} must be {places} whole numbers for {count} samples, got "
            f"{labels.dtype} of shape {labels.shape}."
        )
    if labels.min() < 0 or labels.max() > most:
        raise ValueError(
            f"The labels of {name!r} must be from 0 to {most}, got {labels.min()} to "
            f"{labels.max()}."
        )
    return labels.reshape(count, -1).astype(np.int64)


def _output_shape(model: Model, name: str) -> tuple[int, ...]:
    index = model.main.outputs[samples.output_names(model).index(name)]
    return tuple(model.main.tensors[index].shape[1:])


def measure(
    model: Model, labels: Mapping[str, np.ndarray], runners: Mapping[str, Runner]
) -> tuple[Accuracy, ...]:
    """Run every runner and count.

    The class is the best value along the last axis, the first of equals; of a single value, whether
    it is at least 0.5, as of a sigmoid.

    Args:
        model: the file, for the names of its outputs.
        labels: as from `labels_of`.
        runners: name -> function that computes all outputs, real numbers, in the file's order.

    Returns:
        A figure for each runner and output; with the reason where a runner cannot run.
    """
    found = []
    for name, run in runners.items():
        try:
            outputs = dict(zip(samples.output_names(model), run(), strict=True))
        except (CompilerError, RuntimeFailedError, ValueError) as error:
            reason = " ".join(str(error).split())
            found += [Accuracy(name, output, None, reason) for output in labels]
            continue
        found += [
            Accuracy(name, output, float(np.mean(_predicted(outputs[output]) == classes)))
            for output, classes in labels.items()
        ]
    return tuple(found)


def _predicted(outputs: np.ndarray) -> np.ndarray:
    single = outputs.ndim == 1 or outputs.shape[-1] == 1
    classes = outputs >= 0.5 if single else np.argmax(outputs, axis=-1)
    return classes.reshape(len(outputs), -1)


def in_runtime(model: Model, inputs: Sequence[np.ndarray], name: str) -> Runner:
    """Runs a file in a runtime."""

    def run() -> list[np.ndarray]:
        if not runtime.available(name):
            raise RuntimeFailedError(f"{name} is not installed.")
        return samples.real(model, runtime.run(model, inputs, runtime=name).outputs)

    return run


def as_c(
    model: Model,
    inputs: Sequence[np.ndarray],
    files: Mapping[str, str] | None = None,
) -> Runner:
    """Compiles and runs the C of a file: that in `files`, or what is made of it."""

    def run() -> list[np.ndarray]:
        sources = generate.generate(model).files if files is None else files
        return samples.real(model, stream_run.run(sources, model, inputs, flags=()))

    return run


def runners_of(
    model: Model,
    inputs: Sequence[np.ndarray],
    *,
    predictions: Mapping[str, np.ndarray] | None,
    files: Mapping[str, str] | None = None,
) -> dict[str, Runner]:
    """Everything that computes the network: Keras, LiteRT, TFLM, C.

    Args:
        model: the canonical file, or one that TFLM alone runs.
        inputs: stored values, one array per input.
        predictions: the trained model's outputs by name; None if it was not given.
        files: generated C to use instead of C made of the file.
    """
    runners: dict[str, Runner] = {}
    if predictions is not None:
        chosen = samples.by_name(predictions, samples.output_names(model), "The file's outputs")
        runners["Keras"] = lambda: list(chosen.values())
    runners |= {name: in_runtime(model, inputs, name) for name in (runtime.LITERT, TFLM)}
    runners["C"] = as_c(model, inputs, files)
    return runners
