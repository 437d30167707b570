"""What the quantizers with evenly spaced levels have in common.

A quantizer is a tfmot `Quantizer`: it holds only hyper-parameters; its variables belong to the
layer that builds it. After training, `settle` turns the variables into a `Grid`, which is all that
the exporter knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import Grid
from tfbinreg.core.weight_starts import start_step
from tfbinreg.methods.contract import GridTensors, KernelStep

Variables = dict[str, tf.Variable]
Parameters = Mapping[str, Any]  # the variables that a grid is made of, or their values by name


class UniformQuantizer(_compat.Quantizer):
    """Evenly spaced levels code * scale; subclasses define how the scale is learned."""

    bits: int
    signed: bool
    axis: int | None
    qmin: int
    qmax: int

    def scale(self, parameters: Parameters) -> tf.Tensor:
        """The scale that the variables represent, positive, float32, () or (channels,)."""
        raise NotImplementedError

    def grid_now(self, variables: Variables) -> GridTensors:
        """The grid as learned so far, as tensors."""
        return GridTensors(self.scale(variables), self.qmin, self.qmax, self.axis)

    def show_as_used(self, variables: Variables) -> None:
        """Set the variables to the values that are used, where they differ; the grid does not
        change.
        """

    def settle(self, variables: Variables, name: str) -> Grid:
        """The grid the tensor was trained on.

        Raises:
            ValueError: if the scale is not finite, naming `name`.
        """
        scale = self.settled_scale(variables, name)
        return Grid(self.bits, self.signed, scale, self.qmin, self.qmax, self.axis)

    def settled_scale(self, variables: Variables, name: str) -> np.ndarray:
        """The scale of `settle`, for grids that are not evenly spaced too.

        Raises:
            ValueError: if it is not finite, naming `name`.
        """
        scale = np.asarray(self.scale(variables))
        if not np.all(np.isfinite(scale)):
            raise ValueError(f"The step of {name!r} is not finite ({scale}): training diverged.")
        return scale

    def add_variable(
        self,
        layer: Any,
        name: str,
        shape: tuple[int, ...] = (),
        trainable: bool = True,
        initializer: Any = "ones",
        what: str = "step",
        dtype: Any = tf.float32,
    ) -> tf.Variable:
        """A variable of the layer that keeps its type and is the same in all replicas."""
        return layer.add_weight(
            name=f"{name}_{what}",
            shape=shape,
            dtype=dtype,
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


class UniformWeightQuantizer(UniformQuantizer):
    """A `UniformQuantizer` for a kernel.

    Attributes:
        acts_after_steps: whether it changes the kernel after each step of the optimizer.
        channel_bits: the bits of each channel along its axis; None if they share `bits`. Channels
            of 0 bits are pruned.
    """

    acts_after_steps = False
    channel_bits: tuple[int, ...] | None = None

    def after_step(self, step: KernelStep) -> tf.Tensor:
        """The kernel after a step of the optimizer."""
        raise NotImplementedError

    def initialize(self, variables: Variables, kernel: np.ndarray, start: str = "mse") -> None:
        """Set the variables from the current weights; see `start_step` for the choices of `start`.

        Raises:
            ValueError: if every weight is zero, or the step would not be finite.
        """
        step = self.start_step(kernel, start)
        if not np.all(is_usable(step)):
            raise ValueError("No step can be derived from weights that are all zero or not finite.")
        self.start_from(variables, step)

    def start_step(self, kernel: np.ndarray, how: str) -> np.ndarray:
        """The step a kernel starts from."""
        return start_step(kernel, self.qmin, self.qmax, self.axis, how=how)

    def start_from(self, variables: Variables, step: np.ndarray) -> None:
        """Set the variables so that the scale is `step`, or the nearest possible value."""
        raise NotImplementedError

    def figures(self, latent: tf.Tensor, variables: Variables) -> dict[str, float]:
        """What logs report for a kernel besides its bits, by name: averages over its weights."""
        return {}

    def codes(self, kernel: Any, variables: Variables) -> np.ndarray:
        """The trained codes of `kernel`, int32, from the op that the training graph runs."""
        return self.codes_now(tf.convert_to_tensor(kernel), variables).numpy().astype(np.int32)

    def codes_now(self, latent: tf.Tensor, variables: Variables) -> tf.Tensor:
        """The same inside a graph, whole numbers in float32: not all quantizers take the nearest
        level."""
        quantized = tf.cast(self(latent, False, weights=variables), tf.float32)
        return tf.round(quantized / self.grid_now(variables).broadcast_scale(len(latent.shape)))


def is_usable(estimate: tf.Tensor) -> tf.Tensor:
    """Whether a start value is finite and positive."""
    return tf.logical_and(tf.math.is_finite(estimate), estimate > 0.0)
