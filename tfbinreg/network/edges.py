"""What a model takes and returns: the nesting of its inputs and outputs, and the outputs' names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tensorflow import nest

from tfbinreg import _compat

keras = _compat.keras


def nested_inputs(model: Any) -> Any:
    """The symbolic inputs of a model of either Keras, in the lists, tuples and dicts it takes."""
    return _functional(model).input


def nested_outputs(model: Any) -> Any:
    """The symbolic outputs of a model of either Keras, in the form it returns them."""
    return _functional(model).output


def output_names(model: Any) -> list[str]:
    """What Keras calls a model's outputs in losses, metrics and logs, in the order of `nest`.

    Keras 3 takes the keys of a dict of outputs, and the layers' names otherwise. Names that occur
    twice are numbered as in tf_keras.
    """
    own = _functional(model).output_names
    return _numbered(own if isinstance(model, keras.Model) else names(nested_outputs(model), own))


def names(tensors: Any, own: Sequence[str]) -> list[str]:
    """What a user calls inputs or outputs: the keys of a dict of tensors, else `own`."""
    if isinstance(tensors, dict) and not any(map(nest.is_nested, tensors.values())):
        return sorted(tensors)
    return list(own)


def flat_arguments(model: Any, given: Any) -> list[Any]:
    """`given`, in any form that `model` can be called with, in the order of its flat inputs."""
    wanted = nested_inputs(model)
    if isinstance(given, dict):
        keys = sorted(wanted) if isinstance(wanted, dict) else _layer_names(wanted)
        if all(key in given for key in keys):
            return nest.flatten([given[key] for key in keys])
    return nest.flatten(given)


def _layer_names(tensors: Any) -> list[str]:
    return [tensor._keras_history[0].name for tensor in nest.flatten(tensors)]


def _functional(model: Any) -> Any:
    """The Functional model inside a Keras 3 Sequential, else the model itself."""
    return getattr(model, "_functional", None) or model


def _numbered(names: Iterable[str]) -> list[str]:
    """The names, each that was there before with the first free number."""
    unique: list[str] = []
    for name in names:
        wanted, number = name, 1
        while wanted in unique:
            wanted, number = f"{name}_{number}", number + 1
        unique.append(wanted)
    return unique
