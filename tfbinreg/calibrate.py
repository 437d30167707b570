"""Start values of the activation steps from sample inputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import activation_quantizers

BATCH_SIZE = 64
MAX_BATCHES = 8


def input_batches(data: Any) -> Iterator[Any]:
    """Batches of model inputs from an array, a list of arrays (one per input), a tf.data.Dataset
    or an iterable of batches; the labels of (inputs, labels) batches are dropped.

    Raises:
        ValueError: if the data is of none of these forms.
    """
    if isinstance(data, (np.ndarray, tf.Tensor)):
        for start in range(0, len(data), BATCH_SIZE):
            yield data[start : start + BATCH_SIZE]
    elif isinstance(data, list) and data and all(isinstance(part, np.ndarray) for part in data):
        for start in range(0, len(data[0]), BATCH_SIZE):
            yield [part[start : start + BATCH_SIZE] for part in data]
    elif hasattr(data, "__iter__"):
        for batch in data:
            yield batch[0] if isinstance(batch, tuple) else batch
    else:
        raise ValueError(
            "Expected an array, a list of arrays, a tf.data.Dataset or an iterable of batches, "
            f"got {type(data).__name__}."
        )


def check_batch(batch: Any, inputs: Sequence[Any]) -> None:
    """Check that a batch has the shapes of a model's inputs, but for axes of length 1 at the end.

    Args:
        batch: an array, a list of arrays, or a dictionary of them by the inputs' names.
        inputs: `model.inputs`.

    Raises:
        ValueError: naming the input and both shapes.
    """
    parts = tf.nest.flatten(batch)
    if len(parts) != len(inputs):
        count = f"{len(parts)} arrays a batch, the model {len(inputs)} inputs"
        raise ValueError(f"The data has {count}.")
    if isinstance(batch, dict):
        parts = [batch.get(tensor.name, part) for tensor, part in zip(inputs, parts, strict=True)]
    for tensor, part in zip(inputs, parts, strict=True):
        found, wanted = tuple(np.shape(part)[1:]), tuple(tensor.shape[1:])
        pairs = list(itertools.zip_longest(found, wanted, fillvalue=1))
        if any(size is not None and have != size for have, size in pairs):
            raise ValueError(
                f"The data for input {tensor.name!r} has samples of shape {found}, the model takes "
                f"{wanted}."
            )


def sample_batches(data: Any, inputs: Sequence[Any] | None = None) -> list[Any]:
    """The first 8 batches of `data`, 512 samples of an array.

    Args:
        data: see `input_batches`.
        inputs: `model.inputs`, whose shapes they must have; None does not check that.

    Raises:
        ValueError: if there are none, or they hold NaN or infinite values, or no numbers, or do
            not fit `inputs`.
    """
    batches = list(itertools.islice(input_batches(data), MAX_BATCHES))
    if not batches:
        raise ValueError("The calibration data is empty.")
    for part in tf.nest.flatten(batches):
        if np.asarray(part).dtype.kind in "OSU":
            raise ValueError(f"The calibration data holds {np.asarray(part).dtype}, not numbers.")
        if not np.all(np.isfinite(np.asarray(part))):
            raise ValueError("The calibration data has NaN or infinite values.")
    if inputs is not None:
        for batch in batches:
            check_batch(batch, inputs)
    return batches


def calibrate(model: Any, batches: list[Any]) -> None:
    """Set every activation step to the mean of its start value over `batches`.

    Args:
        model: a model from `quantize_apply`; only its activation steps change.
        batches: model inputs, see `sample_batches`.
    """
    estimates: activation_quantizers.Estimates = {}
    for batch in batches:
        with activation_quantizers.calibration(estimates):
            model(tf.nest.map_structure(tf.convert_to_tensor, batch), training=False)
