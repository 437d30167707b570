"""What of a model cannot be quantized: every reason at once, by layer name."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfbinreg import _compat
from tfbinreg.graph import trace
from tfbinreg.kinds import KINDS, Role
from tfbinreg.layers import QuantizeActivation
from tfbinreg.plan import Problem

keras = _compat.keras

_QUANTIZED = (_compat.QuantizeWrapper, QuantizeActivation)


def check_model_type(model: Any) -> None:
    """Raise unless `model` is a built Sequential or Functional tf_keras model.

    Raises:
        TypeError: if it is no tf_keras model at all.
        ValueError: if it is subclassed, or not built.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Expected a tf_keras model, got {type(model).__module__}.{type(model).__name__}. "
            "Build the model with tf_keras (pip install tf_keras), not with Keras 3."
        )
    if isinstance(model, keras.Sequential) and not _compat.is_graph_network(model):
        raise ValueError(
            f"Model {model.name!r} is not built: its input shape is unknown. Give the first layer "
            "an input_shape, or add an Input layer."
        )
    if not _compat.is_graph_network(model):
        raise ValueError(
            f"Model {model.name!r} is a subclassed model, whose layer graph cannot be read. "
            "Rebuild it as a Functional model: keras.Model(inputs, outputs)."
        )


def check_layers(model: Any) -> list[Problem]:
    """Everything in the layers of a built graph model that is not supported."""
    if any(isinstance(layer, _QUANTIZED) for layer in model.layers):
        return [Problem(model.name, "already quantized", "start from the float model")]
    problems = []
    seen: set[int] = set()
    for node in trace(model).nodes:
        if id(node.layer) in seen:
            problems.append(
                Problem(node.name, "layer used several times", "use one layer per place")
            )
            continue
        seen.add(id(node.layer))
        problems += [Problem(node.name, *problem) for problem in _check_layer(node.layer)]
    return problems


def _check_layer(layer: Any) -> list[tuple[str, str]]:
    kind = KINDS.get(type(layer).__name__)
    if kind is None or not type(layer).__module__.startswith("tf_keras."):
        supported = ", ".join(name for name, row in KINDS.items() if row.role is not Role.INPUT)
        what = f"layer class {type(layer).__name__} is not supported"
        return [(what, f"replace it by supported layers ({supported})")]
    return kind.check(layer) + _check_weights(layer, kind.role)


def _check_weights(layer: Any, role: Role) -> list[tuple[str, str]]:
    problems = []
    for variable in layer.weights:
        value = np.asarray(variable)
        name = variable.name.split("/")[-1].split(":")[0]
        if not np.all(np.isfinite(value)):
            problems.append((f"{name} has NaN or infinite values", "train or load it again"))
        elif role in (Role.KERNEL, Role.REWRITE) and "kernel" in name and not np.any(value):
            problems.append((f"{name} is all zeros", "train it first, or remove the layer"))
    return problems
