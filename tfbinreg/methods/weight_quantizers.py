"""tfmot `Quantizer` objects: what they share, and LSQ for weights.

A quantizer holds hyper-parameters only; its variables belong to the layer that builds it. After
training `settle` turns the variables into a `Grid`, the only thing the exporter knows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import Grid, check_bits, weight_code_range
from tfbinreg.core.weight_starts import start_step
from tfbinreg.methods import lsq_functions
from tfbinreg.methods.contract import GridTensors

Variables = dict[str, tf.Variable]


class LSQQuantizer(_compat.Quantizer):
    """What the LSQ quantizers share: the range, serialisation and reading the step."""

    bits: int
    signed: bool
    axis: int | None
    qmin: int
    qmax: int

    def settle(self, variables: Variables, name: str) -> Grid:
        """The grid the tensor was trained on.

        Raises:
            ValueError: if the step is not finite, naming `name`.
        """
        step = np.asarray(lsq_functions.effective_step(variables["step"]))
        if not np.all(np.isfinite(step)):
            raise ValueError(f"The step of {name!r} is not finite ({step}): training diverged.")
        return Grid(self.bits, self.signed, step, self.qmin, self.qmax, self.axis)

    def add_step(
        self,
        layer: Any,
        name: str,
        shape: tuple[int, ...] = (),
        trainable: bool = True,
        initializer: Any = "ones",
        what: str = "step",
    ) -> tf.Variable:
        """A variable of the layer that never leaves float32 and is the same in all replicas."""
        return layer.add_weight(
            name=f"{name}_{what}",
            shape=shape,
            dtype=tf.float32,
            initializer=initializer,
            trainable=trainable,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            experimental_autocast=False,
        )

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()  # type: ignore[attr-defined]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((type(self), tuple(sorted(self.get_config().items()))))


@_compat.register
class LSQWeightQuantizer(LSQQuantizer):
    """Signed LSQ for a kernel, one step per tensor or per output channel.

    The step's gradient factor is 1 / sqrt(N * qmax) with N the number of weights that share it:
    the whole tensor, or one channel of it.

    Args:
        bits: 2 to 8.
        axis: channel axis of the kernel for a step per channel, None for one step; may be
            negative.
        start: the kernel whose values the step variable starts from when it is built, None for a
            step of 1. tfmot tells a quantizer only the kernel's shape. No part of the config.
    """

    def __init__(self, bits: int, axis: int | None = None, start: Any = None) -> None:
        self.bits = check_bits(bits, "weight bits")
        self.signed = True
        self.axis = axis
        self._start = start
        self.qmin, self.qmax = weight_code_range(self.bits)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        shape = () if self.axis is None else (int(tensor_shape[self.axis]),)
        initializer = "ones" if self._start is None else self._initial_value
        return {"step": self.add_step(layer, name, shape, initializer=initializer)}

    def _initial_value(self, shape: Any, dtype: Any = None) -> tf.Tensor:
        step = lsq_functions.initial_step(self._start, self.qmax, self.axis)
        return tf.where(is_usable(step), step, tf.ones_like(step))

    def grid_now(self, variables: Variables) -> GridTensors:
        """The grid as learned so far, as tensors."""
        step = lsq_functions.effective_step(variables["step"])
        return GridTensors(step, self.qmin, self.qmax, self.axis)

    def initialize(self, variables: Variables, kernel: np.ndarray, start: str = "mse") -> None:
        """Set the step from the actual weights; see `start_step` for the ways to `start`.

        Raises:
            ValueError: if every weight is zero, or the step would not be finite.
        """
        step = start_step(kernel, self.qmin, self.qmax, self.axis, how=start)
        if not np.all(is_usable(step)):
            raise ValueError("No step can be derived from weights that are all zero or not finite.")
        variables["step"].assign(step)

    def __call__(self, inputs: Any, training: Any, weights: Variables, **kwargs: Any) -> tf.Tensor:
        count = int(np.prod(inputs.shape))
        if self.axis is not None:
            count //= int(inputs.shape[self.axis])
        scale = lsq_functions.gradient_scale(count, self.qmax)
        return lsq_functions.lsq_quantize(
            inputs, weights["step"], self.qmin, self.qmax, scale, self.axis
        )

    def codes(self, kernel: Any, variables: Variables) -> np.ndarray:
        """The trained codes of `kernel`, int32, from the op the training graph runs."""
        quantized = np.asarray(self(tf.convert_to_tensor(kernel), False, variables))
        grid = self.settle(variables, "kernel")
        return np.rint(quantized / grid.broadcast_scale(quantized.ndim)).astype(np.int32)

    def get_config(self) -> dict[str, Any]:
        return {"bits": self.bits, "axis": self.axis}


def is_usable(estimate: tf.Tensor) -> tf.Tensor:
    """Whether a start value is finite and positive."""
    return tf.logical_and(tf.math.is_finite(estimate), estimate > 0.0)
