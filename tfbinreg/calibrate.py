"""Start values of the activation steps from sample inputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
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


def sample_batches(data: Any) -> list[Any]:
    """The first 8 batches of `data`, 512 samples of an array.

    Raises:
        ValueError: if there are none, or they hold NaN or infinite values, or no numbers.
    """
    batches = list(itertools.islice(input_batches(data), MAX_BATCHES))
    if not batches:
        raise ValueError("The calibration data is empty.")
    for part in tf.nest.flatten(batches):
        if np.asarray(part).dtype.kind in "OSU":
            raise ValueError(f"The calibration data holds {np.asarray(part).dtype}, not numbers.")
        if not np.all(np.isfinite(np.asarray(part))):
            raise ValueError("The calibration data has NaN or infinite values.")
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
