"""How each layer class and operation is written in the few layers of a normalized model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfbinreg import _compat
from tfbinreg.frontend import pool_rules
from tfbinreg.frontend.activation_rules import (
    activate,
    elementwise,
    hard_swish,
    leaky_relu,
    softmax,
)
from tfbinreg.frontend.builder import (
    Builder,
    PendingAffine,
    PendingFunction,
    PendingReLU,
    UnsupportedError,
    Value,
    target,
)
from tfbinreg.frontend.program import Shape, Step
from tfbinreg.network.added_layers import ChannelAffine, ResizeBilinear
from tfbinreg.network.graph import clone_layer
from tfbinreg.network.layer_kinds import KINDS, check_activation

keras = _compat.keras
_regularizers = keras.regularizers

Rewrite = Callable[[Builder, Step, list[Value]], Value]
MOST_AXES = 5  # of a TRANSPOSE or STRIDED_SLICE in TFLM, with the batch


def _linear(step: Step, **changes: Any) -> Any:
    """The step's layer without its activation function, new and unbuilt."""
    options = {"activation": "linear", "activity_regularizer": None, **changes}
    return clone_layer(step.layer, name=step.name, **options)


def _kernel(build: Builder, step: Step, values: list[Value]) -> Value:
    output = Value(step.shape, build.call(_linear(step), build.image(values[0]), step.weights))
    return activate(build, step.activation, output)


def _dense(build: Builder, step: Step, values: list[Value]) -> Value:
    if len(step.shape) == 2:
        tensor = build.call(_linear(step), build.plain(values[0]), step.weights)
    else:  # at every position
        options = _options(step.layer, "kernel", "bias", name=step.name, new_axes=2)
        layer = keras.layers.Conv2D(step.shape[-1], 1, **options)
        kernel, *bias = step.weights
        tensor = build.call(layer, build.image(values[0]), [kernel[None, None], *bias])
    return activate(build, step.activation, Value(step.shape, tensor))


def _options(layer: Any, *parts: str, name: str, new_axes: int = 0) -> dict[str, Any]:
    """Name, bias, regularizers and constraints of `layer` for the layer that takes its place, whose
    kernel has `new_axes` more axes in front."""
    options = {"name": name, "use_bias": layer.use_bias}
    for part in parts:
        axes = 0 if part == "bias" else new_axes
        regularizer = getattr(layer, f"{part}_regularizer")
        if axes and isinstance(regularizer, _regularizers.OrthogonalRegularizer):
            what = f"{part} regularizer OrthogonalRegularizer"
            raise UnsupportedError((what, "use L1, L2 or L1L2"))
        options[f"{part}_regularizer"] = regularizer
        options[f"{part}_constraint"] = _moved(getattr(layer, f"{part}_constraint"), axes)
    return options


def _moved(constraint: Any, new_axes: int) -> Any:
    """A constraint for a kernel with `new_axes` more axes in front."""
    if not new_axes or getattr(constraint, "axis", None) is None:
        return constraint
    axes = [axis + new_axes if axis >= 0 else axis for axis in np.ravel(constraint.axis).tolist()]
    return type(constraint).from_config({**constraint.get_config(), "axis": axes})


def _conv1d(build: Builder, step: Step, values: list[Value]) -> Value:
    layer = step.layer
    tensor, padding = _causal(build, layer, build.image(values[0]))
    conv = keras.layers.Conv2D(
        layer.filters,
        (1, *layer.kernel_size),
        strides=(1, *layer.strides),
        dilation_rate=(1, *layer.dilation_rate),
        padding=padding,
        groups=layer.groups,
        **_options(layer, "kernel", "bias", name=step.name, new_axes=1),
    )
    kernel, *bias = step.weights
    output = Value(step.shape, build.call(conv, tensor, [kernel[None], *bias]))
    return activate(build, step.activation, output)


def _causal(build: Builder, layer: Any, tensor: Any) -> tuple[Any, str]:
    """`tensor` with the zeros that causal padding puts in front, and the padding that is left."""
    if layer.padding != "causal":
        return tensor, layer.padding
    zeros = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
    pad = keras.layers.ZeroPadding2D(((0, 0), (zeros, 0)), name=build.part_name("pad"))
    return build.call(pad, tensor), "valid"


def _depthwise1d(build: Builder, step: Step, values: list[Value]) -> Value:
    tensor = build.image(values[0])
    kernel, *bias = step.weights
    options = _options(step.layer, "depthwise", "bias", name=step.name, new_axes=1)
    layer, tensor = _flat_depthwise(build, step.layer, tensor, options)
    output = Value(step.shape, build.call(layer, tensor, [kernel[None], *bias]))
    return activate(build, step.activation, output)


def _flat_depthwise(
    build: Builder, layer: Any, tensor: Any, options: Mapping[str, Any]
) -> tuple[Any, Any]:
    """A DepthwiseConv2D over (1, length) for a layer over length, and its input."""
    tensor, padding = _causal(build, layer, tensor)
    depthwise = keras.layers.DepthwiseConv2D(
        (1, *layer.kernel_size),
        strides=layer.strides * 2,
        dilation_rate=(1, *layer.dilation_rate),
        padding=padding,
        depth_multiplier=layer.depth_multiplier,
        **options,
    )
    return depthwise, tensor


def _separable(build: Builder, step: Step, values: list[Value]) -> Value:
    layer, tensor = step.layer, build.image(values[0])
    depth_kernel, point_kernel, *bias = step.weights
    new_axes = 4 - depth_kernel.ndim
    name, point_name = build.part_name("depthwise"), build.part_name("pointwise")
    options = _options(layer, "depthwise", name=name, new_axes=new_axes)
    options["use_bias"] = False
    if new_axes:
        depthwise, tensor = _flat_depthwise(build, layer, tensor, options)
        depth_kernel, point_kernel = depth_kernel[None], point_kernel[None]
    else:
        depthwise = keras.layers.DepthwiseConv2D(
            layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            depth_multiplier=layer.depth_multiplier,
            dilation_rate=layer.dilation_rate,
            **options,
        )
    own = _options(layer, "pointwise", "bias", name=point_name, new_axes=new_axes)
    own = {key.replace("pointwise", "kernel"): value for key, value in own.items()}
    pointwise = keras.layers.Conv2D(layer.filters, 1, **own)
    tensor = build.call(depthwise, tensor, [depth_kernel])
    output = Value(step.shape, build.call(pointwise, tensor, [point_kernel, *bias]))
    return activate(build, step.activation, output)


def _norm(build: Builder, step: Step, values: list[Value]) -> Value:
    layer = clone_layer(step.layer, axis=-1, name=step.name)
    return Value(step.shape, build.per_channel(layer, values[0], step.weights))


def _relu_layer(build: Builder, step: Step, values: list[Value]) -> Value:
    layer = step.layer
    if layer.negative_slope:
        return leaky_relu(build, values[0], float(layer.negative_slope))
    return build.relu(values[0], None if layer.max_value is None else float(layer.max_value))


def _prelu(build: Builder, step: Step, values: list[Value]) -> Value:
    tensor = build.tensor(values[0])
    layer = keras.layers.PReLU(
        alpha_regularizer=step.layer.alpha_regularizer,
        alpha_constraint=step.layer.alpha_constraint,
        shared_axes=list(range(1, len(tensor.shape) - 1)),
        name=step.name,
    )
    (slopes,) = step.weights
    weights = [slopes.reshape(*[1] * (len(tensor.shape) - 2), -1)]
    return Value(step.shape, build.call(layer, tensor, weights))


def _same_form(build: Builder, values: Sequence[Value]) -> list[Any]:
    """Tensors of several values, all as images or all in their own shape."""
    tensors = [build.tensor(value) for value in values]
    if len({len(tensor.shape) for tensor in tensors}) == 1:
        return tensors
    return [build.image(value) for value in values]


def _merge(layer_class: Any) -> Rewrite:
    """Two tensors at a time, the first two first."""

    def rewrite(build: Builder, step: Step, values: list[Value]) -> Value:
        tensors = _same_form(build, values)
        output = tensors[0]
        for index, tensor in enumerate(tensors[1:], 2):
            last = index == len(tensors)
            name = build.name("sum") if last else build.part_name(f"first_{index}")
            output = build.call(layer_class(name=name), [output, tensor])
        return Value(step.shape, output)

    return rewrite


def _extreme(layer_class: Any) -> Rewrite:
    """The larger or the smaller of numbers, which all lie on one grid; two tensors at a time."""
    merge = _merge(layer_class)

    def rewrite(build: Builder, step: Step, values: list[Value]) -> Value:
        return merge(build, step, [_sharing(build, value, i) for i, value in enumerate(values)])

    return rewrite


def _sharing(build: Builder, value: Value, index: int) -> Value:
    """A value whose grid can be shared: itself, or a copy on a grid of its own."""
    if not build.needs_own_grid(build.tensor(value)):
        return value
    copy = ChannelAffine(name=build.part_name(f"input{index}"))
    return Value(value.shape, build.call(copy, build.image(value)))


_add, _subtract = _merge(keras.layers.Add), _merge(keras.layers.Subtract)


def _multiply(build: Builder, step: Step, values: list[Value]) -> Value:
    if len(values) == 2:
        for source, gate in (values, values[::-1]):
            factor = _hard_swish_factor(source, gate)
            if factor is not None:
                return build.affine(hard_swish(build, source), factor, 0.0)
    return _merge(keras.layers.Multiply)(build, step, values)


def _hard_swish_factor(source: Value, gate: Value) -> float | None:
    """c where source * gate is c * hard_swish(source), None if it is not."""
    if not isinstance(gate, PendingReLU) or not isinstance(gate.source, PendingAffine):
        return None
    inner = gate.source
    if inner.source is not source or gate.limit is None:
        return None
    slope = gate.limit / 6.0
    if not (np.allclose(inner.scale, slope) and np.allclose(inner.offset, 3.0 * slope)):
        return None
    factor = 6.0 * slope
    return 1.0 if abs(factor - 1.0) < 1e-6 else factor


def _average(build: Builder, step: Step, values: list[Value]) -> Value:
    return build.affine(_add(build, step, values), 1.0 / len(values), 0.0)


def _concatenate(build: Builder, step: Step, values: list[Value]) -> Value:
    return concatenate(build, values, step.layer.axis, step.shape)


def concatenate(build: Builder, values: Sequence[Value], axis: int, shape: Shape) -> Value:
    """Values one behind the other along an axis other than the batch."""
    if len(values) == 1:
        return values[0]
    axis = axis % len(shape)
    last = axis == len(shape) - 1
    tensors = _same_form(build, values) if last else [build.plain(value) for value in values]
    tensors = [
        build.tensor(_sharing(build, Value(value.shape, tensor), index))
        for index, (value, tensor) in enumerate(zip(values, tensors, strict=True))
    ]
    if len({len(tensor.shape) for tensor in tensors}) > 1:
        tensors = [build.image(Value(v.shape, t)) for v, t in zip(values, tensors, strict=True)]
    if not last:  # copies may be images
        tensors = [build.plain(Value(v.shape, t)) for v, t in zip(values, tensors, strict=True)]
    layer = keras.layers.Concatenate(axis=-1 if last else axis, name=build.name("concat"))
    return Value(shape, build.call(layer, tensors))


def _keep(build: Builder, step: Step, values: list[Value]) -> Value:
    """The same layer on an image."""
    layer = clone_layer(step.layer, name=step.name)
    return Value(step.shape, build.call(layer, build.image(values[0]), step.weights))


def _keep_any(build: Builder, step: Step, values: list[Value]) -> Value:
    """The same layer on numbers in any form."""
    return Value(step.shape, build.call(_named(step), build.tensor(values[0])))


def _named(step: Step) -> Any:
    return clone_layer(step.layer, name=step.name)


def _keep_plain(build: Builder, step: Step, values: list[Value]) -> Value:
    """The same layer on numbers in the form that the user's model has there."""
    return Value(step.shape, build.call(_named(step), build.plain(values[0])))


def _dropout(build: Builder, step: Step, values: list[Value]) -> Value:
    keep = _keep_any if step.layer.noise_shape is None else _keep_plain
    return keep(build, step, values)


def _flatten(build: Builder, step: Step, values: list[Value]) -> Value:
    if len(values[0].shape) == 2:
        return values[0]
    layer = keras.layers.Flatten(name=step.name)
    return Value(step.shape, build.call(layer, build.tensor(values[0])))


def _reshaped(build: Builder, step: Step, values: list[Value]) -> Value:
    """Any layer or operation that only changes the shape."""
    given = tuple(values[0].shape)
    if tuple(step.shape) == given:
        return values[0]
    sizes = [[size for size in shape[1:] if size is not None] for shape in (step.shape, given)]
    known = [len(size) for size in sizes] == [len(step.shape) - 1, len(given) - 1]
    if known and math.prod(sizes[0]) != math.prod(sizes[1]):
        what = f"reshape from {given} to {tuple(step.shape)}, which puts samples together"
        raise UnsupportedError((what, "leave the batch alone: layers work at every position"))
    tensor = build.tensor(values[0])
    layer = keras.layers.Reshape(target(step.shape), name=step.name)
    return Value(step.shape, build.call(layer, tensor))


def permute(build: Builder, step: Step, x: Value, order: Sequence[int]) -> Value:
    """The axes in another order, the batch first. TFLM has five at most: of more, neighbours that
    stay neighbours are one."""
    groups: list[list[int]] = []
    for axis in order:
        joins = len(order) > MOST_AXES and axis > 1 and groups[-1][-1] == axis - 1
        groups = [*groups[:-1], [*groups[-1], axis]] if joins else [*groups, [axis]]
    if len(groups) == len(order) <= MOST_AXES:
        layer = keras.layers.Permute(order[1:], name=step.name)
        return Value(step.shape, build.call(layer, build.plain(x)))
    if len(groups) > MOST_AXES or None in x.shape[1:]:
        what = f"transpose of shape {x.shape} to {list(order)}"
        raise UnsupportedError((what, f"take {MOST_AXES} axes at most, of known sizes"))
    apart = sorted(groups)
    sizes = [math.prod(x.shape[axis] or 0 for axis in group) for group in apart[1:]]
    dims = [apart.index(group) for group in groups[1:]]
    tensor = build.plain(x)
    for layer in (
        keras.layers.Reshape(sizes, name=build.part_name("joined")),
        keras.layers.Permute(dims, name=build.part_name("axes")),
        keras.layers.Reshape(step.shape[1:], name=step.name),
    ):
        tensor = build.call(layer, tensor)
    return Value(step.shape, tensor)


def _upsample(build: Builder, step: Step, values: list[Value]) -> Value:
    if step.layer.interpolation == "nearest":
        return _keep(build, step, values)
    layer = ResizeBilinear(factor=step.layer.size, name=step.name)
    return Value(step.shape, build.call(layer, build.image(values[0])))


def _flat(layer_class: Any, options: Callable[[Any], dict[str, Any]]) -> Rewrite:
    """A layer over (1, length) for one over length; `options` translates its configuration."""

    def rewrite(build: Builder, step: Step, values: list[Value]) -> Value:
        layer = layer_class(name=step.name, **options(step.layer))
        return Value(step.shape, build.call(layer, build.image(values[0])))

    return rewrite


def regularize_activity(build: Builder, step: Step, value: Value) -> Value:
    """`value`, with the loss that the step's layer takes of its outputs in training."""
    regularizer = step.activity_regularizer
    if regularizer is None:
        return value
    if type(regularizer) not in (_regularizers.L1, _regularizers.L2, _regularizers.L1L2):
        what = f"activity regularizer {type(regularizer).__name__}"
        raise UnsupportedError((what, "use L1, L2 or L1L2"))
    strengths = {key: float(getattr(regularizer, key, 0.0)) for key in ("l1", "l2")}
    layer = keras.layers.ActivityRegularization(**strengths, name=build.name("activity"))
    return elementwise(build, layer, value)


_EVERYWHERE = ("Dense", "BatchNormalization", "ReLU", "LeakyReLU", "Activation", "Softmax")
_RANDOM = ("Dropout", "GaussianNoise", "GaussianDropout", "AlphaDropout")
_ALONG_ROWS = ("Conv1D", "DepthwiseConv1D", "SeparableConv1D", "MaxPooling1D", "AveragePooling1D",
               "ZeroPadding1D", "Cropping1D", "UpSampling1D")  # fmt: skip
# Layer class inside a TimeDistributed -> the class that does the same to all times at once: the
# last axis stays the last, and what works along one axis works along the rows of an image.
_OVER_TIME: Mapping[str, str] = {
    **{name: name for name in (*_EVERYWHERE, *_RANDOM, *_ALONG_ROWS)},
    **{"Flatten": "Reshape", "Reshape": "Reshape"},
}


def rewrite_over_time(build: Builder, step: Step, values: list[Value]) -> Value:
    """A TimeDistributed layer, called once on all times."""
    kind, layer = step.kind, step.layer
    shape = values[0].shape
    if kind not in _OVER_TIME or len(shape) > 4:
        what = f"TimeDistributed {kind} on inputs of shape {tuple(shape)}"
        remedy = f"it can hold {', '.join(_OVER_TIME)} on inputs of 2 or 3 axes a sample"
        raise UnsupportedError((what, remedy))
    problems = KINDS[kind].check(layer, [(shape[0], *shape[2:])])
    problems += check_activation(step.activation)
    if step.activity_regularizer is not None:
        problems.append(("activity regularizer inside TimeDistributed", "put it outside"))
    if kind in ("DepthwiseConv1D", "SeparableConv1D") and set(layer.strides) != {1}:
        problems.append(("strides inside TimeDistributed", "use Conv1D, or strides of 1"))
    if problems:
        raise UnsupportedError(*problems)
    return LAYERS[_OVER_TIME[kind]](build, step, values)


LAYERS: Mapping[str, Rewrite] = {
    "Conv2D": _kernel,
    "DepthwiseConv2D": _kernel,
    "Conv2DTranspose": _kernel,
    "Dense": _dense,
    "Conv1D": _conv1d,
    "DepthwiseConv1D": _depthwise1d,
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
    "BatchNormalization": _norm,
    "ChannelAffine": lambda build, step, values: build.affine(values[0], *step.weights),
    "ReLU": _relu_layer,
    "LeakyReLU": lambda build, step, values: leaky_relu(build, values[0], float(step.layer.alpha)),
    "PReLU": _prelu,
    "HardSwish": lambda build, step, values: hard_swish(build, values[0]),
    "Activation": lambda build, step, values: activate(build, step.activation, values[0]),
    "ValueFunction": lambda build, step, values: PendingFunction(
        values[0].shape,
        step=step,
        source=values[0],
        expression=json.loads(step.layer.expression),
    ),
    "Softmax": lambda build, step, values: softmax(build, values[0], step.layer.axis),
    "Add": _add,
    "Subtract": _subtract,
    "Multiply": _multiply,
    "Average": _average,
    "Maximum": _extreme(keras.layers.Maximum),
    "Minimum": _extreme(keras.layers.Minimum),
    "Concatenate": _concatenate,
    "GlobalAveragePooling2D": pool_rules.global_average,
    "GlobalAveragePooling1D": pool_rules.global_average,
    "GlobalMaxPooling2D": pool_rules.global_maximum,
    "GlobalMaxPooling1D": pool_rules.global_maximum,
    "AveragePooling2D": pool_rules.average_layer,
    "AveragePooling1D": pool_rules.average_layer,
    "MaxPooling2D": pool_rules.max_layer,
    "MaxPooling1D": pool_rules.max_layer,
    "PaddedMaxPooling2D": _keep,
    "UpSampling2D": _upsample,
    "ResizeBilinear": _keep,
    "UpSampling1D": _flat(keras.layers.UpSampling2D, lambda layer: {"size": (1, layer.size)}),
    "ZeroPadding2D": _keep,
    "ZeroPadding1D": _flat(
        keras.layers.ZeroPadding2D, lambda layer: {"padding": ((0, 0), tuple(layer.padding))}
    ),
    "Cropping2D": _keep,
    "Cropping1D": _flat(
        keras.layers.Cropping2D, lambda layer: {"cropping": ((0, 0), tuple(layer.cropping))}
    ),
    "Slice": _keep_any,
    "Flatten": _flatten,
    "Reshape": _reshaped,
    "Permute": lambda build, step, values: permute(build, step, values[0], (0, *step.layer.dims)),
    "Dropout": _dropout,
    "SpatialDropout1D": _flat(keras.layers.SpatialDropout2D, lambda layer: {"rate": layer.rate}),
    "SpatialDropout2D": _keep,
    "GaussianNoise": _keep_any,
    "GaussianDropout": _keep_any,
    "AlphaDropout": _dropout,
    "ActivityRegularization": lambda build, step, values: values[0],
    "Identity": lambda build, step, values: values[0],
    **dict.fromkeys(
        (
            "RandomFlip",
            "RandomRotation",
            "RandomZoom",
            "RandomTranslation",
            "RandomContrast",
            "RandomBrightness",
            "RandomCrop",
            "Augmentation",
        ),
        _keep_plain,
    ),
}
