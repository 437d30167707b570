"""Quantized model -> frozen graph: integer codes, scales and biases, no Keras state.

Batch normalization is folded as (codes, scale) pairs: y = k * (conv - mean) + beta with
k = gamma / sqrt(variance + epsilon) multiplies each channel's scale by |k| and its codes by the
sign of k, so the codes stay the trained integers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from tfbinreg import _compat
from tfbinreg.core.grid import CodedTensor
from tfbinreg.core.problems import Problem, raise_problems
from tfbinreg.core.target import NOT_FINALIZED, has_short_constants, state_of, target_of
from tfbinreg.deploy.frozen import FrozenGraph, FrozenKernel
from tfbinreg.deploy.kernels import frozen_kernel
from tfbinreg.deploy.operations import Offsets, Operations, operations_of
from tfbinreg.layers.kernel import QuantizeActivation
from tfbinreg.layers.sites import check_finite, require_quantized
from tfbinreg.network import edges, value_functions
from tfbinreg.network.graph import trace
from tfbinreg.network.layer_kinds import KINDS
from tfbinreg.network.open_sizes import InputShape, fixed_shapes, with_input_shapes
from tfbinreg.version import __version__


@dataclasses.dataclass(frozen=True, eq=False)
class Frozen:
    """A frozen graph and its origins, for `finalize`.

    Attributes:
        graph: plain values.
        offsets: index of an operation with a kernel -> the variables that its bias comes from.
        grid_layers: index of an operation -> the `QuantizeActivation` that holds its outputs' grid.
    """

    graph: FrozenGraph
    offsets: Mapping[int, Offsets]
    grid_layers: Mapping[int, QuantizeActivation]


def freeze(
    model: Any, *, input_shape: InputShape | None = None, short_constants: bool | None = None
) -> FrozenGraph:
    """Turn a trained quantized model into integer operations.

    Args:
        model: a trained model from `quantize_apply`.
        input_shape: sizes for inputs that the model leaves open (`open_sizes.InputShape`);
            None leaves them open.
        short_constants: see `finalize`; None for the setting that the model was finalized with.

    Raises:
        ValueError: if the model is not quantized, or has parts without an exact integer form; the
            message lists them by layer name.
    """
    return freeze_with_offsets(
        model, input_shape=input_shape, short_constants=short_constants
    ).graph


def freeze_with_offsets(
    model: Any, *, input_shape: InputShape | None = None, short_constants: bool | None = None
) -> Frozen:
    """`freeze`, and the variables that the biases come from."""
    require_quantized(model)
    check_finite(model)
    layers = trace(model)
    shapes = None if input_shape is None else fixed_shapes(model, input_shape)
    if shapes is not None:
        layers = with_input_shapes(layers, shapes)
    doing = f"convert model {model.name!r}"
    found = operations_of(layers)
    raise_problems(found.problems, doing)
    short = has_short_constants(model) if short_constants is None else short_constants
    kernels = _kernels(found, model.recipe.stored_bits, short)
    raise_problems((k for k in kernels.values() if isinstance(k, Problem)), doing)
    ops: list[Any] = [operation.op for operation in found.operations]
    for index, kernel in kernels.items():
        ops[index] = dataclasses.replace(ops[index], kernel=kernel)
    ops = _with_tables(ops, doing)
    graph = FrozenGraph(
        ops=tuple(ops),
        inputs=found.inputs,
        outputs=found.outputs,
        input_names=tuple(edges.names(model.input, model.input_names)),
        output_names=tuple(edges.names(model.output, model.output_names)),
        recipe=json.loads(model.recipe.to_json()),
        versions={"tfbinreg": __version__, **_compat.versions()},
        target=target_of(model),
        finalized=state_of(model) != NOT_FINALIZED,
    )
    origins = dict(enumerate(found.operations))
    return Frozen(
        graph,
        {index: origins[index].offsets for index in kernels},
        {index: own.grid_layer for index, own in origins.items() if own.grid_layer is not None},
    )


def _with_tables(ops: list[Any], doing: str) -> list[Any]:
    """The operations, with the tables of those that are functions of one value."""
    made, problems = list(ops), list[Problem]()
    for index, op in enumerate(ops):
        if op.kind != "ValueFunction":
            continue
        source, expression = ops[op.inputs[0]].grid, json.loads(op.attributes["expression"])
        try:
            if source is None or op.grid is None:
                raise ValueError("its output is not on a grid")
            table = value_functions.table(expression, source, op.grid)
            made[index] = dataclasses.replace(op, attributes={**op.attributes, "table": table})
        except ValueError as error:
            problems.append(Problem(op.name, str(error), "clip its inputs, or use a ReLU before"))
    raise_problems(problems, doing)
    return made


def _kernels(found: Operations, stored_bits: int, short: bool) -> dict[int, FrozenKernel | Problem]:
    """The kernels of the operations that have one, by their indices."""
    kernels: dict[int, FrozenKernel | Problem] = {}
    for index, operation in enumerate(found.operations):
        op = operation.op
        if not KINDS[op.kind].has_kernel:
            continue
        source, target = found.operations[op.inputs[0]].op.grid, op.grid
        if source is None or target is None:
            what = "its output is not on a grid"
            kernels[index] = Problem(op.name, what, "quantize the whole model")
        else:
            kernels[index] = frozen_kernel(operation, source, target, stored_bits, short=short)
    return kernels


def integer_codes(model: Any) -> dict[str, CodedTensor]:
    """The deployed integer codes of every quantized kernel, before pre-scaling.

    Args:
        model: a trained model from `quantize_apply`.

    Returns:
        Layer name -> `CodedTensor`, codes in the Keras kernel layout. Scales include a folded
        BatchNormalization. A negative gamma negates its channel's codes; a gamma of zero sets them
        to zero.

    Raises:
        ValueError: as for `freeze`.
    """
    return {
        name: CodedTensor(kernel.codes, kernel.scale, 0, kernel.bits)
        for name, kernel in freeze(model).trained_kernels().items()
    }
