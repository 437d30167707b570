"""`train_blocks`: steps and weights trained block by block to follow the float model, no labels."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.problems import raise_problems
from tfbinreg.core.target import NOT_FINALIZED
from tfbinreg.layers.sites import activation_sites, kernel_sites, require_quantized
from tfbinreg.planning.plan import Plan
from tfbinreg.training.calibrate import sample_batches
from tfbinreg.training.quantize import plan

keras = _compat.keras
_CHECKS = 10  # of the loss, while a block is trained


@dataclasses.dataclass(frozen=True)
class BlockLoss:
    """What the training of a block did.

    Attributes:
        kernels: names of its layers with kernels.
        before: mean squared error of the block's outputs relative to the float model's.
        after: the same afterwards, never larger.
    """

    kernels: tuple[str, ...]
    before: float
    after: float

    def __str__(self) -> str:
        return f"{self.kernels[0]} to {self.kernels[-1]}: {self.before:.4g} -> {self.after:.4g}"


@dataclasses.dataclass(frozen=True, eq=False)
class _Block:
    """Part of a model: from the inputs of both models to its end, with its own variables."""

    kernels: tuple[str, ...]
    quantized: Any
    float_model: Any
    variables: list[tf.Variable]


def train_blocks(
    model: Any,
    float_model: Any,
    data: Any,
    *,
    steps: int = 500,
    learning_rate: float = 1e-5,
    block_size: int = 4,
    verbose: int = 1,
) -> tuple[BlockLoss, ...]:
    """Train weights and steps block by block to reproduce the float model's outputs.

    A cheap option between calibration and training: it needs a few hundred samples, no labels and
    no task loss. A block is `block_size` consecutive kernels with the layers between them. Its
    inputs are the outputs of the blocks before it, quantized and trained; its targets are the float
    model's outputs, by mean squared error. Everything runs as in inference, so normalizations keep
    their statistics. Adam starts again in each block, and the weights with the least error on all
    of the data are kept. The defaults are those of Espressif's ESP-PPQ for TQT.

    Args:
        model: from `quantize_apply`, calibrated. It is changed in place.
        float_model: the model it was made from, with its trained weights.
        data: typical inputs, of which 512 samples are used, in the form of the `calibration_data`
            of `quantize_apply`.
        steps: optimizer steps in each block, on a batch of 64 samples.
        learning_rate: learning rate of Adam.
        block_size: kernels in a block.
        verbose: 1 prints a line for each block, 0 nothing.

    Returns:
        The blocks' errors before and after.

    Raises:
        ValueError: if the model has no learned steps or is not calibrated, if the float model has
            different layers, or if an argument is not positive.
    """
    for what, value in {"steps": steps, "block_size": block_size}.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{what} must be a positive integer, got {value!r}.")
    if not 0.0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate must be positive, got {learning_rate!r}.")
    require_quantized(model)
    if not model.step_variables:
        raise ValueError(
            f"Model {model.name!r} has no learned steps: its method, {model.recipe.method}, takes "
            "them from the numbers."
        )
    for site in activation_sites(model):
        site.grid()  # raises if it was never started
    decided = _same_layers(model, float_model)
    batches = [_flat(batch, model.inputs) for batch in sample_batches(data, model.inputs)]
    model.finalized.assign(NOT_FINALIZED)
    losses = []
    for block in _blocks(model, decided, block_size):
        losses.append(_train(block, batches, steps, learning_rate))
        if verbose:
            print(losses[-1])
    return tuple(losses)


def _flat(batch: Any, inputs: Sequence[Any]) -> list[tf.Tensor]:
    parts = [batch[t.name] for t in inputs] if isinstance(batch, dict) else tf.nest.flatten(batch)
    return [tf.convert_to_tensor(part) for part in parts]


def _same_layers(model: Any, float_model: Any) -> Plan:
    """The plan of the float model, which must be that of the quantized one."""
    decided = plan(float_model, model.recipe)
    raise_problems(decided.problems, f"follow model {float_model.name!r}")
    wanted = {site.name: site.shape for site in kernel_sites(model)}
    nodes = (decided.graph.nodes[index] for index in sorted(decided.kernels))
    found = {node.name: tuple(node.layer.weights[0].shape) for node in nodes}
    if wanted != found:
        differing = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
        raise ValueError(
            f"Model {float_model.name!r} is not the one that {model.name!r} was made from: their "
            f"kernels differ in {', '.join(differing)}."
        )
    return decided


def _blocks(model: Any, decided: Plan, block_size: int) -> Iterator[_Block]:
    """The blocks in order; together they have all variables."""
    graph, seen = decided.graph, set[str]()
    float_inputs = [graph.nodes[index].layer.output for index in graph.inputs]
    kernels: list[str] = []
    ends = _ends(model, decided)
    first = [index for index in sorted(decided.kernels) if graph.first_call(index) == index]
    names = [graph.nodes[index].name for index in first]
    for name in names:
        kernels.append(name)
        last = name == names[-1]
        if not last and (len(kernels) < block_size or name not in ends):
            continue
        outputs = (
            (model.outputs, [graph.nodes[index].layer.output for index in graph.outputs])
            if last
            else ends[name]
        )
        quantized = keras.Model(model.inputs, outputs[0])
        own = [layer for layer in quantized.layers if layer.name not in seen]
        seen.update(layer.name for layer in own)
        variables = [variable for layer in own for variable in layer.trainable_variables]
        yield _Block(tuple(kernels), quantized, keras.Model(float_inputs, outputs[1]), variables)
        kernels = []


def _ends(model: Any, decided: Plan) -> dict[str, tuple[Any, Any]]:
    """Kernels that are followed by their own grid, where both models have the same tensor."""
    ends, layers = {}, {layer.name: layer for layer in model.layers}
    for tail, chain in decided.chains.items():
        grid, name = decided.grids.get(tail), decided.graph.nodes[tail].name
        layer = layers.get(f"{name}_grid")
        if (
            grid is None
            or grid.nodes != (tail,)
            or layer is None
            or chain[0] not in decided.kernels
            or any(map(decided.graph.repeated, chain))
        ):
            continue
        if len(layer.inbound_nodes) == 1:
            float_layer = decided.graph.nodes[tail].layer
            ends[decided.graph.nodes[chain[0]].name] = (layer.output, float_layer.output)
    return ends


def _train(
    block: _Block, batches: Sequence[list[tf.Tensor]], steps: int, learning_rate: float
) -> BlockLoss:
    targets = [tf.nest.flatten(block.float_model(batch, training=False)) for batch in batches]
    pairs = list(zip(batches, targets, strict=True))
    optimizer = keras.optimizers.Adam(learning_rate)
    optimizer.build(block.variables)

    def loss(inputs: Any, wanted: Any) -> tf.Tensor:
        outputs = tf.nest.flatten(block.quantized(inputs, training=False))
        errors = [
            tf.reduce_mean(tf.square(tf.cast(ours, tf.float32) - tf.cast(theirs, tf.float32)))
            for ours, theirs in zip(outputs, wanted, strict=True)
        ]
        return tf.add_n(errors)

    measured: Callable[..., tf.Tensor] = tf.function(loss)

    @tf.function
    def step(inputs: Any, wanted: Any) -> None:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(block.variables)
            value = loss(inputs, wanted)
        gradients = tape.gradient(value, block.variables)
        pairs = zip(gradients, block.variables, strict=True)
        optimizer.apply_gradients([(g, v) for g, v in pairs if g is not None])

    def error() -> float:
        sizes = [len(inputs[0]) for inputs, _ in pairs]
        return float(np.average([float(measured(*pair)) for pair in pairs], weights=sizes))

    before = best = error()
    kept = [variable.numpy() for variable in block.variables]
    every = max(1, steps // _CHECKS)
    for count, pair in zip(range(1, steps + 1), itertools.cycle(pairs), strict=False):
        step(*pair)
        if count % every == 0 or count == steps:
            now = error()
            if now < best:
                best, kept = now, [variable.numpy() for variable in block.variables]
    for variable, value in zip(block.variables, kept, strict=True):
        variable.assign(value)
    return BlockLoss(block.kernels, before, best)
