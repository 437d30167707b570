"""What a method is made of.

A method is a value made of functions, in one file of this room, named in `roster`. Nothing else in
the package changes when one is added.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class GridTensors:
    """A grid as it is learned so far, inside a graph: levels are code * scale.

    Attributes:
        scale: float32, positive, () or (channels,).
        qmin: smallest code.
        qmax: largest code.
        axis: channel axis of the tensor for a scale per channel, None for one scale.
    """

    scale: tf.Tensor
    qmin: int
    qmax: int
    axis: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class KernelView:
    """A quantized kernel as a penalty sees it.

    Attributes:
        name: of its layer.
        latent: the float numbers that are quantized, float32: the kernel, or the kernel with the
            normalizations behind it folded in.
        grid: the grid they are quantized on.
        reach: learning rate times strength, times the largest square of d latent / d kernel,
            float32, (): how far a gradient of 1 moves a latent weight in one step of plain gradient
            descent. 0 if that is not known, of a model that is not compiled.
    """

    name: str
    latent: tf.Tensor
    grid: GridTensors
    reach: Any = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A published algorithm.

    Attributes:
        name: by which recipes know it.
        options: frozen dataclass of its options, each with a default; JSON numbers, strings, bools.
        penalty: (view, options) -> float32 scalar, differentiable for the latent weights and the
            scale: a kernel's part in the loss, before the strength. None if it adds none.
        trains_norms: options -> whether the penalty's gradient also reaches normalizations that
            are folded into a kernel, where it sums the pulls of a whole channel. None for never.
    """

    name: str
    options: type
    penalty: Callable[[KernelView, Any], tf.Tensor] | None = None
    trains_norms: Callable[[Any], bool] | None = None

    def read_options(self, given: Mapping[str, Any]) -> Any:
        """The options with the fields that are `given`.

        Raises:
            ValueError: naming the fields it does not have, or whose values it refuses.
        """
        known = [field.name for field in dataclasses.fields(self.options)]
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ValueError(
                f"Method {self.name!r} has no option {', '.join(map(repr, unknown))}; it has "
                f"{', '.join(known) or 'none'}."
            )
        return self.options(**given)
