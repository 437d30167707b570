"""Any Keras model -> `Program`: nested models are inlined, every call is a separate step."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tensorflow import nest

from tfbinreg import _compat
from tfbinreg.frontend.keras_dialects import (
    Call,
    Keras2,
    Keras3,
    Reading,
    frontend,
    is_opaque,
    is_tensor,
    tensor_key,
)
from tfbinreg.frontend.program import (
    Program,
    Ref,
    Shape,
    Step,
    layer_name,
    refs,
    replaced,
    unique_name,
)
from tfbinreg.frontend.tracing import CONTEXT, UntraceableError, traced, traced_function
from tfbinreg.network.edges import flat_arguments, nested_inputs, nested_outputs, output_names
from tfbinreg.network.layer_kinds import ACTIVATIONS, function_name

keras = _compat.keras

Rewrite = Callable[..., Any]

_custom: dict[type, Rewrite] = {}
OF_SEVERAL_OUTPUTS = ("split",)  # operations


def register_layer(layer_class: type) -> Callable[[Rewrite], Rewrite]:
    """Teach `quantize_apply` a layer class of your own, of tf_keras or Keras 3.

        @tfbinreg.register_layer(MyBlock)
        def rewrite(layer, x):
            y = tf_keras.layers.Conv2D(8, 3, name="conv")
            ...
            return y

    Args:
        layer_class: the class; subclasses must be registered themselves.

    Returns:
        A decorator for a function `rewrite(layer, *inputs) -> outputs` that builds the same
        computation from supported tf_keras layers on symbolic tensors, gives these layers the
        weights of `layer`, and returns one tensor. If the name of a new layer is already taken, it
        is prefixed with the layer's name.
    """

    def remember(rewrite: Rewrite) -> Rewrite:
        _custom[layer_class] = rewrite
        return rewrite

    return remember


def read(model: Any) -> Program:
    """The program of a built Sequential or Functional model of either Keras."""
    reader = _Reader()
    front = frontend(model)
    inputs = nest.map_structure(reader.add_input, nested_inputs(model))
    given, trainable = nest.flatten(inputs), bool(model.trainable)
    outputs = reader.inline(front, model, given, "", None, trainable)
    return Program(
        tuple(reader.steps),
        nest.map_structure(lambda ref: ref.index, inputs),
        nest.pack_sequence_as(nested_outputs(model), [ref.index for ref in outputs]),
        tuple(output_names(model)),
        model.name,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Activated:
    """What an activation function belongs to.

    Attributes:
        name: of its result.
        origin: as of `Step`.
        kind: class of the layer.
        prefix: of names that are taken.
        trainable: as of `Step`.
        reading: of the layer.
        tensor: what it makes; a symbolic tensor.
    """

    name: str
    origin: str
    kind: str
    prefix: str
    trainable: bool
    reading: Reading
    tensor: Any


class _Reader:
    """The steps of `read`."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.names: set[str] = set()
        self.first_calls: dict[tuple[int, ...], str] = {}  # steps, by ids of a layer's weights
        self.rewritten: dict[int, Any] = {}  # first sub-model, by id of a registered layer
        self.same: dict[int, int] = {}  # ids of weights in a later sub-model -> in the first
        self.where = ""  # the call of whose layer, or what function, is being read
        self.kind: str | None = None  # class of the user's layer that is being read

    def add_input(self, tensor: Any) -> Ref:
        name = tensor._keras_history[0].name
        return self._add(name, "", name, operation="input", shape=tuple(tensor.shape))

    @contextlib.contextmanager
    def _inside(self, where: str, kind: str) -> Iterator[None]:
        """Scope in which what problems are told of is this, a part of a layer of this class."""
        before = self.where, self.kind
        self.where, self.kind = where, self.kind or kind
        try:
            yield
        finally:
            self.where, self.kind = before

    def inline(
        self,
        front: Keras2 | Keras3,
        model: Any,
        given: Sequence[Ref],
        prefix: str,
        origin: str | None,
        trainable: bool,
    ) -> list[Ref]:
        """Add the calls of `model` on `given`; `origin` names the layer they all belong to.

        `trainable` is False where nothing in `model` is trained, whatever its layers say.
        """
        inputs = nest.flatten(nested_inputs(model))
        values = {tensor_key(t): ref for t, ref in zip(inputs, given, strict=True)}

        def value(leaf: Any) -> Any:
            return values[tensor_key(leaf)] if is_tensor(leaf) else leaf

        for call in front.calls(model):
            keys = [tensor_key(tensor) for tensor in call.outputs]
            if all(key in values for key in keys):
                continue  # an input
            args, kwargs = replaced(tuple(call.args), value), replaced(dict(call.kwargs), value)
            results = self._call(front, call, args, kwargs, prefix, origin, trainable)
            values.update(zip(keys, results, strict=True))
        return [values[tensor_key(tensor)] for tensor in nest.flatten(nested_outputs(model))]

    def _call(
        self,
        front: Keras2 | Keras3,
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        prefix: str,
        origin: str | None,
        trainable: bool,
    ) -> list[Ref]:
        target = call.target
        owner, kind = origin or target.name, type(target).__name__
        inside = f"{prefix}_{target.name}" if prefix else target.name
        rewrite = _custom.get(type(target))
        if rewrite is not None or front.is_model(target):
            inner_front, inner = front, target
            if rewrite is not None:
                inner_front, inner = Keras2(), self._rewritten(target, rewrite, call)
                given = refs((args, kwargs))
            else:
                given = flat_arguments(target, args[0] if args else kwargs["inputs"])
            own = origin if rewrite is None else owner
            if rewrite is not None or front.frozen_models_rest:
                trainable = trainable and target.trainable
            return self.inline(inner_front, inner, given, inside, own, trainable)
        reason = None
        if front.is_layer(target) and is_opaque(target):
            given = refs((args, {k: v for k, v in kwargs.items() if k not in CONTEXT}))
            try:
                where = f"in the call of layer class {kind}"
                with traced(front, call) as inner, self._inside(where, kind):
                    rest, first = trainable and target.trainable, len(self.steps)
                    made = self.inline(front, inner, given, inside, owner, rest)
                    if not target.weights and len(made) == 1 and made[0].index >= first:
                        self._change(made[0], target.name)
                    return made
            except UntraceableError as error:
                reason = str(error)
        reading = front.read(call)
        several = reading.operation in OF_SEVERAL_OUTPUTS
        key = self._weights_of(target) if reading.weights else ()
        again = self.first_calls.get(key)
        problems = self._problems(call, reading, reason, again)
        if isinstance(reading.layer, keras.layers.Activation) and reading.function is not None:
            (only,) = refs((args, kwargs))
            of = _Activated(target.name, owner, kind, prefix, trainable, reading, call.outputs[0])
            return [self._activated(front, only, of)]
        kwargs = {reading.renames.get(k, k): v for k, v in kwargs.items() if k not in CONTEXT}
        shapes, parts = [tuple(tensor.shape) for tensor in call.outputs], (target, reading.layer)
        options = {**reading.options, **kwargs}

        def add(shape: Shape, **more: Any) -> Ref:
            return self._add(
                target.name,
                prefix,
                owner,
                layer=reading.layer,
                weights=reading.weights,
                weight_names=reading.weight_names,
                activation=reading.activation,
                operation=reading.operation,
                args=args,
                kwargs={**options, **more},
                shape=shape,
                trainable=trainable and all(getattr(x, "trainable", True) for x in parts),
                over_time=reading.over_time,
                activity_regularizer=(
                    reading.activity_regularizer if reading.function is None else None
                ),
                again=again,
                problems=problems,
            )

        if several:  # a step for each, which knows the shapes in front of its own
            return [add(shape, before=tuple(shapes[:at])) for at, shape in enumerate(shapes)]
        ref = add(shapes[0])
        if reading.weights:
            self.first_calls.setdefault(key, self.steps[ref.index].name)
        if reading.function is not None:
            name = f"{target.name}_{function_name(reading.function)}"
            of = _Activated(name, owner, kind, prefix, trainable, reading, call.outputs[0])
            ref = self._activated(front, ref, of)
        return [ref] * len(shapes)

    def _problems(
        self, call: Call, reading: Reading, reason: str | None, again: str | None
    ) -> tuple[tuple[str, str], ...]:
        """What the front end does not read of a call; `reason` is why its layer is not traced, and
        `again` as of `Step`."""
        problems = list(reading.problems)
        if reason is not None:
            problems = [(f"{what} (its call: {reason})", remedy) for what, remedy in problems]
        if len(call.outputs) != 1 and reading.operation not in OF_SEVERAL_OUTPUTS:
            problems.append((f"{len(call.outputs)} outputs", "split it into layers of one output"))
        if self.where:
            or_rule = "or say how with tfbinreg.register_layer"
            problems = [
                (f"{what} {self.where}", remedy if or_rule in remedy else f"{remedy}; {or_rule}")
                for what, remedy in problems
            ]
        if again is not None and _options(self._named(again).layer) != _options(reading.layer):
            what = f"has the weights of {again!r}, which is configured otherwise"
            problems.append((what, "give each layer its own"))
        return tuple(problems)

    def _activated(self, front: Keras2 | Keras3, given: Ref, of: _Activated) -> Ref:
        """The result of an activation function that is read as what it computes."""
        function, name = of.reading.function, function_name(of.reading.function)
        first = len(self.steps)

        def unchanged(ref: Ref, *problems: tuple[str, str]) -> Ref:
            shape = tuple(of.tensor.shape)
            fields = {"operation": "identity", "args": (ref,), "shape": shape}
            return self._add(of.name, of.prefix, of.origin, **fields, problems=problems)

        try:
            with (
                traced_function(front, function, of.tensor) as inner,
                self._inside(f"in activation {name!r}", of.kind),
            ):
                result = self.inline(front, inner, [given], of.name, of.origin, of.trainable)[0]
        except UntraceableError as error:
            known = ", ".join(ACTIVATIONS)
            problem = (f"activation {name!r} (it says: {error})", f"use one of {known}")
            return unchanged(given, problem)
        if result.index < first:  # it does nothing
            result = unchanged(result)
        self._change(result, of.name, activity_regularizer=of.reading.activity_regularizer)
        return result

    def _change(self, ref: Ref, name: str, **changes: Any) -> None:
        """Call a step, the last of what a layer does, after the layer."""
        step = self.steps[ref.index]
        self.names.discard(step.name)
        own = unique_name(layer_name(name), self.names)
        self.names.add(own)
        self.steps[ref.index] = dataclasses.replace(step, name=own, **changes)
        for key, first in self.first_calls.items():
            if first == step.name:
                self.first_calls[key] = own

    def _rewritten(self, target: Any, rewrite: Rewrite, call: Call) -> Any:
        """The registered rewrite of a layer; where it is used again, its weights are the first's.

        Raises:
            ValueError: if it has other weights there.
        """
        model = _sub_model(target, rewrite, call)
        first = self.rewritten.setdefault(id(target), model)
        shapes, wanted = ([tuple(w.shape) for w in own.weights] for own in (model, first))
        if shapes != wanted:
            raise ValueError(
                f"The rewrite of layer {target.name!r}, which is used several times, makes weights "
                f"of shapes {wanted} for one place and {shapes} for another."
            )
        self.same.update(zip(map(id, model.weights), map(id, first.weights), strict=True))
        return model

    def _weights_of(self, layer: Any) -> tuple[int, ...]:
        """What a layer is known by: one inside a TimeDistributed is also called without it."""
        return tuple(self.same.get(id(weight), id(weight)) for weight in layer.weights)

    def _named(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def _add(self, name: str, prefix: str, origin: str, **fields: Any) -> Ref:
        if name in self.names and prefix:
            name = f"{prefix}_{name}"
        if fields.get("operation") != "input":
            name = layer_name(name)
        name = unique_name(name, self.names)
        self.names.add(name)
        self.steps.append(Step(name=name, origin=origin, origin_kind=self.kind, **fields))
        return Ref(len(self.steps) - 1)


def _sub_model(layer: Any, rewrite: Rewrite, call: Call) -> Any:
    """The registered rewrite of `layer` as a tf_keras model."""
    shapes: list[Any] = []
    replaced((call.args, call.kwargs), lambda v: shapes.append(v.shape) if is_tensor(v) else None)
    inputs = [keras.Input(shape[1:]) for shape in shapes]
    return keras.Model(inputs, rewrite(layer, *inputs))


def _options(layer: Any) -> str:
    """The configuration of a layer, whatever it is called."""
    return f"{type(layer).__name__} { ({**layer.get_config(), 'name': None}) }"
