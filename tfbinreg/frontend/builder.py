"""Builds a normalized model step by step: values that may still be pending, names, weights.

Two things are put off until a consumer shows what is needed. Arithmetic with constants waits, so
that chains of it become one `ChannelAffine` and pass through a ReLU in front of it. And tensors of
one-dimensional data or of plain features are turned into images and back only where a layer needs
the other form.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from tfbinreg import _compat
from tfbinreg.frontend.positive_factors import make_factors_positive
from tfbinreg.frontend.program import Shape, Step, unique_name
from tfbinreg.network.added_layers import ChannelAffine, ValueFunction
from tfbinreg.network.layer_kinds import KINDS, Problems, Role, fixed_grid
from tfbinreg.network.value_functions import VALUE

keras = _compat.keras


class UnsupportedError(Exception):
    """What of a step cannot be rewritten; `problems` holds (what, remedy)."""

    def __init__(self, *problems: tuple[str, str]) -> None:
        super().__init__(str(problems))
        self.problems: Problems = list(problems)


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """Result of a step: `tensor` has the numbers of `shape`, perhaps as a (1, length, channels) or
    (1, 1, channels) image."""

    shape: Shape
    tensor: Any = None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PendingAffine(Value):
    """source * scale + offset, per channel, asked for by `step`."""

    step: Step
    source: Value
    scale: np.ndarray
    offset: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PendingReLU(Value):
    """min(max(source, 0), limit), asked for by `step`."""

    step: Step
    source: Value
    limit: float | None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PendingFunction(Value):
    """A function of each number of `source`, an expression of `value_functions`, asked for by
    `step`."""

    step: Step
    source: Value
    expression: Any


def _called_again(first: Any, layer: Any, inputs: Any) -> Any:
    """What the layer of the first call makes of tensors for which `layer` was made."""
    ranks = len(first.get_input_shape_at(0)), len(inputs.shape)
    if type(first) is not type(layer) or ranks[0] != ranks[1]:
        what = "used several times, on tensors of different ranks"
        raise UnsupportedError((what, "reshape them alike, or use one layer per place"))
    return first(inputs)


def target(shape: Shape) -> tuple[int, ...]:
    """What a Reshape to this shape is given; one size may be unknown."""
    sizes = shape[1:]
    if sizes.count(None) > 1:
        raise UnsupportedError((f"unknown sizes in {shape}", "fix the model's input shape"))
    return tuple(-1 if size is None else size for size in sizes)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Unfinished(Value):
    """A part of what a later step computes, which no layer makes by itself.

    Attributes:
        source: what it is made of.
        margins: rows above and below, columns before and behind, that are added.
        readers: the kinds of steps that may take it.
        problem: what it is to others, and the remedy.
    """

    source: Value
    margins: tuple[tuple[int, int], tuple[int, int]]
    readers: ClassVar[tuple[str, ...]] = ()
    problem: ClassVar[tuple[str, str]] = ("", "")


class Padded(Unfinished):
    """`source` inside a border of numbers below all others, which only a max pooling takes."""

    readers = ("GlobalMaxPooling1D", "GlobalMaxPooling2D", "Identity", "MaxPooling1D",
               "MaxPooling2D", "identity", "max", "max_pool", "shape")  # fmt: skip
    problem = (
        "a tensor that is padded with a number below all of its own",
        "pad with zeros; only a max pooling takes others",
    )


class Builder:
    """The model under construction.

    Attributes:
        origin: for each new layer the name of the user's layer it comes from.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.origin: dict[str, str] = {}
        self._taken = set(names)  # by the steps' own names, and by parts of steps
        self._claimed: set[str] = set()  # steps' own names that a layer has got
        self._weights: dict[Any, list[np.ndarray]] = {}  # by layer
        self._norms: list[tuple[Any, Any]] = []  # those that will be folded, and what is before
        self._made: dict[int, Any] = {}  # tensors of pending values, by id of the value
        self._relus: dict[tuple[int, float | None], Value] = {}  # by id of the source, and limit
        self._reshaped: dict[tuple[int, Shape], Any] = {}
        self._kept: list[Any] = []  # so that no id above is used twice
        self._uses: dict[int, int] = {}  # by id of a value
        self._foldable: set[int] = set()  # tensors that a factor per channel can be folded into
        self._source: dict[int, tuple[Any, Any]] = {}  # tensor -> (layer, its first input)
        self._step: Step | None = None
        self._parts: dict[str, list[Any]] = {}  # layers with weights, by names of steps
        self._again: Iterator[Any] = iter(())  # those of the step that the current one repeats
        self._calls: collections.Counter[Any] = collections.Counter()  # of each layer

    def begin(self, step: Step) -> None:
        """What is built from here on belongs to `step`."""
        self._step = step
        self._again = iter(self._parts.get(step.again or "", ()))

    def finish(self, value: Value, uses: int) -> None:
        """`value` is the result of the current step, which is taken `uses` times."""
        again = id(value) in self._uses
        self._uses[id(value)] = self._uses.get(id(value), 0) - int(again) + uses
        self._kept.append(value)

    def set_weights(self) -> None:
        """Give the layers their weights, once all are built."""
        make_factors_positive(self._private_norms(), self._weights)
        for layer, weights in self._weights.items():
            layer.set_weights(weights)

    def _private_norms(self) -> list[tuple[Any, Any]]:
        """The folded normalizations without those that a layer used several times is part of:
        turning it round would turn its other outputs."""
        shared = {layer for layer, count in self._calls.items() if count > 1}
        private: list[tuple[Any, Any]] = []
        for norm, before in self._norms:
            if norm in shared or before in shared:
                shared.add(norm)
            else:
                private.append((norm, before))
        return private

    @property
    def step(self) -> Step:
        """The current step."""
        assert self._step is not None
        return self._step

    def name(self, suffix: str, step: Step | None = None) -> str:
        """A new layer's name: the step's own if it is free, else with `suffix`."""
        step = step or self.step
        if not step.weights and step.name not in self._claimed:
            self._claimed.add(step.name)
            return step.name
        return self.part_name(suffix, step)

    def part_name(self, suffix: str, step: Step | None = None) -> str:
        """A name no other layer has for a part of `step`, else of the current one."""
        name = unique_name(f"{(step or self.step).name}_{suffix}", self._taken)
        self._taken.add(name)
        return name

    def call(
        self,
        layer: Any,
        inputs: Any,
        weights: Sequence[np.ndarray] = (),
        step: Step | None = None,
    ) -> Any:
        """The tensor that `layer`, a part of `step` (else of the current one), makes of tensors.

        Where the step calls a layer of the user's again, it is the layer of the first call that
        makes it, not `layer`.

        Raises:
            UnsupportedError: if that one does not take these tensors.
        """
        first = next(self._again, None) if len(weights) and step is None else None
        output = layer(inputs) if first is None else _called_again(first, layer, inputs)
        own, step = step is None, step or self.step
        if first is None:
            layer.trainable = step.trainable
            self.origin[layer.name] = step.origin
        else:
            layer = first
        if len(weights) and first is None:
            self._weights[layer] = list(weights)
            if own:
                self._parts.setdefault(step.name, []).append(layer)
        self._calls[layer] += 1
        first = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
        self._source[id(output)] = (layer, first)
        if KINDS[type(layer).__name__].role is Role.KERNEL:
            self._foldable.add(id(output))
        self._kept.append(output)
        return output

    def tensor(self, value: Value) -> Any:
        """The tensor of a value, in whichever form it has; pending work is done now."""
        if value.tensor is not None:
            return value.tensor
        if id(value) not in self._made:
            self._kept.append(value)
            if isinstance(value, PendingAffine):
                layer = ChannelAffine(name=self.name("affine", value.step))
                weights = (value.scale, value.offset)
                made = self.per_channel(layer, value.source, weights, value.step)
            elif isinstance(value, PendingReLU):
                layer = keras.layers.ReLU(value.limit, name=self.name("relu", value.step))
                made = self.call(layer, self.tensor(value.source), step=value.step)
            elif isinstance(value, PendingFunction):
                text = json.dumps(value.expression)
                layer = ValueFunction(text, name=self.name("function", value.step))
                made = self.call(layer, self.tensor(value.source), step=value.step)
            elif isinstance(value, Unfinished):
                what, remedy = value.problem
                raise UnsupportedError((f"reading {what}", remedy))
            else:
                what = "computing with the sizes of a tensor"
                raise UnsupportedError((what, "use numbers, and fix the model's input shape"))
            self._made[id(value)] = made
        return self._made[id(value)]

    def per_channel(
        self, layer: Any, source: Value, weights: Sequence[np.ndarray], step: Step | None = None
    ) -> Any:
        """`layer`, of role NORM, on a kernel's output or else on an image."""
        tensor = self.tensor(source)
        folds = id(tensor) in self._foldable and self._used_once(source)
        if not folds:
            tensor = self.image(source)
        output = self.call(layer, tensor, weights, step)
        if folds:
            self._norms.append((layer, self._source[id(tensor)][0]))
            self._foldable.add(id(output))
        return output

    def plain(self, value: Value) -> Any:
        """The tensor of a value in the shape the user's model has there."""
        tensor = self.tensor(value)
        return (
            self._reshape(tensor, value.shape) if len(tensor.shape) != len(value.shape) else tensor
        )

    def image(self, value: Value) -> Any:
        """The tensor of a value as (batch, height, width, channels)."""
        tensor = self.tensor(value)
        shape = tuple(tensor.shape)
        if len(shape) == 4:
            return tensor
        if len(shape) > 4:
            raise UnsupportedError((f"input of shape {shape}", "reshape it to an image"))
        ones = (1,) * (4 - len(shape))
        return self._reshape(tensor, (shape[0], *ones, *shape[1:]))

    def _reshape(self, tensor: Any, shape: Shape) -> Any:
        key = (id(tensor), shape)
        if key not in self._reshaped:
            layer = keras.layers.Reshape(target(shape), name=self.part_name("reshape"))
            self._reshaped[key] = self.call(layer, tensor)
        return self._reshaped[key]

    def affine(self, source: Value, scale: Any, offset: Any) -> Value:
        """source * scale + offset; the constants are scalars or one number per channel."""
        channels = source.shape[-1]
        scale, offset = (self._channel_constant(c, channels, source) for c in (scale, offset))
        if isinstance(source, PendingAffine) and self._used_once(source):
            scale, offset = source.scale * scale, source.offset * scale + offset
            source = source.source
        if np.allclose(scale, 1.0, rtol=1e-6) and not np.any(offset):
            return source
        even = np.all(scale == scale[0]) and scale[0] > 0 and not np.any(offset)
        wanted = id(source) in self._made or not self._used_once(source)
        if isinstance(source, PendingReLU) and even and not wanted:
            limit = None if source.limit is None else source.limit * float(scale[0])
            inner = self.affine(source.source, scale, offset)
            return dataclasses.replace(source, source=inner, limit=limit, step=self.step)
        return PendingAffine(
            source.shape, step=self.step, source=source, scale=scale, offset=offset
        )

    def function_of(self, value: Value) -> tuple[Value, Any]:
        """A value as a function of each number of another one: that one, and the expression.

        Constants and ReLUs are part of it if no other step takes their results, which the layers
        before them would rather contain.
        """
        if isinstance(value, PendingFunction):
            return value.source, value.expression
        if not isinstance(value, (PendingAffine, PendingReLU)) or not self._used_once(value):
            return value, VALUE
        root, inner = self.function_of(value.source)
        if isinstance(value, PendingReLU):
            limit = value.limit
            return root, ["relu", inner] if limit is None else ["clip", inner, 0.0, limit]
        if any(np.any(part != part[0]) for part in (value.scale, value.offset)):
            return value, VALUE  # channels differ
        scale, offset = float(value.scale[0]), float(value.offset[0])
        return root, ["add", ["multiply", inner, scale], offset]

    def function(self, name: str, operands: Sequence[Any]) -> Value | None:
        """A function of `value_functions` of operands, as one with what they are functions of.

        Args:
            name: of the function.
            operands: values and scalar constants, a value at least.

        Returns:
            The result, pending; None if it takes numbers of several values.
        """
        parts = [self.function_of(own) if isinstance(own, Value) else own for own in operands]
        roots = [own[0] for own in parts if isinstance(own, tuple)]
        if any(root is not roots[0] for root in roots):
            return None
        expressions = [own[1] if isinstance(own, tuple) else float(own) for own in parts]
        return PendingFunction(
            roots[0].shape, step=self.step, source=roots[0], expression=[name, *expressions]
        )

    def _used_once(self, value: Value) -> bool:
        """Whether one step, or an output of the model, takes a value."""
        return self._uses.get(id(value), 1) == 1

    def _channel_constant(self, constant: Any, channels: int | None, source: Value) -> np.ndarray:
        array = np.asarray(constant, np.float64)
        if array.size == 1:
            array = array.reshape(())
        shape = array.shape
        fits = array.ndim <= len(source.shape) and all(size == 1 for size in shape[:-1])
        if channels is None or not fits or (shape and shape[-1] != channels):
            what = f"arithmetic with a constant of shape {shape}"
            raise UnsupportedError((what, "use a scalar or one number per channel"))
        return np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float64)

    def relu(self, source: Value, limit: float | None = None) -> Value:
        """min(max(source, 0), limit); once for all who ask, so that a kernel can contain it."""
        key = (id(source), limit)
        if key not in self._relus:
            self._kept.append(source)
            self._relus[key] = PendingReLU(source.shape, step=self.step, source=source, limit=limit)
        return self._relus[key]

    def lower_bound(self, value: Value) -> float:
        """A number that none of a value is below, as far as the layers before it tell."""
        if value.tensor is None:
            return 0.0 if isinstance(value, PendingReLU) else -math.inf
        tensor, bound = value.tensor, 0.0
        while id(tensor) in self._source:
            layer, first = self._source[id(tensor)]
            kind = type(layer).__name__
            role = KINDS[kind].role
            if role is Role.RELU:
                return bound
            if role is Role.FIXED:
                grid = fixed_grid(layer)
                return min(bound, float(grid.scale) * grid.qmin)
            if role is not Role.SAME:
                break
            tensor = first
        return -math.inf

    def needs_own_grid(self, tensor: Any) -> bool:
        """Whether the grid of a tensor is prescribed, so that a concatenation cannot share it."""
        while id(tensor) in self._source:
            layer, first = self._source[id(tensor)]
            role = KINDS[type(layer).__name__].role
            if role is Role.FIXED:
                return True
            if role not in (Role.SAME, Role.RELU):
                return False
            tensor = first
        return True  # an input of the model
