"""Any supported Keras model -> an equivalent plain functional tf_keras model of simple layers.

Nested models are flattened. Operations on tensors and fused activations become separate layers,
one-dimensional layers become two-dimensional ones, and constants become `ChannelAffine`s, so that
everything after this meets few layer kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow import nest

from tfbinreg import _compat
from tfbinreg.core.problems import Problem, raise_problems
from tfbinreg.frontend.builder import Builder, Unfinished, UnsupportedError, Value
from tfbinreg.frontend.layer_rules import LAYERS, regularize_activity, rewrite_over_time
from tfbinreg.frontend.operation_rules import operate
from tfbinreg.frontend.program import Ref, Step, refs, replaced
from tfbinreg.frontend.read import read
from tfbinreg.network.layer_kinds import KINDS, check_activation

keras = _compat.keras

_TOLERANCE, _HALF_TOLERANCE = 1e-5, 2e-2  # parts of the largest output; of 16-bit layers
# Rounding differs in every layer. A model that moves its outputs by more than the tolerance when
# the last digit of its inputs changes may be off by this multiple of that.
_NOISE = 4.0


def normalize(model: Any) -> tuple[Any, dict[str, str]]:
    """Rewrite `model` as simple layers with the same outputs.

    Args:
        model: a built Sequential or Functional model of tf_keras or Keras 3.

    Returns:
        The new model, with weights of its own, and for each of its layers the name of the layer of
        `model` it comes from.

    Raises:
        ValueError: listing every layer that is not supported; or if the outputs of the two models
            differ by more than 1e-5 of the largest output (2e-2 if layers compute in 16 bits).
    """
    program = read(model)
    builder = Builder([step.name for step in program.steps])
    values: list[Value] = []
    problems: list[Problem] = []
    for step, uses in zip(program.steps, program.uses(), strict=True):
        builder.begin(step)
        found = [*step.problems, *_weight_problems(step)]
        value = None
        if not found:
            try:
                with _compat.dtype_policy(step.layer):
                    value = _rewrite(builder, step, values)
                    value = regularize_activity(builder, step, value)
            except UnsupportedError as error:
                found = error.problems
        name, kind = step.origin or step.name, _kind(step)
        problems += [Problem(name, *problem, kind=kind) for problem in found]
        # After a problem the rest is still read, for there may be more.
        value = value or Value(step.shape, keras.Input(step.shape[1:]))
        builder.finish(value, uses)
        values.append(value)

    def output(index: int) -> Any:
        step = program.steps[index]
        builder.begin(step)
        try:
            return builder.plain(values[index])
        except UnsupportedError as error:
            name = step.origin or step.name
            problems.extend(Problem(name, *problem, kind=_kind(step)) for problem in error.problems)
            return keras.Input(step.shape[1:])

    outputs = nest.map_structure(output, program.nested_outputs)
    raise_problems(problems, f"quantize model {model.name!r}")
    inputs = nest.map_structure(lambda index: values[index].tensor, program.nested_inputs)
    with _compat.dtype_policy(model):
        normal = keras.Model(inputs, outputs, name=program.name)
    _compat.set_output_names(normal, program.output_names)
    builder.set_weights()
    _check_equal(model, normal, program.nested_inputs)
    return normal, builder.origin


def _rewrite(builder: Builder, step: Step, values: list[Value]) -> Value:
    if step.operation == "input":
        if len(step.shape) > 4 or len(step.shape) < 2:
            raise UnsupportedError((f"input of shape {step.shape}", "use 1 to 3 axes a sample"))
        builder.origin[step.name] = step.origin
        return Value(step.shape, keras.Input(batch_shape=step.shape, name=step.name))

    def value(leaf: Any) -> Any:
        return values[leaf.index] if isinstance(leaf, Ref) else leaf

    args, kwargs = replaced(step.args, value), replaced(step.kwargs, value)
    taken = [values[ref.index] for ref in refs((step.args, step.kwargs))]
    _require_reader(step, taken)
    if step.operation is not None:
        return operate(builder, step, args, kwargs)
    if step.over_time:
        return rewrite_over_time(builder, step, taken)
    problems = KINDS[step.kind].check(step.layer, [value.shape for value in taken])
    problems += check_activation(step.activation)
    if problems:
        raise UnsupportedError(*problems)
    return LAYERS[step.kind](builder, step, taken)


def _require_reader(step: Step, values: Sequence[Value]) -> None:
    """Check that a step may take these values.

    Raises:
        UnsupportedError: if one of them is a part of what steps of another kind compute.
    """
    for value in values:
        if isinstance(value, Unfinished) and step.kind not in value.readers:
            what, remedy = value.problem
            raise UnsupportedError((f"it reads {what}", remedy))


def _kind(step: Step) -> str:
    """What a step is counted as: its class or operation, and the user's layer that it is part of,
    whose operations are of no interest."""
    if step.origin_kind is None:
        return step.kind
    return f"{step.kind} in {step.origin_kind}" if step.operation is None else step.origin_kind


def _weight_problems(step: Step) -> list[tuple[str, str]]:
    """Weights that training cannot start from."""
    problems = []
    for name, weight in zip(step.weight_names, step.weights, strict=True):
        if not np.all(np.isfinite(weight)):
            problems.append((f"{name} has NaN or infinite values", "train or load it again"))
        elif "kernel" in name and not np.any(weight):
            problems.append((f"{name} is all zeros", "train it first, or remove the layer"))
    return problems


def _check_equal(model: Any, normal: Any, nesting: Any) -> None:
    """Check that both models give the same outputs for seeded inputs, within float32 precision.

    `nesting` is the form in which both take their inputs.
    """
    random = np.random.default_rng(0)
    arrays = [
        random.uniform(-1.0, 1.0, [tensor.shape[0] or 2, *(s or 32 for s in tensor.shape[1:])])
        for tensor in normal.inputs
    ]
    inputs = nest.pack_sequence_as(nesting, [array.astype(np.float32) for array in arrays])
    types = {getattr(layer, "compute_dtype", None) for layer in model._flatten_layers()}
    tolerance = _HALF_TOLERANCE if types & {"float16", "bfloat16"} else _TOLERANCE
    ours, theirs = (_outputs(net, inputs) for net in (normal, model))
    for index, (new, old) in enumerate(zip(ours, theirs, strict=True)):
        if not np.all(np.isfinite(old)):
            raise ValueError(
                f"Output {index} of model {model.name!r} is not finite for inputs from -1 to 1: "
                "look for NaN or infinite weights, or a negative variance."
            )
        largest = max(1.0, float(np.max(np.abs(old))))
        off = float(np.max(np.abs(new.reshape(old.shape) - old)))
        if not off <= tolerance * largest:
            changed = nest.map_structure(lambda x: np.nextafter(x, np.float32(2.0)), inputs)
            noise = float(np.max(np.abs(_outputs(model, changed)[index] - old)))
            if off <= _NOISE * noise <= _HALF_TOLERANCE * largest:
                continue
            raise ValueError(
                f"Output {index} of model {model.name!r} could not be rewritten exactly: it is off "
                f"by {off:.2g} (largest output {largest:.2g}). Please report the model."
            )


def _outputs(model: Any, inputs: Any) -> list[np.ndarray]:
    outputs = nest.flatten(model(inputs, training=False))
    return [
        np.asarray(output.detach() if hasattr(output, "detach") else output) for output in outputs
    ]
