"""A file in which every operator stands alone: its activations are inputs, its result an output.

Rounding differences grow from layer to layer, so whole nets of few bits can differ a lot although
every operator is right. Fed with the same activations, operators can be compared one by one.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tflite_tools import flatbuffer, samples
from tflite_tools import model as models
from tflite_tools.model import Model, Tensor

# An operator on its own is right if its results are off by this many levels at most, on average.
# Rounding moves a value near the middle of two levels by one level. That is rare (below 0.03), but
# the ratio of two scales can put every second value of a channel exactly in the middle.
MAX_MEAN_LEVELS = 0.25
MAX_CHANNEL_MEAN_LEVELS = 0.6


@dataclasses.dataclass(frozen=True, eq=False)
class Isolated:
    """Operators side by side.

    Attributes:
        data: the file.
        model: the same file, read.
        inputs: names, in the original file, of the tensors that the inputs stand for.
        outputs: names of the outputs.
    """

    data: bytes
    model: Model
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def isolate(data: bytes, model: Model) -> Isolated:
    """Cut a file between its operators; float edges are left out.

    Args:
        data: a file with one subgraph.
        model: the same file, read.

    Raises:
        ValueError: if it has more subgraphs or no operators.
    """
    container = flatbuffer.read(data)
    if len(container.subgraphs) != 1:
        raise ValueError("The file has several subgraphs.")
    (graph,) = container.subgraphs
    operators = [
        operator
        for operator, op in zip(graph.operators or [], model.main.ops, strict=True)
        if not samples.is_edge(model, op)
    ]
    if not operators:
        raise ValueError("The file has no operators.")
    inputs, names = [], []
    for operator in operators:
        operator.inputs = flatbuffer.indices(operator.inputs)
        for position, index in enumerate(operator.inputs):
            if index < 0 or model.main.tensors[index].data is not None:
                continue
            inputs.append(len(graph.tensors))
            names.append(model.main.tensors[index].name)
            operator.inputs[position] = len(graph.tensors)
            graph.tensors.append(_copy(graph.tensors[index], len(inputs)))
    outputs = [index for operator in operators for index in flatbuffer.indices(operator.outputs)]
    graph.operators, graph.inputs, graph.outputs = operators, inputs, outputs
    container.signatureDefs = None
    isolated = flatbuffer.write(container)
    results = tuple(model.main.tensors[index].name for index in outputs)
    return Isolated(isolated, models.load(isolated), tuple(names), results)


def _copy(tensor: Any, number: int) -> Any:
    copied = copy.copy(tensor)
    copied.name = f"{flatbuffer.text(tensor.name)}:{number}"
    return copied


def inputs_for(
    isolated: Isolated, draw: Callable[[str, Tensor], np.ndarray]
) -> tuple[np.ndarray, ...]:
    """Stored values for every input: `draw(name, tensor)`, the same array for the same name."""
    drawn: dict[str, np.ndarray] = {}
    graph = isolated.model.main
    for name, index in zip(isolated.inputs, graph.inputs, strict=True):
        if name not in drawn:
            drawn[name] = draw(name, graph.tensors[index])
    return tuple(drawn[name] for name in isolated.inputs)


def misfits(
    isolated: Isolated, results: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> tuple[list[tuple[str, str]], float]:
    """The operators whose results are off.

    Args:
        isolated: the operators.
        results: what a runtime computed, stored values, one array per output.
        expected: what it should have.

    Returns:
        (layer, what) for every operator that is off by more than `MAX_MEAN_LEVELS` on average, or
        by `MAX_CHANNEL_MEAN_LEVELS` in a channel; and the largest average of all operators.
    """
    problems, worst = [], 0.0
    for name, result, target in zip(isolated.outputs, results, expected, strict=True):
        off = np.abs(result.astype(np.int64) - target)
        mean, channels = float(off.mean()), off.reshape(-1, off.shape[-1]).mean(axis=0)
        worst = max(worst, mean)
        if mean > MAX_MEAN_LEVELS:
            problems.append((name, f"off by {mean:.3f} levels on average"))
        elif channels.max() > MAX_CHANNEL_MEAN_LEVELS:
            what = f"channel {channels.argmax()} is off by {channels.max():.3f} levels on average"
            problems.append((name, what))
    return problems, worst
