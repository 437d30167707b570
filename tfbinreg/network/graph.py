"""The layer graph of a Keras model as a plain list, and how to build another model along it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tensorflow import nest

from tfbinreg import _compat

keras = _compat.keras


@dataclasses.dataclass(frozen=True)
class Place:
    """Stands in the arguments of a call for the output of the node `inputs[index]`."""

    index: int


@dataclasses.dataclass(frozen=True)
class Node:
    """One call of a layer.

    Attributes:
        index: position in the graph's topological order.
        layer: the Keras layer that is called.
        inputs: indices of the nodes whose outputs it takes.
        options: keyword arguments of the call.
        shape: of the output, without the batch axis; None for an unknown size.
        arguments: positional and keyword arguments of the call, with a `Place` for each tensor:
            operations take theirs one by one, `tf.multiply(x, y)`.
    """

    index: int
    layer: Any
    inputs: tuple[int, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shape: tuple[int | None, ...] = ()
    arguments: tuple[Any, Mapping[str, Any]] = ((), {})

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def kind(self) -> str:
        return type(self.layer).__name__

    def call(self, tensors: Sequence[Any], **options: Any) -> Any:
        """What the layer makes of other tensors in the places of its inputs, called with the same
        options and these."""
        positional, named = nest.map_structure(
            lambda part: tensors[part.index] if isinstance(part, Place) else part, self.arguments
        )
        return self.layer(*positional, **{**named, **options})


@dataclasses.dataclass(frozen=True)
class Graph:
    """The calls of a model in topological order.

    Attributes:
        nodes: the calls; `nodes[i].index == i`.
        nested_inputs: indices of the nodes that are the model's inputs, in the lists, tuples and
            dicts it takes.
        nested_outputs: indices of the nodes that are its outputs, in the form it returns them.
        output_names: what losses and metrics call the outputs, in the order of `outputs`.
        name: the model's name.
        dtype_policy: the model's own, which says whether an optimizer scales the loss.
    """

    nodes: tuple[Node, ...]
    nested_inputs: Any
    nested_outputs: Any
    output_names: tuple[str, ...]
    name: str
    dtype_policy: Any

    @property
    def inputs(self) -> tuple[int, ...]:
        """Indices of the nodes that are the model's inputs, in the order of `model.inputs`."""
        return tuple(nest.flatten(self.nested_inputs))

    @property
    def outputs(self) -> tuple[int, ...]:
        """Indices of the nodes that are the model's outputs, in the order of `model.outputs`."""
        return tuple(nest.flatten(self.nested_outputs))

    def consumers(self, index: int) -> list[Node]:
        """The calls that take the output of node `index`."""
        return [node for node in self.nodes if index in node.inputs]

    def repeated(self, index: int) -> bool:
        """Whether the layer of node `index` is called by another node too."""
        layer = self.nodes[index].layer
        return sum(node.layer is layer for node in self.nodes) > 1

    def first_call(self, index: int) -> int:
        """The first node that calls the layer of node `index`."""
        layer = self.nodes[index].layer
        return next(node.index for node in self.nodes if node.layer is layer)

    def feeding(self, indices: Collection[int]) -> set[int]:
        """The nodes from which one of these is reached."""
        found: set[int] = set()
        for node in reversed(self.nodes):
            if node.index in indices or node.index in found:
                found.update(node.inputs)
        return found

    def fed_by(self, indices: Collection[int]) -> set[int]:
        """The nodes that are reached from one of these."""
        found: set[int] = set()
        for node in self.nodes:
            if any(index in indices or index in found for index in node.inputs):
                found.add(node.index)
        return found

    def sole_consumer(self, index: int) -> Node | None:
        """The only user of node `index`, None if there are several or it is a model output."""
        consumers = self.consumers(index)
        return consumers[0] if len(consumers) == 1 and index not in self.outputs else None


def trace(model: Any) -> Graph:
    """The layer graph of a built Sequential or Functional model."""
    depths = model._nodes_by_depth
    keras_nodes = [node for depth in sorted(depths, reverse=True) for node in depths[depth]]
    position = {id(node): index for index, node in enumerate(keras_nodes)}

    def index_of(tensor: Any) -> int:
        history = tensor._keras_history
        return position[id(history.layer._inbound_nodes[history.node_index])]

    nodes = tuple(
        Node(
            index,
            node.outbound_layer,
            tuple(index_of(tensor) for tensor in node.keras_inputs),
            dict(node.call_kwargs or {}),
            tuple(nest.flatten(node.outputs)[0].shape[1:]),
            _arguments(node),
        )
        for index, node in enumerate(keras_nodes)
    )
    return Graph(
        nodes,
        nest.map_structure(index_of, model.input),
        nest.map_structure(index_of, model.output),
        tuple(model.output_names),
        model.name,
        model.dtype_policy,
    )


def _arguments(keras_node: Any) -> Any:
    """See `Node.arguments`."""
    places = {id(tensor): Place(index) for index, tensor in enumerate(keras_node.keras_inputs)}
    return nest.map_structure(
        lambda part: places.get(id(part), part), (keras_node.call_args, keras_node.call_kwargs)
    )


def evaluate(
    graph: Graph,
    inputs: Sequence[Any],
    *,
    mode: Callable[[Any], Mapping[str, Any]],
    observer: Callable[[Node, Any], None] | None = None,
) -> list[Any]:
    """What every node makes of other inputs.

    Args:
        graph: of a built model.
        inputs: tensors for its inputs, in order.
        mode: more options for the call of a layer.
        observer: shown every node and its output.
    """
    given = dict(zip(graph.inputs, inputs, strict=True))
    values: list[Any] = []
    for node in graph.nodes:
        if node.index in given:
            values.append(given[node.index])
        else:
            taken = [values[index] for index in node.inputs]
            values.append(node.call(taken, **mode(node.layer)))
        if observer is not None:
            observer(node, values[-1])
    return values


def rebuild(
    graph: Graph,
    call: Callable[[Node, Sequence[Any]], Any],
    make_model: Callable[..., Any] = keras.Model,
) -> Any:
    """A functional model made by calling `call(node, input tensors) -> tensor` along the graph.

    A model input is given its own new symbolic input. The form of the inputs and outputs, and the
    outputs' names, stay.
    """
    fresh = {index: _clone_input(graph.nodes[index].layer) for index in graph.inputs}
    tensors: list[Any] = []
    for node in graph.nodes:
        taken = [tensors[index] for index in node.inputs] or [fresh[node.index]]
        tensors.append(call(node, taken))
    inputs = nest.map_structure(fresh.__getitem__, graph.nested_inputs)
    outputs = nest.map_structure(tensors.__getitem__, graph.nested_outputs)
    with _compat.dtype_policy(graph):
        model = make_model(inputs, outputs, name=graph.name)
    _compat.set_output_names(model, graph.output_names)
    return model


def clone_layer(layer: Any, **changes: Any) -> Any:
    """A new, unbuilt layer of the same configuration but for `changes`.

    Initializers, regularizers and constraints of the user's own, which Keras may not know by name,
    are the same objects.
    """
    config = layer.get_config()
    own = {
        key: getattr(layer, key)
        for key, value in config.items()
        if key.endswith(("_initializer", "_regularizer", "_constraint"))
        and isinstance(value, dict)
        and not (value.get("module") or "").startswith("keras.")
        and hasattr(layer, key)
    }
    return type(layer).from_config({**config, **own, **changes})


def apply(layer: Any, tensors: Sequence[Any], **options: Any) -> Any:
    """Call `layer` on one tensor, or on the list where it takes several."""
    return layer(tensors[0] if len(tensors) == 1 else list(tensors), **options)


def _clone_input(layer: Any) -> Any:
    shape = layer.get_config()["batch_input_shape"]
    return keras.Input(batch_shape=shape, dtype=layer.dtype, name=layer.name)
