"""The loss that a model is trained with, and the targets that it takes.

Imports tf_keras through tfbinreg, and only when it is called.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_SPARSE, _CATEGORICAL = "sparse_categorical_crossentropy", "categorical_crossentropy"
_BINARY = "binary_crossentropy"
_CLASS_NAMES = {
    _SPARSE: "SparseCategoricalCrossentropy",
    _CATEGORICAL: "CategoricalCrossentropy",
    _BINARY: "BinaryCrossentropy",
    "mean_squared_error": "MeanSquaredError",
    "mean_absolute_error": "MeanAbsoluteError",
    "huber": "Huber",
}
_SHORT = {"mse": "mean_squared_error", "mae": "mean_absolute_error"}
_OPTIONS = ("from_logits", "label_smoothing", "ignore_class", "delta")
LOSSES = (*_CLASS_NAMES, *_SHORT)


class Loss(NamedTuple):
    """A loss of tf_keras.

    Attributes:
        name: one of `LOSSES`, in full.
        function: the loss object.
        from_logits: whether it treats the outputs as logits.
    """

    name: str
    function: Any
    from_logits: bool

    @property
    def has_classes(self) -> bool:
        """Whether the targets are classes, so that there is an accuracy."""
        return self.name in (_SPARSE, _CATEGORICAL, _BINARY)


def chosen_loss(path: str | os.PathLike[str], name: str | None, from_logits: bool) -> Loss:
    """The loss of this name, or else the one that the saved model was compiled with.

    Args:
        path: of the float model.
        name: one of `LOSSES`, or None.
        from_logits: for a `name` that is a crossentropy: whether the outputs are logits.

    Raises:
        ValueError: if there is none, or it is not one of `LOSSES`.
    """
    from tfbinreg.training.saving import saved_loss

    if name is not None:
        if from_logits and not name.endswith("crossentropy"):
            raise ValueError(f"--from_logits is for crossentropies, not for {name}.")
        return _loss(name, {"from_logits": True} if from_logits else {})
    if from_logits:
        raise ValueError("--from_logits goes with --loss.")
    saved = saved_loss(path)
    if saved is None:
        raise ValueError(
            f"The model in {os.fspath(path)!r} was saved without a loss: name one with --loss, of "
            f"{', '.join(_CLASS_NAMES)}."
        )
    config: Mapping[str, Any] = {}
    if isinstance(saved, str):
        found = _SHORT.get(saved, saved if saved in _CLASS_NAMES else None)
    elif isinstance(saved, Mapping) and "class_name" in saved:
        found = {cls: known for known, cls in _CLASS_NAMES.items()}.get(saved["class_name"])
        config = saved.get("config") or {}
    else:
        found = None
    if found is None:
        raise ValueError(
            f"The model in {os.fspath(path)!r} was compiled with a loss that is not known here. "
            f"Name one with --loss, of {', '.join(_CLASS_NAMES)}, or train in Python."
        )
    if found == "huber" and config and "delta" not in config:  # as Keras 3 saves it
        raise ValueError(
            f"The model in {os.fspath(path)!r} was compiled with a Huber loss, and Keras has not "
            "saved its delta: for a delta of 1 give --loss huber, for others train in Python."
        )
    return _loss(found, {key: config[key] for key in _OPTIONS if key in config})


def _loss(name: str, options: Mapping[str, Any]) -> Loss:
    from tfbinreg._compat import keras

    name = _SHORT.get(name, name)
    function = getattr(keras.losses, _CLASS_NAMES[name])(**options)
    return Loss(name, function, bool(options.get("from_logits", False)))


def targets(labels: np.ndarray, loss: Loss, shape: Sequence[int | None]) -> np.ndarray:
    """Labels in the form that a loss takes.

    Args:
        labels: whole numbers, one for each sample (or place), for crossentropies over classes; for
            other losses the target outputs.
        loss: which one.
        shape: of the model's output, without the batch.

    Raises:
        ValueError: if they do not fit.
    """
    own, whole = labels.shape[1:], labels.dtype.kind in "iu"
    if loss.name in (_SPARSE, _CATEGORICAL) and whole and not _fit(own, shape):
        return _classes(labels, shape, one_hot=loss.name == _CATEGORICAL)
    if loss.name == _SPARSE:
        raise ValueError(
            f"The labels must be a whole number for each sample for {loss.name}, got "
            f"{labels.dtype} of shape {own}."
        )
    if own == () and np.prod([size or 0 for size in shape]) == 1:
        labels = labels.reshape(-1, *(1 for _ in shape))
    if not _fit(labels.shape[1:], shape) or labels.dtype.kind not in "iufb":
        raise ValueError(
            f"The labels must be numbers of shape {tuple(shape)} for each sample for {loss.name}, "
            f"got {labels.dtype} of shape {own}."
        )
    if loss.has_classes and not (labels.min() >= 0 and labels.max() <= 1):
        raise ValueError(
            f"The labels must be from 0 to 1 for {loss.name}, got {labels.min()} to {labels.max()}."
        )
    return labels.astype(np.float32)


def _classes(labels: np.ndarray, shape: Sequence[int | None], *, one_hot: bool) -> np.ndarray:
    classes, places = shape[-1], tuple(shape[:-1])
    if labels.shape[1:] == (*places, 1):
        labels = labels[..., 0]
    if labels.size == len(labels) and all(size == 1 for size in places):
        labels = labels.reshape(-1, *places)
    if not _fit(labels.shape[1:], places):
        raise ValueError(
            f"The labels must be a whole number for each sample and place {places}, got shape "
            f"{labels.shape[1:]}."
        )
    most = np.inf if classes is None else classes - 1
    if labels.min() < 0 or labels.max() > most:
        raise ValueError(
            f"The labels must be classes from 0 to {most}, got {labels.min()} to {labels.max()}."
        )
    if not one_hot:
        return labels
    return (labels[..., None] == np.arange(classes or 0)).astype(np.float32)


def _fit(given: Sequence[int], shape: Sequence[int | None]) -> bool:
    return len(given) == len(shape) and all(
        want in (None, size) for size, want in zip(given, shape, strict=True)
    )


class Score(NamedTuple):
    """The score of a model on samples with targets.

    Attributes:
        loss: the mean.
        accuracy: share of correct classes; None for losses without classes.
    """

    loss: float
    accuracy: float | None


def score(loss: Loss, wanted: np.ndarray, outputs: np.ndarray) -> Score:
    """How far outputs are from targets.

    Args:
        loss: of the training.
        wanted: what `targets` has made.
        outputs: what the model predicts.

    Raises:
        ValueError: if a crossentropy gets outputs that are not probabilities.
    """
    inside = outputs.min() >= 0.0 and outputs.max() <= 1.0
    if loss.has_classes and not loss.from_logits and not inside:
        raise ValueError(
            f"The outputs are no probabilities ({outputs.min():.3g} to {outputs.max():.3g}), which "
            f"{loss.name} takes: if they are logits, give --loss {loss.name} --from_logits."
        )
    value = float(loss.function(wanted, outputs))
    return Score(value, float(np.mean(_right(loss, wanted, outputs))) if loss.has_classes else None)


def _right(loss: Loss, wanted: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    if loss.name == _BINARY:
        return (outputs > (0.0 if loss.from_logits else 0.5)) == (wanted > 0.5)
    classes = wanted if loss.name == _SPARSE else wanted.argmax(-1)
    return outputs.argmax(-1) == classes
