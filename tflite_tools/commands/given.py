"""Inputs of a command: paths that are checked before anything slow, and opened files."""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from tflite_tools.commands.arguments import PROGRAM
from tflite_tools.running import samples
from tflite_tools.schema import contents as models
from tflite_tools.schema.contents import Model
from tflite_tools.system import files
from tflite_tools.system.suggestions import similar_file

_KERAS_MAGIC = (b"PK\x03\x04", b"\x89HDF")
_MODELS = (".keras", ".h5", ".hdf5", ".pb")
_PATHS = (
    *("model", "file", "first", "second", "reference", "canonical"),
    *("inputs", "labels", "data", "finalize_data", "validation_data", "recipe_file"),
)


def check_paths(arguments: argparse.Namespace) -> None:
    """Check that every file that a command reads exists.

    Raises:
        ValueError: naming all that do not exist.
    """
    given = [getattr(arguments, name, None) for name in _PATHS]
    given += getattr(arguments, "files", ())
    missing = [path for path in given if path is not None and not os.path.exists(path)]
    if missing:
        listed = ", ".join(map(repr, dict.fromkeys(missing)))
        similar = dict.fromkeys(filter(None, map(similar_file, missing)))
        meant = f" Did you mean {', '.join(map(repr, similar))}?" if similar else ""
        raise ValueError(f"Cannot read {listed}: No such file or directory.{meant}")


def check_output(path: str, *, kind: str, suffix: str, wrong: tuple[str, ...] = ()) -> None:
    """Check that the name of an output does not suggest another kind of file.

    Args:
        path: of the output.
        kind: what is written, for the message.
        suffix: the usual ending, "" for a folder.
        wrong: endings that are rejected in addition to those of Keras models.

    Raises:
        ValueError: with a name to use instead.
    """
    target = pathlib.Path(path)
    if target.suffix.lower() in (*_MODELS, *wrong):
        better = target.with_suffix(suffix)
        raise ValueError(
            f"--output {path!r}: what is written is {kind}. Give another name, {str(better)!r} for "
            "example."
        )


def opened(path: str) -> Model:
    """A .tflite file; errors name it."""
    data = _read(path)
    try:
        return models.load(data)
    except ValueError as error:
        raise ValueError(f"{path!r}: {error}") from error


def _read(path: str) -> bytes:
    """The bytes of a .tflite file; errors for a folder or a Keras model say what to do instead."""
    refuse_folder(path)
    data = files.read(path)
    if data.startswith(_KERAS_MAGIC):
        raise ValueError(_keras_instead(path))
    return data


def _keras_instead(path: str) -> str:
    return (
        f"{path!r} is a Keras model, where a .tflite file is expected: write one with `{PROGRAM} "
        f"convert {path} --output {pathlib.Path(path).with_suffix('.tflite')}`. To see what is "
        "quantized in the model itself, print its `summary()` in Python."
    )


def refuse_folder(path: str) -> None:
    """Reject a folder where a file is expected.

    Raises:
        ValueError: with what to do instead.
    """
    if os.path.isfile(os.path.join(path, "saved_model.pb")):
        raise ValueError(_keras_instead(path))
    if os.path.isdir(path):
        raise ValueError(
            f"{path!r} is a folder. Of C, take the .tflite file it was made from: `{PROGRAM} "
            f"verify {path} --canonical INT8` shows that both are the same."
        )


def inputs_for(
    arguments: argparse.Namespace, model: Model, default: int
) -> Mapping[str, np.ndarray]:
    """The user's samples, or `default` random ones; real numbers by the names of the inputs."""
    if arguments.inputs is not None:
        return samples.arrange(model, files.read_arrays(arguments.inputs))
    count = getattr(arguments, "samples", None) or default
    return samples.seeded(model, samples=count, seed=arguments.seed)
