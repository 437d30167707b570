"""What a layer of somebody else's computes: its `call`, run on symbolic tensors, as a model."""

from __future__ import annotations

import contextlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from tfbinreg.frontend.keras_dialects import Call, Keras2, Keras3, is_tensor
from tfbinreg.frontend.program import replaced

CONTEXT = ("training", "name", "mask")  # arguments that say nothing of the computation


# What TensorFlow and Keras say where the code of others asks a tensor for its values.
_BRANCHES = ("used as a boolean", "not implement `__len__`", "To be compatible with tf.function")


class UntraceableError(Exception):
    """Why a layer cannot be traced."""


@contextlib.contextmanager
def traced(front: Keras2 | Keras3, call: Call) -> Iterator[Any]:
    """The layer of a call as a model of its Keras that takes the call's tensors, at inference.

    The layers that it calls are the user's own, so the model is for reading only, and what was
    recorded in them is taken back at the end. Variables that `call` computes with are numbers in
    the model.

    Raises:
        UntraceableError: if `call` fails, or returns anything but what it computes from tensors.
    """
    layer = call.target
    parts = list(layer._flatten_layers())
    recorded = [len(part._inbound_nodes) for part in parts]
    try:
        yield _model(front, call)
    finally:
        for part, count in zip(parts, recorded, strict=True):
            del part._inbound_nodes[count:]


@contextlib.contextmanager
def traced_function(front: Keras2 | Keras3, function: Any, tensor: Any) -> Iterator[Any]:
    """A function of one tensor as a model of its Keras; `function` may be a layer.

    Raises:
        UntraceableError: as `traced`.
    """
    parts = list(function._flatten_layers()) if hasattr(function, "_flatten_layers") else []
    recorded = [len(part._inbound_nodes) for part in parts]
    given = front.keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype)
    try:
        try:
            model = front.keras.Model(given, function(given))
        except Exception as error:  # anything may go wrong in the code of others
            raise UntraceableError(_reason(error)) from error
        yield model
    finally:
        for part, count in zip(parts, recorded, strict=True):
            del part._inbound_nodes[count:]


def _model(front: Keras2 | Keras3, call: Call) -> Any:
    inputs: list[Any] = []

    def own(leaf: Any) -> Any:
        if not is_tensor(leaf):
            return leaf
        inputs.append(front.keras.Input(batch_shape=tuple(leaf.shape), dtype=leaf.dtype))
        return inputs[-1]

    args = replaced(tuple(call.args), own)
    kwargs = replaced({k: v for k, v in call.kwargs.items() if k not in CONTEXT}, own)
    function = call.target.call
    try:
        if "training" in inspect.signature(function).parameters:
            kwargs["training"] = False
        with front.casting(call.target):
            return front.keras.Model(inputs, function(*args, **kwargs))
    except Exception as error:  # anything may go wrong in the code of others
        raise UntraceableError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """The first line of an error, without what Keras wraps it in."""
    lines = [re.sub(r"\x1b\[\d*m", "", line).strip() for line in str(error).splitlines()]
    if any(words in str(error) for words in _BRANCHES):
        return "it branches on the values of a tensor, and a file computes the same for all"
    own = [line for line in lines if line and not line.startswith("Exception encountered when")]
    return textwrap.shorten(own[0], 120, placeholder="...") if own else type(error).__name__
