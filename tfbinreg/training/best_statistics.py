"""Which batch-normalization statistics a finalized model keeps: those of training, or new ones.

At low bits, re-estimated statistics are usually better, but not always: where many values of a
channel lie on a rounding threshold, the smallest change of its mean moves all of them by a level.
So both are tried on the given training data.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.layers.kernel import QuantizeActivation
from tfbinreg.layers.sites import activation_sites
from tfbinreg.network.graph import evaluate, trace
from tfbinreg.training.batch_norm import Reestimation
from tfbinreg.training.batch_statistics import BatchStatistics, inference
from tfbinreg.training.calibrate import input_batches, labelled_batches
from tfbinreg.training.finalize_report import Score, StatisticsChoice, ThresholdChannel
from tfbinreg.training.traced_function import TracedFunction
from tflite_tools.system.progress import Advance, counted, quietly

keras = _compat.keras

IntegerModel = Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]

_FEW_BITS = 4  # of more bits, a level is next to nothing
_NEAR_THRESHOLD = 0.01  # levels; evenly spread values are as near as that in 2 of 100 cases
_MANY = 0.1  # share of a channel's values


def choose_statistics(
    model: Any,
    data: Any,
    batches: int,
    integer_model: Callable[[], IntegerModel],
    *,
    advance: Advance = quietly,
) -> StatisticsChoice | None:
    """Re-estimate batch normalization, and keep the better of the new and the old statistics.

    With labels, the better ones have the higher accuracy or, at equal accuracy, the smaller loss.
    Without labels, the better ones give outputs closer to those with the statistics of each batch.

    Args:
        model: a trained model from `quantize_apply`; its moving statistics may change.
        data: as for `finalize`.
        batches: how many batches to use.
        integer_model: makes the integer model of `model` in its current state.
        advance: is called with what is being done.

    Returns:
        What was found; None if the model has no statistics of its own.

    Raises:
        ValueError: as `reestimate_batch_norm`, or if the labels cannot be used.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if not norms:
        return None
    moving = [variable for norm in norms for variable in (norm.moving_mean, norm.moving_variance)]
    before = [variable.numpy() for variable in moving]
    trained = _or_none(integer_model)
    Reestimation(model).run(data, batches, advance=advance)
    candidates = [integer_model()] if trained is None else [integer_model(), trained]
    found = itertools.islice(labelled_batches(data), batches)
    compared = counted(found, advance, "comparing statistics: batch")
    scores = _scores(model, compared, candidates)
    old = scores[1] if trained is not None else None
    kept = "as trained" if old is not None and old.is_better_than(scores[0]) else "re-estimated"
    if kept == "as trained":
        for variable, value in zip(moving, before, strict=True):
            variable.assign(value)
    return StatisticsChoice(kept=kept, reestimated=scores[0], trained=old)


def _or_none(integer_model: Callable[[], IntegerModel]) -> IntegerModel | None:
    """The integer model with the statistics of training; None if there is none."""
    try:
        return integer_model()
    except ValueError:
        return None


def rewindable(data: Any, batches: int) -> Any:
    """Data that can be iterated several times: of an iterator, the batches that are used."""
    return list(itertools.islice(data, batches)) if isinstance(data, Iterator) else data


def _scores(
    model: Any, batches: Iterator[tuple[Any, Any]], candidates: Sequence[IntegerModel]
) -> list[Score]:
    """How each integer model does on the batches."""
    statistics = BatchStatistics(model)

    def all_outputs(inputs: Any) -> list[list[tf.Tensor]]:
        given = _compat.graph_inputs(model, inputs)
        return [statistics(inputs), *(candidate(given) for candidate in candidates)]

    run = TracedFunction(lambda: _compat.PerShape(all_outputs))
    totals = [_Total() for _ in candidates]
    with statistics.momentum(1.0):  # which leaves the moving statistics alone
        for inputs, labels in batches:
            by_batch, *found = run(inputs)
            for total, outputs in zip(totals, found, strict=True):
                total.add(model, outputs, by_batch, labels)
    return [total.score() for total in totals]


class _Total:
    """Sums over batches, for a `Score`."""

    def __init__(self) -> None:
        self.samples = 0
        self.sums: dict[str, float] = {}

    def add(self, model: Any, outputs: list[Any], by_batch: list[Any], labels: Any) -> None:
        if labels is None:
            pairs = zip(outputs, by_batch, strict=True)
            found = {"distance": sum(_distance(*pair) for pair in pairs) / len(outputs)}
        else:
            found = _judged(model, outputs, labels)
        size = len(outputs[0])
        self.samples += size
        for name, value in found.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value) * size

    def score(self) -> Score:
        means = {name: total / self.samples for name, total in self.sums.items()}
        return Score(samples=self.samples, **means)


def _distance(outputs: Any, reference: Any) -> float:
    """Mean squared difference over the variance of the reference."""
    ours, theirs = (np.asarray(part, np.float64) for part in (outputs, reference))
    spread = float(np.var(theirs - theirs.mean(axis=0)))
    return float(np.mean(np.square(ours - theirs))) / (spread or 1.0)


def _judged(model: Any, outputs: list[Any], labels: Any) -> dict[str, float]:
    """Accuracy, if the labels are classes, and loss, if the model is compiled with one."""
    found: dict[str, float] = {}
    flat = [np.asarray(part) for part in tf.nest.flatten(labels)]
    if len(outputs) == 1 == len(flat):
        accuracy = _accuracy(np.asarray(outputs[0]), flat[0])
        found.update({} if accuracy is None else {"accuracy": accuracy})
    if getattr(model, "loss", None) is not None:
        packed = tf.nest.pack_sequence_as(model._nested_outputs, list(outputs))
        targets = tf.nest.map_structure(tf.convert_to_tensor, labels)
        found["loss"] = float(model.compiled_loss(targets, packed))
        model.compiled_loss.reset_state()
    if not found:
        raise ValueError(
            "Nothing can be made of the labels: they are not the classes of the one output, and "
            "the model is not compiled with a loss. Compile it, or give the inputs alone."
        )
    return found


def _accuracy(outputs: np.ndarray, labels: np.ndarray) -> float | None:
    """Share of samples (or pixels) whose largest output is the label's; None if it has none."""
    classes = outputs.shape[-1]
    if outputs.ndim < 2 or classes < 2:
        return None
    if labels.shape == outputs.shape and np.all(labels.sum(axis=-1) == labels.max(axis=-1)):
        labels = labels.argmax(axis=-1)  # one-hot
    elif labels.shape == (*outputs.shape[:-1], 1):
        labels = labels[..., 0]
    if labels.shape != outputs.shape[:-1] or np.any(labels != np.floor(labels)):
        return None
    return float(np.mean(outputs.argmax(axis=-1) == labels))


def channels_on_thresholds(
    model: Any, data: Any, batches: int, *, advance: Advance = quietly
) -> tuple[ThresholdChannel, ...]:
    """The channels of low-bit activations of which many values lie on a rounding threshold.

    The last digits of a bias decide which level such a value takes: a new mean, a different runtime
    or a little noise moves all of them. Usually the cause is a constant background of the images.

    Args:
        model: the model as it is deployed, its biases rounded.
        data: as for `finalize`.
        batches: how many batches to use.
        advance: is called with what is being done.
    """
    graph = trace(model)
    grids = {site.name: site.grid() for site in activation_sites(model)}
    watched = [
        node
        for node in graph.nodes
        if isinstance(node.layer, QuantizeActivation)
        and node.layer.grid_variables
        and node.options.get("member", 0) is not None
        and grids[node.name].bits <= _FEW_BITS
    ]

    if not watched:
        return ()

    def shares(inputs: Any) -> list[tf.Tensor]:
        values = evaluate(graph, _compat.graph_inputs(model, inputs), mode=inference)
        return [_near_threshold(values[node.inputs[0]], grids[node.name]) for node in watched]

    run = TracedFunction(lambda: _compat.PerShape(shares))
    totals, count = [np.zeros(())] * len(watched), 0
    seen = itertools.islice(input_batches(data), batches)
    for inputs in counted(seen, advance, "looking for values on thresholds: batch"):
        totals = [total + np.asarray(own) for total, own in zip(totals, run(inputs), strict=True)]
        count += 1
    return tuple(
        ThresholdChannel(layer=node.name, channel=channel, share=float(share))
        for node, total in zip(watched, totals, strict=True)
        for channel, share in enumerate(np.atleast_1d(total / max(count, 1)))
        if share > _MANY
    )


def _near_threshold(values: tf.Tensor, grid: Any) -> tf.Tensor:
    """Share of the values of each channel that lie on a threshold between two levels."""
    ratio = tf.cast(values, tf.float32) / grid.scale
    distance = tf.abs(ratio - tf.floor(ratio) - 0.5)
    inside = tf.logical_and(ratio > grid.qmin, ratio < grid.qmax)
    near = tf.logical_and(inside, distance < _NEAR_THRESHOLD)
    return tf.reduce_mean(tf.cast(near, tf.float32), axis=range(len(near.shape) - 1))
