"""Samples for a Keras model, and their labels, from the arrays of a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LABELS = "labels"


def model_samples(
    model: Any, arrays: Mapping[str, np.ndarray]
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """The model's inputs in order, float32, and the labels if there are any.

    Args:
        model: a Keras model.
        arrays: one unnamed array, or arrays by input name; integer classes as `labels`.

    Raises:
        ValueError: if they do not fit the model.
    """
    inputs, labels = samples_and_labels(model, arrays)
    if labels is not None:
        _check_labels(labels, model.outputs[0].shape[1:])
    return inputs, labels


def samples_and_labels(
    model: Any, arrays: Mapping[str, np.ndarray], what: str = "calibration data"
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """The same with labels of any kind, whose meaning depends on the loss. Errors refer to the
    arrays as `what`.
    """
    labels = arrays.get(LABELS)
    rest = {name: array for name, array in arrays.items() if name != LABELS}
    names = [tensor.name.split(":")[0] for tensor in model.inputs]
    if len(rest) == len(names) == 1:
        rest = {names[0]: next(iter(rest.values()))}
    if set(rest) != set(names):
        found = ", ".join(sorted(rest)) or "none"
        raise ValueError(f"The {what} needs an array for each of {names}; found {found}.")
    inputs = [np.asarray(rest[name], np.float32) for name in names]
    if any(array.ndim == 0 or len(array) == 0 for array in inputs):
        raise ValueError(f"The {what} is empty.")
    if len({len(part) for part in (*inputs, *([] if labels is None else [labels]))}) > 1:
        raise ValueError(f"The arrays of the {what} have different numbers of samples.")
    return inputs, labels


def _check_labels(labels: np.ndarray, shape: Sequence[int | None]) -> None:
    """Check that labels are indices into an output of that shape, one for each sample."""
    sizes = [size for size in shape if size is not None]
    last = math.prod(sizes) - 1 if len(sizes) == len(shape) else np.inf
    whole = labels.dtype.kind in "iu" and labels.size == len(labels)
    if not whole or labels.min() < 0 or labels.max() > last:
        raise ValueError(f"The labels must be a whole number for each sample, from 0 to {last}.")
