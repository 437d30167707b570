"""Start values of the activation steps, and moving statistics, from sample inputs."""

from __future__ import annotations

import contextlib
import itertools
import operator
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.core.warning import QuantizationWarning
from tfbinreg.layers.folded_kernel import FoldedKernel
from tfbinreg.layers.sites import activation_sites
from tfbinreg.methods.uniform_activations import Observer
from tfbinreg.training.batch_statistics import BatchStatistics

BATCH_SIZE = 64
MAX_SAMPLES = 512
LEAST_SAMPLES = 16  # for batch normalization's statistics to mean anything
LABELS = "labels"  # of an .npz file, which are no input


def in_batches(arrays: Any) -> Iterator[Any]:
    """Arrays in any structure, split into batches of 64 along their first axis."""
    for start in range(0, len(tf.nest.flatten(arrays)[0]), BATCH_SIZE):
        rows = slice(start, start + BATCH_SIZE)
        yield tf.nest.map_structure(operator.itemgetter(rows), arrays)


def labelled_batches(data: Any) -> Iterator[tuple[Any, Any]]:
    """(inputs, labels) batches of training data; the labels are None where there are none.

    Args:
        data: an array, a list or dict of arrays (one per input), a tuple of inputs and labels, a
            tf.data.Dataset, or an iterable (also a list) of batches of inputs or of tuples of
            inputs and labels. Arrays are split into batches of 64.

    Raises:
        ValueError: if the data has none of these forms, or the numbers of inputs and labels differ.
    """
    arrays = isinstance(data, list) and data and all(isinstance(p, np.ndarray) for p in data)
    if isinstance(data, tuple) and len(data) == 2:
        counts = {len(array) for array in tf.nest.flatten(data)}
        if len(counts) > 1:
            raise ValueError(f"Inputs and labels have different lengths: {sorted(counts)}.")
        yield from in_batches(data)
    elif isinstance(data, (np.ndarray, tf.Tensor)) or arrays or (isinstance(data, dict) and data):
        yield from ((batch, None) for batch in in_batches(data))
    elif hasattr(data, "__iter__"):
        for batch in data:
            inputs, *rest = batch if isinstance(batch, tuple) else (batch,)
            yield inputs, rest[0] if rest else None
    else:
        raise ValueError(
            "Expected an array, a list of arrays, a tf.data.Dataset or an iterable of batches, "
            f"got {type(data).__name__}."
        )


def input_batches(data: Any) -> Iterator[Any]:
    """The inputs of `labelled_batches`, without the labels."""
    return (inputs for inputs, _ in labelled_batches(data))


def check_batch(batch: Any, inputs: Sequence[Any]) -> None:
    """Check that a batch has the shapes of a model's inputs, except for trailing axes of length 1.

    Args:
        batch: an array, a list of arrays, or a dictionary of arrays by input name.
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
    """The first 512 samples of `data`, in batches of 64 or slightly more.

    Args:
        data: see `input_batches`; also (inputs, labels), whose labels are dropped, a list of
            batches, or the path of an .npy file (one input) or an .npz file (one array per input
            name).
        inputs: `model.inputs`, whose shapes the samples must have; None skips this check.

    Raises:
        ValueError: if there are no samples, or they contain NaN or infinite values, are not
            numbers, are all zeros, or do not fit `inputs`.
    """
    batches = []
    count = 0
    for batch in input_batches(_opened(data, inputs)):
        _check_numbers(batch)
        if inputs is not None:
            check_batch(batch, inputs)
        batches.append(batch)
        count += len(tf.nest.flatten(batch)[0])
        if count >= MAX_SAMPLES:
            break
    if not count:
        raise ValueError("The calibration data is empty.")
    if not any(np.any(np.asarray(part)) for part in tf.nest.flatten(batches)):
        raise ValueError("The calibration data is all zeros: no range can be seen in it.")
    return cut_evenly(batches)


def _opened(data: Any, inputs: Sequence[Any] | None) -> Any:
    """Data that is a path, labelled arrays or a list of batches, as `input_batches` takes it."""
    if isinstance(data, (str, os.PathLike)):
        return read_samples(os.fspath(data))
    if isinstance(data, tuple):
        return data[0] if data else data
    single = inputs is not None and len(inputs) == 1
    if isinstance(data, list) and len(data) > 1 and single and hasattr(data[0], "shape"):
        return iter(data)  # not an array per input
    return data


def read_samples(path: str) -> Any:
    """The array of an .npy file, or the arrays of an .npz file by name, without labels."""
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path!r} cannot be read as .npy or .npz: {error}") from None
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        return {name: loaded[name] for name in loaded.files if name != LABELS}


def _check_numbers(batch: Any) -> None:
    for part in tf.nest.flatten(batch):
        if np.asarray(part).dtype.kind in "OSU":
            raise ValueError(f"The calibration data holds {np.asarray(part).dtype}, not numbers.")
        if not np.all(np.isfinite(np.asarray(part))):
            raise ValueError("The calibration data has NaN or infinite values.")


def cut_evenly(batches: list[Any]) -> list[Any]:
    """The same samples in as many batches of at least 64 as they fill: the statistics of smaller
    batches are unreliable. Batches whose samples differ in shape stay as they are.
    """
    shapes = {tuple(np.shape(part)[1:] for part in tf.nest.flatten(batch)) for batch in batches}
    if len(shapes) > 1:
        return batches
    whole = tf.nest.map_structure(lambda *parts: np.concatenate(parts)[:MAX_SAMPLES], *batches)
    count = len(tf.nest.flatten(whole)[0])
    edges = np.linspace(0, count, max(1, count // BATCH_SIZE) + 1).astype(int)
    rows = [slice(start, end) for start, end in itertools.pairwise(edges)]
    return [tf.nest.map_structure(operator.itemgetter(part), whole) for part in rows]


def calibrate(model: Any, batches: list[Any]) -> None:
    """Start every activation step from its values over `batches`, and set the moving statistics.

    Meanwhile, normalizations use the statistics of each batch, as they do in training. Quantized
    weights give different statistics from the float weights that the moving averages come from, and
    steps started from those averages are several times too small at low bits. Each layer sees
    inputs that are already quantized. Afterwards, the moving statistics are those of the quantized
    model, and the weight steps of folded kernels are restarted from them.

    A grid on which the data shows only zeros gets a default step, with a warning.

    Args:
        model: a model from `quantize_apply` that has not been trained.
        batches: model inputs, see `sample_batches`.
    """
    by_batch = BatchStatistics(model)
    count = sum(len(tf.nest.flatten(batch)[0]) for batch in batches)
    if by_batch.norms and count < LEAST_SAMPLES:
        warnings.warn(
            f"The calibration data has {count} samples, too few for the statistics of batch "
            f"normalization: give at least {LEAST_SAMPLES}.",
            QuantizationWarning,
            stacklevel=3,
        )
    # Moving statistics stay as they are at a momentum of 1.
    with by_batch.momentum(1.0), _observed(model) as observers:
        for batch in batches:
            for observer in observers.values():
                observer.begin_batch()
            by_batch(batch)
    _start_unseen(model, [name for name, seen in observers.items() if seen.only_zeros])
    by_batch.measure(batches, folded=True)
    for layer in model.layers:
        if isinstance(layer, FoldedKernel):  # its kernel is another with other statistics
            layer.initialize_steps(model.recipe.weight_start)


@contextlib.contextmanager
def _observed(model: Any) -> Iterator[dict[str, Observer]]:
    """While active, eager passes start the activation grids; yields their observers by name."""
    sites = activation_sites(model)
    observers = {site.name: Observer(site.quantizer, site.variables) for site in sites}
    for site in sites:
        site.layer.observe_with(observers[site.name])
    try:
        yield observers
    finally:
        for site in sites:
            site.layer.observe_with(None)


def _start_unseen(model: Any, names: Sequence[str]) -> None:
    """Give a step to grids that saw only zeros, such as a dead ReLU's, and warn about them.

    Input grids are excluded, because training could not adapt them later.
    """
    unseen = [
        site for site in activation_sites(model) if site.name in names and not site.quantizer.fixed
    ]
    for site in unseen:
        site.quantizer.start_unseen(site.variables)
    if unseen:
        names = ", ".join(site.name.removesuffix("_grid") for site in unseen)
        warnings.warn(
            f"The outputs of {names} are all zero for the calibration data: what is behind gets "
            "no information from there. Check the data, or remove what is dead.",
            QuantizationWarning,
            stacklevel=4,
        )
