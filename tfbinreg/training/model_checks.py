"""What kind of model can be quantized at all."""

from __future__ import annotations

import sys
from typing import Any

from tfbinreg import _compat
from tfbinreg.core.problems import Problem, raise_problems
from tfbinreg.layers.kernel import QuantizeActivation

keras = _compat.keras

_QUANTIZED = (_compat.QuantizeWrapper, QuantizeActivation)


def check_model(model: Any) -> None:
    """Raise unless `model` is a built Sequential or Functional float model.

    Raises:
        TypeError: if it is neither a tf_keras nor a Keras 3 model.
        ValueError: if it is subclassed, not built, or already quantized.
    """
    if isinstance(model, keras.Model):
        is_graph, is_sequential = (
            _compat.is_graph_network(model),
            isinstance(model, keras.Sequential),
        )
    elif is_keras3(model):
        is_graph, is_sequential = (
            hasattr(_functional(model), "_nodes_by_depth"),
            hasattr(model, "add"),
        )
    else:
        raise TypeError(
            f"Expected a Keras model, got {type(model).__module__}.{type(model).__name__}."
        )
    if is_sequential and not is_graph:
        raise ValueError(
            f"Model {model.name!r} is not built: its input shape is unknown. Give the first layer "
            "an input_shape, or add an Input layer."
        )
    if not is_graph:
        raise ValueError(
            f"Model {model.name!r} is a subclassed model, whose layer graph cannot be read. "
            "Rebuild it as a Functional model: keras.Model(inputs, outputs)."
        )
    quantized = [layer for layer in model._flatten_layers(False) if _is_quantized(layer)]
    if quantized:
        inner = [layer for layer in quantized if layer is not model]
        whole = [layer for layer in inner if isinstance(layer, keras.Model)]
        what = f"holds the quantized model {whole[0].name!r}" if whole else "already quantized"
        problem = Problem(model.name, what, "start from the float model")
        raise_problems([problem], f"quantize model {model.name!r}")


def _is_quantized(layer: Any) -> bool:
    return isinstance(layer, _QUANTIZED) or hasattr(layer, "recipe")


def is_keras3(model: Any) -> bool:
    """Whether `model` is a Keras 3 model. Does not import Keras 3 if it is not imported yet."""
    keras3 = sys.modules.get("keras")
    return hasattr(keras3, "KerasTensor") and isinstance(model, keras3.Model)  # type: ignore[union-attr]


def _functional(model: Any) -> Any:
    """The Functional model inside a Keras 3 Sequential."""
    return getattr(model, "_functional", model)
