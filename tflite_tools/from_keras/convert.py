"""Trained model -> .tflite file, or reference for `verify`. Imports tfbinreg, like `fit_flash`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tflite_tools.checks import operator_checks
from tflite_tools.checks.trained_model import Reference
from tflite_tools.from_keras.model_samples import model_samples
from tflite_tools.running import samples
from tflite_tools.schema import contents
from tflite_tools.schema.contents import Model
from tflite_tools.system import files
from tflite_tools.system.progress import Advance, quietly

INPUT_TYPES = ("int8", "float32")


@dataclasses.dataclass(frozen=True, eq=False)
class Finalized:
    """A model that was finalized during conversion.

    Attributes:
        file: its canonical int8 file.
        saved: the finalized model as the bytes of a .keras file.
        report: what `finalize` did, as text.
    """

    file: Model
    saved: bytes
    report: str


def finalized(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    *,
    input_type: str = "int8",
    output_type: str | None = None,
    notes: Mapping[str, str] | None = None,
    advance: Advance = quietly,
) -> Finalized:
    """Finalize a saved quantized model and convert it; the saved file is not changed.

    Args:
        path: a .keras or .h5 file, or a SavedModel folder.
        arrays: training inputs: one unnamed array, or arrays by input name; integer classes as
            `labels` let `finalize` choose by accuracy.
        input_type: as for `convert`.
        output_type: the same.
        notes: the same.
        advance: is called with what is being done.

    Raises:
        ValueError: if the model or the arrays cannot be used.
        RuntimeError: as for `convert`.
    """
    if is_tflite(path):
        raise ValueError(f"--finalize_data needs a Keras model: {os.fspath(path)!r} is TFLite.")
    model = load(path)
    from tfbinreg.deploy.export import to_tflite
    from tfbinreg.training.finalize import finalize

    inputs, labels = model_samples(model, arrays)
    given = inputs if len(inputs) > 1 else inputs[0]
    seen = given if labels is None else (given, labels.reshape(-1))
    report = finalize(model, seen, advance=advance)
    with tempfile.TemporaryDirectory() as folder:
        saved = os.path.join(folder, "finalized.keras")
        model.save(saved)
        shape = [array.shape[1:] for array in inputs]
        data = to_tflite(
            model,
            input_type=input_type,
            output_type=output_type,
            input_shape=shape,
            notes=notes,
        )
        return Finalized(contents.load(data), files.read(saved), str(report))


def convert(
    path: str | os.PathLike[str],
    *,
    input_type: str = "int8",
    output_type: str | None = None,
    input_shape: Sequence[tuple[str | None, tuple[int, ...]]] = (),
    notes: Mapping[str, str] | None = None,
) -> Model:
    """Convert a saved quantized model to the canonical int8 file.

    Args:
        path: a .keras or .h5 file, or a SavedModel folder.
        input_type: "int8", or "float32" for a file that quantizes its inputs itself.
        output_type: likewise; None for the input type.
        input_shape: for a model with open input sizes, the shape of a sample, without a name or one
            for each input name.
        notes: texts for the quantization card (`schema.card.NOTES`).

    Raises:
        ValueError: if the model cannot be loaded, or has no exact integer form.
        RuntimeError: if TensorFlow is missing, or the converter lost codes.
    """
    model = load(path, compile=False)
    from tfbinreg.core.warning import QuantizationWarning
    from tfbinreg.deploy.export import to_tflite

    with warnings.catch_warnings():
        # The command tells it from the manifest.
        warnings.simplefilter("ignore", QuantizationWarning)
        data = to_tflite(
            model,
            input_type=input_type,
            output_type=output_type,
            input_shape=_shapes(input_shape),
            notes=notes,
        )
    return contents.load(data)


def _shapes(given: Sequence[tuple[str | None, tuple[int, ...]]]) -> Any:
    """Shapes as `to_tflite` takes them."""
    names = [name for name, _ in given]
    if None not in names:
        return dict(given) or None  # type: ignore[arg-type]
    if len(given) > 1:
        raise ValueError("Give --input_shape once, or NAME=SHAPE for each input.")
    return given[0][1]


def is_tflite(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a file that starts like a .tflite file."""
    try:
        with open(path, "rb") as stream:
            return stream.read(8)[4:] == b"TFL3"
    except OSError:
        return False


def canonical(
    path: str | os.PathLike[str],
    *,
    input_type: str | None = None,
    output_type: str | None = None,
    input_shape: Sequence[tuple[str | None, tuple[int, ...]]] = (),
    notes: Mapping[str, str] | None = None,
) -> Model:
    """The canonical int8 file of a saved quantized model, or such a file itself.

    Args:
        path: as for `convert`, or a .tflite file.
        input_type: as for `convert`; None for a .tflite file, which already has its types.
        output_type: the same.
        input_shape: as for `convert`; None for a .tflite file.
        notes: the same.

    Raises:
        ValueError: if the model cannot be loaded, or a type or shape is given for a .tflite file.
        RuntimeError: if TensorFlow is missing, or the converter lost codes.
    """
    if not is_tflite(path) and not _named_tflite(path):
        return convert(
            path,
            input_type=input_type or INPUT_TYPES[0],
            output_type=output_type,
            input_shape=input_shape,
            notes=notes,
        )
    if input_type is not None or output_type is not None:
        raise ValueError(
            "--input_type and --output_type are for Keras models: a .tflite file has its types "
            "already."
        )
    if input_shape:
        raise ValueError("--input_shape is for Keras models: a .tflite file has its sizes already.")
    if notes:
        raise ValueError("--card is for Keras models: a .tflite file has its card already.")
    return contents.load(files.read(path))


def _named_tflite(path: str | os.PathLike[str]) -> bool:
    return os.fspath(path).endswith(".tflite") and os.path.isfile(path)


def reference(path: str | os.PathLike[str], inputs: Mapping[str, np.ndarray]) -> Reference:
    """Codes, predictions and activations of a saved quantized model.

    Args:
        path: a .keras or .h5 file, or a SavedModel folder.
        inputs: name of an input -> float array, samples along the first axis.

    Raises:
        ValueError: if the model cannot be loaded, or the inputs do not fit it.
        RuntimeError: if TensorFlow is missing.
    """
    model = load(path, compile=False)
    from tensorflow import nest

    from tfbinreg.core.target import STATES, state_of, target_of
    from tfbinreg.deploy.deployed import Deployed
    from tfbinreg.deploy.freeze import integer_codes

    arrays = list(samples.by_name(inputs, model.input_names, "The model's inputs").values())
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    given = [array.shape[1:] for array in arrays]
    if not all(map(_fits, given, shapes)):
        raise ValueError(f"The reference model takes samples of shape {shapes}, got {given}.")
    outputs = nest.flatten(model.predict(nest.pack_sequence_as(model.input, arrays), verbose=0))
    form, state = Deployed(model), state_of(model)
    activations = form.activations([array[: operator_checks.SAMPLES] for array in arrays])
    return Reference(
        codes={name: coded.codes for name, coded in integer_codes(model).items()},
        predictions={
            name: np.asarray(output, np.float32)
            for name, output in zip(form.output_names(), outputs, strict=True)
        },
        activations={name: np.asarray(values, np.float32) for name, values in activations.items()},
        target=target_of(model),
        exact=state in STATES.values(),
    )


def _fits(given: Sequence[int], shape: Sequence[int | None]) -> bool:
    """Whether a shape matches; None matches any size."""
    if len(given) != len(shape):
        return False
    return all(want in (None, size) for size, want in zip(given, shape, strict=True))


@contextlib.contextmanager
def needs_tensorflow() -> Iterator[None]:
    """Scope of imports that fail where TensorFlow is not installed.

    Raises:
        RuntimeError: if one does.
    """
    try:
        yield
    except ImportError as error:
        reason = error.__cause__ or error  # tfbinreg says it in its own words
        raise RuntimeError(
            f"Reading a Keras model needs TensorFlow and tf_keras ({reason}): "
            "pip install tfbinreg, '.' in a clone"
        ) from error


def load(path: str | os.PathLike[str], *, compile: bool = True) -> Any:
    """A saved quantized model.

    Args:
        path: a .keras or .h5 file, or a SavedModel folder.
        compile: whether its loss is needed; the loss may be a function that is not known here.

    Raises:
        ValueError: if it cannot be loaded.
        RuntimeError: if TensorFlow is missing.
    """
    with needs_tensorflow():
        from tfbinreg.training.saving import load_model
    return load_model(path, compile=compile)
