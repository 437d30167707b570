"""The integer model: what a runtime computes with a frozen graph, in TensorFlow, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfbinreg.core import target
from tfbinreg.core.problems import Problem, raise_problems
from tfbinreg.deploy import litert_arithmetic, tflm_arithmetic
from tfbinreg.deploy.frozen import FrozenGraph, FrozenOp
from tfbinreg.deploy.integer_ops import Arithmetic, Step, grid_of

ARITHMETICS: Mapping[str, Arithmetic] = {
    target.TFLM: tflm_arithmetic.ARITHMETIC,
    target.LITERT: litert_arithmetic.ARITHMETIC,
}
_UNLIMITED = (-np.inf, np.inf)


class IntegerModel:
    """A frozen graph as a function of TensorFlow tensors, for any batch size.

    Args:
        graph: all of it on grids.
        arithmetic: the runtime's arithmetic, from `ARITHMETICS` by target name.

    Raises:
        ValueError: naming every operation that has no exact form.
    """

    def __init__(self, graph: FrozenGraph, arithmetic: Arithmetic) -> None:
        self.graph, self._arithmetic = graph, arithmetic
        self._followed = {index for op in graph.ops for index in op.inputs}
        self._steps: list[Step] = []
        self._limits: list[tuple[float, float]] = []
        problems = []
        for index, op in enumerate(graph.ops):
            try:
                step, limits = self._prepared(index, op)
            except ValueError as error:
                remedy = getattr(error, "remedy", "bring the ranges of its tensors closer together")
                problems.append(Problem(op.name, str(error), remedy))
                continue
            self._steps.append(step)
            self._limits.append(limits)
        raise_problems(problems, "compute what the device computes")

    def __call__(self, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The outputs as real numbers on their grids, for inputs as real numbers, in order."""
        codes = self._codes(inputs)
        return [self._values(codes[index], index, inputs) for index in self.graph.outputs]

    def activations(self, inputs: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """The output of every operation as real numbers, by the name of its layer."""
        codes = self._codes(inputs)
        return {
            op.name: self._values(codes[index], index, inputs)
            for index, op in enumerate(self.graph.ops)
        }

    def output_names(self) -> list[str]:
        """Names of the layers that make the outputs."""
        return [self.graph.ops[index].name for index in self.graph.outputs]

    def _values(self, codes: tf.Tensor, index: int, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        return tf.cast(codes * grid_of(self.graph.ops[index]).scale, inputs[0].dtype)

    def _codes(self, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The result of every operation."""
        given = dict(zip(self.graph.inputs, inputs, strict=True))
        codes: list[tf.Tensor] = []
        for index, (op, step) in enumerate(zip(self.graph.ops, self._steps, strict=True)):
            taken = [given[index]] if index in given else [codes[number] for number in op.inputs]
            low, high = self._limits[index]
            codes.append(tf.clip_by_value(tf.cast(step(taken), tf.float32), low, high))
        return codes

    def _prepared(self, index: int, op: FrozenOp) -> tuple[Step, tuple[float, float]]:
        """An operation as a function, and the codes at which it saturates."""
        if op.kind == "InputLayer":
            return _quantization(grid_of(op).scale), self._code_limits(op)
        sources = [grid_of(self.graph.ops[number]) for number in op.inputs]
        if op.kind in self._arithmetic.unrounded and index not in self._followed:
            return self._arithmetic.unrounded[op.kind](op, sources), _UNLIMITED
        return self._arithmetic.rules[op.kind](op, sources), self._code_limits(op)

    def _code_limits(self, op: FrozenOp) -> tuple[float, float]:
        grid, limit, alone = grid_of(op), op.relu_limit, op.kind == "ReLU"
        low, high = -128 - grid.zero_point, 127 - grid.zero_point
        if alone:
            limit = op.attributes["max_value"]
        if op.relu or alone:
            low = max(low, 0)
        if limit is not None:
            fused = not alone and op.kind != "Conv2DTranspose"  # which has its ReLU behind it
            high = min(high, self._arithmetic.limit(limit, grid, fused=fused))
        return float(low), float(high)


def _quantization(scale: np.ndarray) -> Step:
    """A model input as a device quantizes it."""

    def step(inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        # Not "/": TensorFlow multiplies by the reciprocal of a constant, and rounds halves
        # elsewhere.
        return tf.floor(tf.math.divide_no_nan(tf.cast(inputs[0], tf.float32), scale) + 0.5)

    return step
