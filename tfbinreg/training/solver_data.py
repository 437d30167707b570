"""Samples with their labels, and the files in which a solver keeps what it has finished."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.training import calibrate

_START = "start"  # in a checkpoint file: the fingerprint of what the solver started from


def labelled_samples(data: Any, inputs: Sequence[Any]) -> tuple[list[Any], list[Any] | None]:
    """The first 512 samples of `data` and their labels, in the same batches.

    Args:
        data: as `sample_batches` takes it. Labels are the second part of (inputs, labels) tuples,
            also of batches, and `labels` of an .npz file.
        inputs: `model.inputs`.

    Returns:
        Batches of inputs and of labels; None in place of the latter if there are none.

    Raises:
        ValueError: as `sample_batches`.
    """
    if isinstance(data, (str, os.PathLike)):
        data = _file_with_labels(os.fspath(data))
    pairs: list[Any] = []
    if isinstance(data, tuple) and len(data) > 1:
        whole = data[:2]
        calibrate.sample_batches(whole, inputs)  # says what is wrong with the inputs
        if len(tf.nest.flatten(whole[0])[0]) != len(tf.nest.flatten(whole[1])[0]):
            raise ValueError("The data has other numbers of samples and of labels.")
        pairs = list(_first(calibrate.in_batches(whole)))
    elif _may_be_pairs(data):
        found = list(_first(iter(data)))
        if found and all(isinstance(batch, tuple) and len(batch) > 1 for batch in found):
            pairs = [batch[:2] for batch in found]
            calibrate.sample_batches([batch[0] for batch in pairs], inputs)
        else:
            data = found
    if not pairs:
        return calibrate.sample_batches(data, inputs), None
    both = calibrate.cut_evenly([tf.nest.map_structure(np.asarray, pair) for pair in pairs])
    labels = [pair[1] for pair in both]
    numbers = [part for part in tf.nest.flatten(labels) if part.dtype.kind == "f"]
    if not all(np.all(np.isfinite(part)) for part in numbers):
        raise ValueError("The labels have NaN or infinite values.")
    return [pair[0] for pair in both], labels


def _may_be_pairs(data: Any) -> bool:
    """Whether data has to be iterated to find out if it consists of batches with labels."""
    if isinstance(data, list):
        return bool(data) and isinstance(data[0], tuple)
    return hasattr(data, "__iter__") and not isinstance(data, (tuple, dict, np.ndarray, tf.Tensor))


def _first(batches: Iterator[Any]) -> Iterator[Any]:
    """Batches up to the number of samples that are used."""
    count = 0
    for batch in batches:
        yield batch
        count += len(tf.nest.flatten(batch)[0])
        if count >= calibrate.MAX_SAMPLES:
            return


def _file_with_labels(path: str) -> Any:
    """The contents of a file, as (inputs, labels) if it has labels."""
    inputs = calibrate.read_samples(path)
    if not path.endswith(".npz"):
        return inputs
    with np.load(path, allow_pickle=False) as loaded:
        labels = loaded[calibrate.LABELS] if calibrate.LABELS in loaded.files else None
    return inputs if labels is None else (inputs, labels)


def fingerprint(*parts: Any) -> str:
    """A number that changes if one of the texts or arrays changes."""
    digest = hashlib.sha256()
    for part in tf.nest.flatten(parts):
        array = np.asarray(part)
        text = part if isinstance(part, str) else f"{array.dtype}{array.shape}"
        digest.update(text.encode())
        digest.update(b"" if isinstance(part, str) else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class Checkpoint:
    """A folder with a file for each part that a solver has finished.

    Args:
        folder: is created if it does not exist; None saves nothing.
        start: fingerprint of what the solver starts from.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, start: str) -> None:
        self._folder = None if folder is None else pathlib.Path(folder)
        self._start = start
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    def recall(self, part: str) -> dict[str, np.ndarray] | None:
        """The saved results of a part; None if there are none.

        Raises:
            ValueError: if it was saved from another start, or the file cannot be read.
        """
        path = self._path(part)
        if path is None or not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as loaded:
                arrays = {name: loaded[name] for name in loaded.files}
            start = str(arrays.pop(_START))
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ValueError(f"Checkpoint {str(path)!r} cannot be read: {error}.") from None
        if start != self._start:
            raise ValueError(
                f"Checkpoint {str(path)!r} is of another model, other data or other options: "
                "choose another folder, or remove it."
            )
        return arrays

    def keep(self, part: str, **arrays: Any) -> None:
        """Write a part's file atomically: it is complete or does not exist."""
        path = self._path(part)
        if path is None:
            return
        partial = path.with_name(f"{path.name}.part")
        contents: Any = {**arrays, _START: np.array(self._start)}
        with open(partial, "wb") as file:
            np.savez(file, **contents)
        os.replace(partial, path)

    def _path(self, part: str) -> pathlib.Path | None:
        if self._folder is None:
            return None
        safe = "".join(c if c.isalnum() or c in "-_." else f"%{ord(c):x}" for c in part)
        return self._folder / f"{safe}.npz"
