"""Sizes that a model leaves open, fixed for a file: its tensors have one shape each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfbinreg.network.graph import Graph

# A sample's shape; for several inputs a list of them in the model's order, or by their names.
InputShape = Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]]
Sizes = tuple[int, ...]


def fixed_shapes(model: Any, given: InputShape | None) -> list[Sizes] | None:
    """The shapes of a model's inputs in a file, None if the model itself leaves none of them open.

    Args:
        model: a functional tf_keras model.
        given: sizes for its inputs, without the batch axis; None if there are none to give.

    Raises:
        ValueError: if a size is open and not given, or the given ones do not fit the model.
    """
    open_shapes = {
        name: tuple(tensor.shape[1:])
        for name, tensor in zip(model.input_names, model.inputs, strict=True)
    }
    is_open = any(None in shape for shape in open_shapes.values())
    if given is None:
        if is_open:
            raise ValueError(_advice(model.name, open_shapes))
        return None
    shapes = _by_name(given, open_shapes)
    for name, wanted in open_shapes.items():
        own = shapes[name]
        fits = len(own) == len(wanted) and all(
            size > 0 and size == (known or size) for size, known in zip(own, wanted, strict=True)
        )
        if not fits:
            raise ValueError(f"Input {name!r} takes samples of shape {wanted}, got {own}.")
    return [shapes[name] for name in open_shapes] if is_open else None


def _advice(model_name: str, open_shapes: Mapping[str, tuple[int | None, ...]]) -> str:
    listed = ", ".join(f"{name!r} {shape}" for name, shape in open_shapes.items())
    example = {
        name: tuple(96 if size is None else size for size in shape)
        for name, shape in open_shapes.items()
    }
    wanted = next(iter(example.values())) if len(example) == 1 else example
    texts = [",".join(map(str, shape)) for shape in example.values()]
    if len(example) > 1:
        texts = [f"{name}={text}" for name, text in zip(example, texts, strict=True)]
    flags = " ".join(f"--input_shape {text}" for text in texts)
    return (
        f"Model {model_name!r} leaves sizes of its inputs open ({listed}); a file has only one. "
        f"Say which: to_tflite(model, input_shape={wanted}), or tflite_tools convert {flags}"
    )


def _by_name(given: InputShape, inputs: Mapping[str, Any]) -> dict[str, Sizes]:
    """The given shapes by the names of the inputs."""
    if isinstance(given, Mapping):
        if set(given) != set(inputs):
            raise ValueError(
                f"input_shape is for inputs {', '.join(map(repr, given))}, the model has "
                f"{', '.join(map(repr, inputs))}."
            )
        return {name: _sizes(shape) for name, shape in given.items()}
    listed: Sequence[Any] = given if any(isinstance(part, Sequence) for part in given) else [given]
    if len(listed) != len(inputs):
        raise ValueError(f"input_shape has {len(listed)} shapes for {len(inputs)} inputs.")
    return {name: _sizes(shape) for name, shape in zip(inputs, listed, strict=True)}


def _sizes(shape: Any) -> Sizes:
    try:
        return tuple(size.__index__() for size in shape)
    except (TypeError, AttributeError):
        message = f"input_shape takes whole numbers, as in (96, 96, 3), got {shape!r}."
        raise ValueError(message) from None


def with_input_shapes(graph: Graph, shapes: Sequence[Sizes]) -> Graph:
    """The layer graph of a model whose inputs have these shapes.

    Raises:
        ValueError: naming the layer for which they are too small.
    """
    known: list[Sizes] = []
    given = dict(zip(graph.inputs, shapes, strict=True))
    for node in graph.nodes:
        taken = [(1, *known[index]) for index in node.inputs]
        if node.index in given:
            known.append(given[node.index])
        else:
            known.append(_output_sizes(node.layer, taken[0] if len(taken) == 1 else taken, shapes))
    nodes = tuple(
        dataclasses.replace(node, shape=shape)
        for node, shape in zip(graph.nodes, known, strict=True)
    )
    return dataclasses.replace(graph, nodes=nodes)


def _output_sizes(layer: Any, taken: Any, shapes: Sequence[Sizes]) -> Sizes:
    try:
        sizes = tuple(tf.TensorShape(layer.compute_output_shape(taken)).as_list()[1:])
    except ValueError:
        sizes = (0,)
    if not all(size is not None and size > 0 for size in sizes):
        listed = ", ".join(map(str, shapes))
        raise ValueError(f"Inputs of shape {listed} do not fit layer {layer.name!r}.")
    return sizes
