"""What differs between the two Kerases: how calls, operations and layers are written down."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow import nest

from tfbinreg import _compat
from tfbinreg.frontend.operation_names import (
    ASPECTS,
    KERAS3_ATTRIBUTES,
    KERAS3_OPERATIONS,
    TF_ARGUMENTS,
    TF_OPERATIONS,
)
from tfbinreg.frontend.remedies import remedy_of
from tfbinreg.network.added_layers import Augmentation
from tfbinreg.network.layer_kinds import ACTIVATIONS, HARD_SIGMOID_FIFTH, KINDS, activation_name

keras = _compat.keras

Problem = tuple[str, str]


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One node of a Keras graph: `target`, a layer or operation, with tensors in its arguments."""

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Sequence[Any]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Reading:
    """What a call means: a tf_keras layer or an operation, as in `program.Step`.

    `options` are arguments that the target holds itself, `renames` gives those of the call the
    names that `layer_rules` knows. `over_time` and `activity_regularizer` are as in `program.Step`.
    `function` is an activation function behind the layer that has no name in `ACTIVATIONS`.
    """

    layer: Any = None
    weights: tuple[np.ndarray, ...] = ()
    weight_names: tuple[str, ...] = ()
    activation: str = "linear"
    function: Any = None
    operation: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    renames: Mapping[str, str] = dataclasses.field(default_factory=dict)
    over_time: bool = False
    activity_regularizer: Any = None
    problems: tuple[Problem, ...] = ()


def is_tensor(value: Any) -> bool:
    """Whether `value` is a symbolic tensor of either Keras."""
    return hasattr(value, "_keras_history")


def tensor_key(tensor: Any) -> tuple[int, int, int]:
    """Identifies a symbolic tensor of either Keras."""
    layer, node_index, tensor_index = tensor._keras_history[:3]
    return id(layer), node_index, tensor_index


class Keras2:
    """tf_keras, which tfmot speaks."""

    frozen_models_rest = True  # a nested model that is frozen, whatever the layers inside say
    keras = _compat.keras

    def casting(self, layer: Any) -> contextlib.AbstractContextManager[Any]:
        """Scope in which a layer's `call` may be called by itself, on symbolic tensors."""
        scope = contextlib.ExitStack()
        scope.enter_context(_compat.autocast(layer))
        scope.enter_context(_compat.uncompiled_convolution(layer))
        return scope

    def is_model(self, layer: Any) -> bool:
        return isinstance(layer, keras.Model)

    def is_layer(self, target: Any) -> bool:
        return isinstance(target, keras.layers.Layer) and type(target).__name__ not in _LAMBDAS

    def calls(self, model: Any) -> Iterator[Call]:
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                args, kwargs = node.call_args or (), node.call_kwargs or {}
                yield Call(node.layer, args, kwargs, nest.flatten(node.outputs))

    def read(self, call: Call) -> Reading:
        if type(call.target).__name__ in _LAMBDAS:
            return self._operation(call.target)
        if isinstance(call.target, keras.layers.TimeDistributed):
            return _over_time(self._layer(call.target.layer))
        return self._layer(call.target)

    def _layer(self, layer: Any) -> Reading:
        if not type(layer).__module__.startswith(("tf_keras.", "tfbinreg.")):
            return Reading(layer=layer, problems=(unknown_layer(layer),))
        as_operation = _as_operation(layer)
        if as_operation is not None:
            return as_operation
        if type(layer).__name__ not in KINDS:
            return Reading(layer=layer, problems=(unknown_layer(layer),))
        name, function = _activation(layer)
        if name == "hard_sigmoid":
            name = HARD_SIGMOID_FIFTH
        return Reading(
            layer=layer,
            weights=tuple(layer.get_weights()),
            weight_names=tuple(v.name.split("/")[-1].split(":")[0] for v in layer.weights),
            activation=name,
            function=function,
            activity_regularizer=layer._activity_regularizer,
        )

    def _operation(self, layer: Any) -> Reading:
        function = layer.get_config()["function"]
        name = TF_OPERATIONS.get(function)
        if name is None:
            return Reading(operation=function, problems=(_unknown_operation(f"tf.{function}"),))
        return Reading(operation=name, renames=TF_ARGUMENTS)


class Keras3:
    """Keras 3 of any backend; its layers become tf_keras layers of the same configuration."""

    frozen_models_rest = False

    def __init__(self) -> None:
        self.keras = sys.modules["keras"]

    @contextlib.contextmanager
    def casting(self, layer: Any) -> Iterator[None]:
        """Scope in which a layer's `call` may be called by itself, on symbolic tensors.

        Two things work in a layer that Keras runs, and do not on symbolic tensors: a Sequential
        that was built for images of another size, which is its layers one after the other here,
        and a variable on the left of an operator, which leaves it to the tensor here.
        """
        kinds, plain = (self.keras.Sequential, self.keras.Variable), self.keras.Sequential.__call__

        def call(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            built = getattr(model, "_functional", None)
            if built is None or not is_tensor(inputs) or _fits(built.inputs[0], inputs):
                return plain(model, inputs, *args, **kwargs)
            for part in model.layers:
                inputs = part(inputs, **({"training": False} if _trains(part) else {}))
            return inputs

        methods = {name: _left_to_tensors(getattr(kinds[1], name)) for name in _OPERATORS}
        with _methods(kinds[0], {"__call__": call}), _methods(kinds[1], methods):
            yield

    def is_model(self, layer: Any) -> bool:
        return isinstance(layer, self.keras.Model)

    def is_layer(self, target: Any) -> bool:
        return isinstance(target, self.keras.layers.Layer)

    def calls(self, model: Any) -> Iterator[Call]:
        model = getattr(model, "_functional", None) or model
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                arguments = node.arguments
                yield Call(node.operation, arguments.args, arguments.kwargs, node.outputs)

    def read(self, call: Call) -> Reading:
        target = call.target
        if not self.is_layer(target):
            return self._operation(target)
        if isinstance(target, self.keras.layers.TimeDistributed):
            return _over_time(self._layer(target.layer))
        return self._layer(target)

    def _layer(self, layer: Any) -> Reading:
        if type(layer) is self.keras.layers.Identity:  # it may have no configuration
            return Reading(operation="identity")
        problems = self._problems(layer)
        if problems:
            return Reading(layer=layer, problems=problems)
        as_operation = _as_operation(layer)
        if as_operation is not None:
            return as_operation
        if self._augments(layer):
            return Reading(layer=Augmentation(layer, name=layer.name, dtype=layer.compute_dtype))
        config = layer.get_config()
        name, function = _activation(layer)
        to_numpy = self.keras.ops.convert_to_numpy
        weights = [weight for weight in layer.weights if "seed_generator" not in weight.path]
        known = _keras2_layer(getattr(keras.layers, type(layer).__name__), config)
        return Reading(
            layer=known,
            weights=tuple(to_numpy(weight) for weight in weights),
            weight_names=tuple(weight.name for weight in weights),
            activation=name,
            function=function,
            activity_regularizer=known._activity_regularizer
            or _keras2_option("activity_regularizer", config.get("activity_regularizer")),
        )

    def _problems(self, layer: Any) -> tuple[Problem, ...]:
        """Why a layer cannot be rebuilt in tf_keras."""
        name = type(layer).__name__
        own = type(layer).__module__.startswith("keras.")
        known = self._augments(layer) or (name in KINDS and hasattr(keras.layers, name))
        if not own or not known:
            return (unknown_layer(layer),)
        if getattr(layer, "quantization_mode", None) is not None:
            return (_quantized_layer(layer, "Keras"),)
        return _foreign_parts(layer.get_config())

    def _augments(self, layer: Any) -> bool:
        """Whether a layer varies images in training and leaves them alone at inference."""
        if type(layer) is self.keras.layers.Pipeline:
            return all(self._augments(part) for part in layer.layers)
        return type(layer).__name__ in _KERAS3_AUGMENTATION

    def _operation(self, target: Any) -> Reading:
        class_name = type(target).__name__
        name = KERAS3_OPERATIONS.get(class_name)
        if name is None or not type(target).__module__.startswith("keras."):
            return Reading(operation=class_name, problems=(_unknown_operation(class_name),))
        options = {
            ours: getattr(target, theirs)
            for theirs, ours in KERAS3_ATTRIBUTES.items()
            if hasattr(target, theirs)
        }
        return Reading(operation=name, options=options)


@contextlib.contextmanager
def _methods(kind: type, methods: Mapping[str, Any]) -> Iterator[None]:
    """Scope in which a class has these methods."""
    before = {name: vars(kind).get(name) for name in methods}
    for name, method in methods.items():
        setattr(kind, name, method)
    try:
        yield
    finally:
        for name, own in before.items():
            if own is None:
                delattr(kind, name)
            else:
                setattr(kind, name, own)


def _left_to_tensors(method: Any) -> Any:
    """An operator of a variable that leaves symbolic tensors on its right to do the same."""

    def operate(own: Any, other: Any) -> Any:
        return NotImplemented if is_tensor(other) else method(own, other)

    return operate


def _fits(built: Any, given: Any) -> bool:
    """Whether a model that was built for one tensor takes another, as far as sizes go."""
    pairs = zip(built.shape, given.shape, strict=False)
    return all(size is None or size == own for size, own in pairs)


def _trains(layer: Any) -> bool:
    """Whether `call` of a layer asks if it is training."""
    return "training" in inspect.signature(layer.call).parameters


def _activation(layer: Any) -> tuple[str, Any]:
    """The canonical name of a layer's activation function; "linear" and the function if it has
    none."""
    function = getattr(layer, "activation", None)
    if function is None:
        return "linear", None
    name = ACTIVATIONS.get(activation_name(layer))
    library = (getattr(function, "__module__", None) or "").split(".")[0]
    if name is not None and library in ("keras", "tf_keras", "tensorflow"):
        return name, None
    return "linear", function


def frontend(model: Any) -> Keras2 | Keras3:
    """The front end of a model; `model_checks.check_model` has seen that it has one."""
    return Keras2() if isinstance(model, keras.Model) else Keras3()


def _keras2_layer(layer_class: Any, config: dict[str, Any]) -> Any:
    """A tf_keras layer made from the configuration of the Keras 3 layer of the same class."""
    known = {"name", "trainable"}
    for base in layer_class.__mro__:
        known.update(inspect.signature(base.__init__).parameters)
    if layer_class is keras.layers.LeakyReLU:
        config = {**config, "alpha": config.get("negative_slope")}
    options = {key: _keras2_option(key, value) for key, value in config.items() if key in known}
    return layer_class(**options)


def _keras2_option(key: str, value: Any) -> Any:
    if key == "activation":
        return "linear"  # the program keeps it as a step's activation
    if key.endswith("initializer"):
        return "zeros"  # the weights are set
    if not isinstance(value, dict) or "class_name" not in value:
        return value
    if key == "dtype":
        return value["config"]["name"]
    plain = {"class_name": value["class_name"], "config": value.get("config", {})}
    for ending, read in (
        ("regularizer", keras.regularizers.get),
        ("constraint", keras.constraints.get),
    ):
        if key.endswith(ending):
            return read(plain)
    return plain


def _as_operation(layer: Any) -> Reading | None:
    """What a layer without trained weights is read as; None of another layer."""
    kind = type(layer).__name__
    if kind == "Rescaling":
        scale, offset = np.asarray(layer.scale), np.asarray(layer.offset)
        return Reading(operation="affine", options={"scale": scale, "offset": offset})
    if kind == "Normalization":
        return Reading(operation="affine", options=_normalization_constants(layer))
    if kind == "Resizing":
        size = layer.height, layer.width
        antialias = getattr(layer, "antialias", False)
        options = {"size": size, "interpolation": layer.interpolation, "antialias": antialias}
        keeps = [name for name in ASPECTS if getattr(layer, name, False)]
        problems = tuple((name, "resize to the size itself") for name in keeps)
        return Reading(operation="resize", options=options, problems=problems)
    return None


def _normalization_constants(layer: Any) -> dict[str, Any]:
    """scale and offset of a Normalization layer."""
    mean = np.asarray(layer.mean, np.float64).reshape(-1)
    deviation = np.maximum(np.sqrt(np.asarray(layer.variance, np.float64).reshape(-1)), 1e-7)
    if layer.invert:
        return {"scale": deviation, "offset": mean}
    return {"scale": 1.0 / deviation, "offset": -mean / deviation}


def _over_time(reading: Reading) -> Reading:
    return dataclasses.replace(reading, over_time=True)


def _foreign_parts(config: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Regularizers and constraints of a Keras 3 layer that tf_keras does not have."""
    problems = []
    for key, value in config.items():
        module = {"regularizer": keras.regularizers, "constraint": keras.constraints}.get(
            key.rpartition("_")[2]
        )
        if module is None or not isinstance(value, dict):
            continue
        own = value.get("module") or ""
        if not own.startswith("keras.") or not hasattr(module, value["class_name"]):
            what = f"{key} {value['class_name']} cannot be rebuilt in tf_keras"
            problems.append((what, "use one that both Kerases have, or a tf_keras model"))
    return tuple(problems)


def _quantized_layer(layer: Any, library: str) -> Problem:
    what = f"layer class {type(layer).__name__} is quantized by {library} already"
    return (what, "start from the float model")


def is_opaque(layer: Any) -> bool:
    """Whether a layer is somebody else's, so that only its `call` tells what it computes."""
    library = type(layer).__module__.split(".")[0]
    if library in ("keras", "tf_keras"):
        return type(layer).__name__ in ("ELU", "Lambda", "ThresholdedReLU")
    return library not in ("tfbinreg", *_QUANTIZING_LIBRARIES)


def unknown_layer(layer: Any) -> Problem:
    """The problem of a layer whose class has no row in the table."""
    kind, library = type(layer).__name__, type(layer).__module__.split(".")[0]
    if library in _QUANTIZING_LIBRARIES:
        return _quantized_layer(layer, _QUANTIZING_LIBRARIES[library])
    return (f"layer class {kind} is not supported", remedy_of(library, kind))


def _unknown_operation(name: str) -> Problem:
    wanted = name.rpartition(".")[2].lower()
    near = difflib.get_close_matches(wanted, sorted(set(KERAS3_OPERATIONS.values())), cutoff=0.5)
    nearest = f" ({', '.join(near)})" if near else ""
    remedy = f"use a layer, or an operation that is in docs/supported.md{nearest}"
    return (f"operation {name} is not supported", remedy)


_QUANTIZING_LIBRARIES = {
    "qkeras": "QKeras",
    "hgq": "HGQ",
    "tensorflow_model_optimization": "tfmot",
    "larq": "Larq",
}

# They do nothing at inference; `Pipeline` too if it holds nothing else.
_KERAS3_AUGMENTATION = frozenset(
    {
        "AugMix",
        "RandAugment",
        "RandomBrightness",
        "RandomColorDegeneration",
        "RandomColorJitter",
        "RandomContrast",
        "RandomElasticTransform",
        "RandomErasing",
        "RandomFlip",
        "RandomGaussianBlur",
        "RandomGrayscale",
        "RandomHue",
        "RandomInvert",
        "RandomPerspective",
        "RandomPosterization",
        "RandomRotation",
        "RandomSaturation",
        "RandomSharpness",
        "RandomShear",
        "RandomTranslation",
        "RandomZoom",
    }
)

_OPERATORS = ("__add__", "__sub__", "__mul__", "__truediv__", "__pow__", "__matmul__")
_LAMBDAS = ("TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty")
