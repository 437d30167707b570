"""Columns that were constant when a Normalization was adapted; their factor would be 1e7."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfbinreg.core.warning import QuantizationWarning

_LEAST_DEVIATION = 1e-7  # Keras divides by this much at least


@contextlib.contextmanager
def constant_columns_kept_small(model: Any) -> Iterator[None]:
    """While active, constant columns of the Normalization layers in `model` have variance 1.

    Their mean is subtracted as before, so they are zero where they have their constant value. Keras
    would multiply the rounding error of the input's grid by 1e7. Warns about each layer with such
    columns.
    """
    changed: list[tuple[Any, Any]] = []
    try:
        for layer in model._flatten_layers():
            if type(layer).__name__ != "Normalization" or getattr(layer, "invert", False):
                continue
            variance = np.array(layer.variance)
            constant = np.sqrt(variance) <= _LEAST_DEVIATION
            if np.any(constant):
                changed.append((layer, layer.variance))
                layer.variance = np.where(constant, 1.0, variance).astype(variance.dtype)
                _warn(layer.name, np.flatnonzero(constant.reshape(-1)))
        yield
    finally:
        for layer, variance in changed:
            layer.variance = variance


def _warn(name: str, columns: np.ndarray) -> None:
    listed = ", ".join(map(str, columns))
    warnings.warn(
        f"{name}: column {listed} never changed in the data it was adapted to, so its factor would "
        "be 1e7; it is 1 instead. Leave the column out of the data, or adapt to data in which it "
        "changes.",
        QuantizationWarning,
        stacklevel=6,
    )
