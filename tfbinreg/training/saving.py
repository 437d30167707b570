"""Loading models, float and quantized."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator
from typing import Any
from zipfile import BadZipFile

import h5py

from tfbinreg import _compat
from tfbinreg.layers.sites import require_quantized
from tfbinreg.training.keras_files import with_slashes
from tfbinreg.training.model import QuantizedModel

keras = _compat.keras

_MOST_TEXT = 500  # characters of a library's error, which may hold a whole model


def quantize_scope(
    custom_objects: dict[str, Any] | None = None,
) -> contextlib.AbstractContextManager:
    """Scope in which `tf_keras.models.load_model` knows the classes of a quantized model.

    A model loaded from a SavedModel folder can be run and converted. To train it, use `load_model`.

    Args:
        custom_objects: additional classes by name, for layers of your own.
    """
    return _compat.tfmot_keras.quantize_scope({**_compat.REGISTERED, **(custom_objects or {})})


def load_model(
    path: str | os.PathLike[str],
    *,
    custom_objects: dict[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> Any:
    """Load a quantized model from a .keras or .h5 file or a SavedModel folder.

    The bin regularization is attached again, at the strength that was saved. A compiled model is
    loaded compiled and can continue training; a model from a SavedModel folder has to be compiled
    again.

    Args:
        path: the path that was passed to `model.save`.
        custom_objects: additional classes by name, for layers of your own.
        compile: whether a model that was saved compiled is loaded compiled.
        safe_mode: whether to reject code saved in a .keras file, as in a Lambda layer.

    Raises:
        ValueError: if the path does not exist, cannot be read as a model, or holds a model that is
            not quantized.
    """
    path = os.fspath(path)
    with _reading(path) as file, quantize_scope(custom_objects):
        keras3 = _saved_by(file).startswith("3.")
        options = {"compile": compile, "safe_mode": safe_mode}
        model = None if keras3 else keras.models.load_model(file, **options)
    if model is None:
        raise ValueError(f"The model in {path!r} is not quantized: call quantize_apply first.")
    if not isinstance(model, QuantizedModel):
        require_quantized(model)
    return _rebuilt(model) if os.path.isdir(path) else model


def load_float_model(path: str | os.PathLike[str]) -> Any:
    """Load a float model with the Keras that saved it, tf_keras or Keras 3.

    Raises:
        ValueError: if the path does not exist or cannot be read as a model.
    """
    path = os.fspath(path)
    with _reading(path) as file:
        if _saved_by(file).startswith("3."):
            import keras as keras3

            return keras3.models.load_model(file, compile=False)
        return keras.models.load_model(file, compile=False)


def saved_loss(path: str | os.PathLike[str]) -> Any:
    """The loss that a model was compiled with when it was saved, as Keras recorded it.

    Returns:
        A name, or a dict with `class_name` and `config`; a list or dict of these for several
        outputs; None if the model was not compiled, or is a SavedModel folder.

    Raises:
        ValueError: if the path does not exist or cannot be read as a model.
    """
    with _reading(os.fspath(path)) as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                config = json.loads(archive.read("config.json")).get("compile_config")
        elif os.path.isfile(file) and h5py.is_hdf5(file):
            with h5py.File(file) as opened:
                config = json.loads(opened.attrs.get("training_config", "null"))
        else:
            config = None
        return (config or {}).get("loss")


@contextlib.contextmanager
def _reading(path: str) -> Iterator[str]:
    """Scope for reading a file: every error in it becomes a ValueError that names the path."""
    if not os.path.exists(path):
        raise ValueError(f"No model at {path!r}.")
    try:
        with with_slashes(path) as file:
            yield file
    except (OSError, KeyError, TypeError, AttributeError, ValueError, BadZipFile) as error:
        text = " ".join(str(error).split())
        short = text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}..."
        raise ValueError(f"{path!r} cannot be read as a Keras model: {short}") from error


def _saved_by(path: str) -> str:
    """Version of the Keras that saved a .keras or .h5 file; "2." for anything else."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json")).get("keras_version", "2."))
    if os.path.isfile(path) and h5py.is_hdf5(path):
        with h5py.File(path) as file:
            version = file.attrs.get("keras_version", "2.")
            return version.decode() if isinstance(version, bytes) else str(version)
    return "2."


def _rebuilt(model: QuantizedModel) -> QuantizedModel:
    """The same model from its configuration: Keras gives a SavedModel's layers traced functions in
    addition to their own code, counts the penalty twice, cannot train them and unfreezes them all.
    """
    rebuilt = QuantizedModel.from_config(model.made_from)
    loaded = {
        weight.name: weight for weight in model.weights
    }  # their order is that of all unfrozen
    for weight in rebuilt.weights:
        weight.assign(loaded[weight.name])
    return rebuilt
