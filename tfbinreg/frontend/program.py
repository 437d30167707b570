"""A model of any front end as one flat list of steps: what `normalize` reads."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from tensorflow import nest

Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Ref:
    """The result of the step with this index, as an argument of a later one."""

    index: int


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """One call: of a layer, or of an operation.

    Attributes:
        name: unique in the program.
        origin: name of the layer in the user's model that it belongs to.
        origin_kind: class of that layer, where the step is only a part of what it computes.
        layer: a tf_keras layer with the configuration (built or not), None for an operation.
        weights: the layer's weights.
        weight_names: their names.
        activation: canonical name of the activation function behind the layer (in
            `layer_kinds.ACTIVATIONS`, or one that is not supported).
        operation: name of an operation ("add", "reshape", ...), None for a layer.
        args: positional arguments, `Ref`s among them; lists and tuples may hold more of them.
        kwargs: keyword arguments.
        shape: shape of the result, batch first.
        trainable: whether the layer is to be trained.
        over_time: whether the layer is called on each part of the second axis (TimeDistributed).
        activity_regularizer: the tf_keras regularizer of the layer's outputs, None without one.
        again: name of the step that calls the same layer first, None if this one does.
        problems: what the front end could not read, (what, remedy).
    """

    name: str
    origin: str
    shape: Shape
    layer: Any = None
    weights: tuple[np.ndarray, ...] = ()
    weight_names: tuple[str, ...] = ()
    activation: str = "linear"
    operation: str | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    trainable: bool = True
    over_time: bool = False
    activity_regularizer: Any = None
    again: str | None = None
    origin_kind: str | None = None
    problems: tuple[tuple[str, str], ...] = ()

    @property
    def kind(self) -> str:
        """Class of the layer, or the operation's name."""
        return self.operation or type(self.layer).__name__


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """The steps of a model in the order they can be run.

    Attributes:
        steps: `Ref(i)` is the result of `steps[i]`.
        nested_inputs: indices of the model's inputs, in the lists, tuples and dicts it takes; their
            steps have operation "input".
        nested_outputs: indices of the model's outputs, in the form it returns them.
        output_names: what losses and metrics call the outputs, in the order of `outputs`.
        name: the model's name.
    """

    steps: tuple[Step, ...]
    nested_inputs: Any
    nested_outputs: Any
    output_names: tuple[str, ...]
    name: str

    @property
    def inputs(self) -> list[int]:
        """Indices of the model's inputs."""
        return nest.flatten(self.nested_inputs)

    @property
    def outputs(self) -> list[int]:
        """Indices of the model's outputs."""
        return nest.flatten(self.nested_outputs)

    def uses(self) -> list[int]:
        """How often the result of each step is taken, by steps or as an output of the model."""
        counts = [0] * len(self.steps)
        for step in self.steps:
            if step.operation == "shape":
                continue  # it takes no numbers
            for ref in refs((step.args, step.kwargs)):
                counts[ref.index] += 1
        for index in self.outputs:
            counts[index] += 1
        return counts


def refs(arguments: Any) -> list[Ref]:
    """The `Ref`s in nested arguments, from left to right."""
    if isinstance(arguments, Ref):
        return [arguments]
    if isinstance(arguments, dict):
        return refs(list(arguments.values()))
    if isinstance(arguments, (list, tuple)):
        return [ref for part in arguments for ref in refs(part)]
    return []


def replaced(arguments: Any, replace: Callable[[Any], Any]) -> Any:
    """Nested lists, tuples and dicts with every leaf put through `replace`."""
    if isinstance(arguments, dict):
        return {key: replaced(value, replace) for key, value in arguments.items()}
    if isinstance(arguments, list):
        return [replaced(value, replace) for value in arguments]
    if type(arguments) is tuple:
        return tuple(replaced(value, replace) for value in arguments)
    return replace(arguments)


def layer_name(wanted: str) -> str:
    """`wanted`, with underscores for what the name of a tf_keras layer must not have: of Keras 3,
    where any name will do. It begins with a letter, a digit or a dot."""
    name = re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", wanted)
    return name if re.match(r"[A-Za-z0-9.]", name) else f"layer{name}"


def unique_name(wanted: str, taken: Iterable[str]) -> str:
    """`wanted`, with underscores behind it until it is not in `taken`."""
    while wanted in taken:
        wanted += "_"
    return wanted
