"""The proof that a file computes what was frozen: LiteRT against the integer model."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from tfbinreg.core import target
from tfbinreg.core.grid import Grid
from tfbinreg.deploy.frozen import FrozenGraph
from tfbinreg.deploy.integer_model import ARITHMETICS, IntegerModel
from tfbinreg.deploy.integer_ops import grid_of

_SAMPLES = 4


def prove_outputs(data: bytes, graph: FrozenGraph) -> None:
    """Run a few seeded inputs, drawn from all codes of the input grids, in both.

    LiteRT is used regardless of the model's target, because it is available and the integer model
    knows its rounding. A graph with an operation whose rounding in LiteRT is not known is not run:
    every part of its file has been compared.

    Args:
        data: a file that `proof.prove` has found to hold the graph.
        graph: what it was written from.

    Raises:
        RuntimeError: if an output differs by a single code, naming it.
    """
    random = np.random.default_rng(0)
    grids = [grid_of(graph.ops[index]) for index in graph.inputs]
    shapes = [graph.ops[index].shape for index in graph.inputs]
    inputs = [
        (random.integers(grid.qmin, grid.qmax + 1, (_SAMPLES, *shape)) * grid.scale).astype("f")  # type: ignore[arg-type]
        for grid, shape in zip(grids, shapes, strict=True)
    ]
    try:
        exact = IntegerModel(graph, ARITHMETICS[target.LITERT])
    except ValueError:
        return
    expected = exact([tf.constant(values) for values in inputs])
    ends = [grid_of(graph.ops[index]) for index in graph.outputs]
    found = _litert(data, inputs, grids, ends)
    wrong = []
    for name, grid, ours, theirs in zip(graph.output_names, ends, expected, found, strict=True):
        off = np.abs(theirs - np.rint(ours.numpy() / grid.scale))
        if np.any(off):
            wrong.append(f"{name!r}: {np.count_nonzero(off)} codes, by up to {int(off.max())}")
    if wrong:
        raise RuntimeError(
            f"LiteRT does not compute what was frozen. Outputs differ: {'; '.join(wrong)}. "
            "Please report the model."
        )


def _litert(
    data: bytes, inputs: list[np.ndarray], grids: list[Grid], ends: list[Grid]
) -> list[np.ndarray]:
    """Each output of LiteRT in levels, for inputs that lie on `grids`; `ends` are the outputs'."""
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    sources, targets = interpreter.get_input_details(), interpreter.get_output_details()
    rows: list[list[np.ndarray]] = []
    for row in range(_SAMPLES):
        for source, values, grid in zip(sources, inputs, grids, strict=True):
            value = values[row : row + 1]
            if source["dtype"] == np.int8:
                value = (np.rint(value / grid.scale) + grid.zero_point).astype(np.int8)
            interpreter.set_tensor(source["index"], value)
        interpreter.invoke()
        rows.append([interpreter.get_tensor(detail["index"])[0] for detail in targets])
    return [
        _levels(np.stack(values), grid)
        for values, grid in zip(zip(*rows, strict=True), ends, strict=True)
    ]


def _levels(values: np.ndarray, grid: Grid) -> np.ndarray:
    """Stored int8 values, or the real numbers they stand for, in levels."""
    if values.dtype == np.int8:
        return values.astype(np.int32) - grid.zero_point
    return np.rint(values / grid.scale).astype(np.int32)
