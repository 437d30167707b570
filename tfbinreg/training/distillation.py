"""`distill`: a quantized model learns from a teacher's outputs in addition to its targets."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import tensorflow as tf
from tensorflow import nest

from tfbinreg import _compat
from tfbinreg.network.edges import nested_inputs
from tfbinreg.training import soft_targets
from tfbinreg.training.model import QuantizedModel
from tfbinreg.training.model_checks import is_keras3
from tfbinreg.training.soft_targets import CATEGORICAL, LOSSES, SQUARED

keras = _compat.keras

AUTO = "auto"
# (teacher's outputs, student's outputs), float32 -> loss of each sample, or of each part of it.
Function: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Loss: TypeAlias = str | Function | None


def distill(
    model: QuantizedModel,
    teacher: Any = None,
    *,
    weight: float = 1.0,
    task_weight: float = 1.0,
    temperature: float = 4.0,
    loss: Loss | Mapping[str, Loss] = AUTO,
) -> None:
    """Let `fit` train a quantized model with a teacher (knowledge distillation).

    The minimized loss, logged as `loss`, becomes

        task_weight * (loss of `compile`) + weight * (distillation loss) + penalties

    and the mean `distillation_loss`, without its weight, is logged. Evaluation and files do not
    change. The teacher runs in inference mode, in its own dtypes, on the model's inputs. It gets no
    gradient and is not saved. Call `distill` before or after `compile`; another call replaces the
    teacher. Layers that vary the inputs in training (augmentation, noise) do so for the student
    only.

    "auto" chooses by the layer that an output comes from. After a softmax or a sigmoid it compares
    softened probabilities: T^2 KL(teacher || student), over the classes (`categorical`) or for each
    label (`binary`; Hinton, Vinyals and Dean, arXiv 1503.02531). Other outputs are treated as
    logits and compared in the same way if the model is compiled with a crossentropy with
    `from_logits=True`. With a stock loss for numbers, such as "mse", the mean squared error is
    used. Cases that these rules do not decide, such as a loss of your own after a linear layer,
    raise an error. Outputs that have no loss in `compile` are left out, unless no output has one.

    Args:
        model: the student, from `quantize_apply` or `load_model`.
        teacher: a model of tf_keras, or of Keras 3 on TensorFlow, with the same inputs and outputs;
            None for the float model that was passed to `quantize_apply`, in its state at that time;
            False to train without a teacher again.
        weight: factor of the distillation loss.
        task_weight: factor of the loss of `compile`; 0 learns from the teacher alone, which also
            works for inputs without targets.
        temperature: T, which divides the logits.
        loss: "auto", "categorical", "binary", "mse", or a function of the teacher's and the
            student's outputs that returns a loss for each sample. A dict assigns a loss to each
            output by name; outputs that it omits or maps to None are not compared. The losses of
            several outputs are added with the `loss_weights` of `compile`. Sample weights apply to
            all of them.

    Raises:
        TypeError: if the teacher is not a Keras model.
        ValueError: if `model` is not a `QuantizedModel`, there is no float model, an argument is
            out of range, the teacher's inputs or outputs have different shapes, or "auto" cannot
            choose. If the model is not compiled yet, this last error is raised when `fit` begins.
    """
    if not isinstance(model, QuantizedModel):
        raise ValueError("distill needs a model from tfbinreg.quantize_apply.")
    distillation = None
    if teacher is not False:
        with model.distribute_strategy.scope():
            mean = keras.metrics.Mean("distillation_loss")
        given = _teacher(model, teacher)
        distillation = Distillation(
            teacher=given,
            weight=weight,
            task_weight=task_weight,
            temperature=temperature,
            loss=loss,
            mean=mean,
            origins=_origins(model, given),
        )
        distillation.check(model)
    model.distillation = distillation
    model.train_function = None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Distillation:
    """A teacher, and how a student learns from it: the arguments of `distill`.

    Attributes:
        mean: of the distillation loss over the batches of an epoch.
        origins: what each output of the teacher, and of the student, comes from.
    """

    teacher: Any
    weight: float
    task_weight: float
    temperature: float
    loss: Loss | Mapping[str, Loss]
    mean: Any
    origins: Sequence[tuple[str, str]]

    def __post_init__(self) -> None:
        for name in ("weight", "task_weight"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number from 0 on, got {getattr(self, name)!r}.")
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive, got {self.temperature!r}.")

    def arguments(self) -> dict[str, Any]:
        """What `distill` was called with, for another student."""
        names = ("teacher", "weight", "task_weight", "temperature", "loss")
        return {name: getattr(self, name) for name in names}

    def check(self, student: QuantizedModel) -> None:
        """Raise ValueError unless the teacher and the losses fit a model, as far as is known."""
        given = self.loss.values() if isinstance(self.loss, Mapping) else [self.loss]
        for own in given:
            if own not in (None, AUTO, *LOSSES) and not callable(own):
                names = ", ".join(map(repr, (AUTO, *LOSSES)))
                raise ValueError(f"loss must be {names} or a function, got {own!r}.")
        if isinstance(self.loss, Mapping):
            unknown = [name for name in self.loss if name not in student.output_names]
            if unknown:
                raise ValueError(
                    f"loss names outputs {', '.join(map(repr, unknown))}, the model has "
                    f"{', '.join(map(repr, student.output_names))}."
                )
        if getattr(self.teacher, "inputs", None):
            own = self.teacher.inputs
            _check_shapes("inputs", own, _in_order(student.inputs, student, own))
            _check_shapes("outputs", self.teacher.outputs, student.outputs)
        if getattr(student, "compiled_loss", None) is not None:
            self._functions(student)

    def train_step(self, student: QuantizedModel, data: Any) -> dict[str, tf.Tensor]:
        """Keras' train step with the distillation loss; returns the logs."""
        inputs, targets, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        taught = self._teach(student, inputs)
        with tf.GradientTape() as tape:
            outputs = student(inputs, training=True)
            distilled = self._loss(student, taught, outputs, sample_weight)
            weights = self._task_weights(student, outputs, sample_weight)
            # Keras divides these losses by the number of replicas, like those of targets.
            others = [*student.losses, self.weight * distilled]
            total = student.compiled_loss(targets, outputs, weights, regularization_losses=others)
        if self.task_weight:
            student._validate_target_and_loss(targets, total)
        student.optimizer.minimize(total, student.trainable_variables, tape=tape)
        self.mean.update_state(distilled, sample_weight=tf.shape(nest.flatten(outputs)[0])[0])
        logs = student.compute_metrics(inputs, targets, outputs, sample_weight)
        return {**logs, "distillation_loss": self.mean.result()}

    def _teach(self, student: QuantizedModel, inputs: Any) -> list[tf.Tensor]:
        """The teacher's outputs, flat and in float32."""
        own = getattr(self.teacher, "inputs", None)
        if own:
            flat = _in_order(_compat.graph_inputs(student, inputs), student, own)
            inputs = nest.pack_sequence_as(nested_inputs(self.teacher), flat)
        outputs = nest.flatten(self.teacher(inputs, training=False))
        _check_shapes("outputs", outputs, student.outputs)
        return [tf.cast(output, tf.float32) for output in outputs]

    def _loss(
        self, student: QuantizedModel, taught: Sequence[Any], outputs: Any, sample_weight: Any
    ) -> tf.Tensor:
        """The sum over the outputs, each a mean over the batch of this replica; float32, ()."""
        weights = _compat.per_output(student, outputs, sample_weight)
        factors = _compat.loss_weights(student)
        losses = []
        for index, function in enumerate(self._functions(student)):
            if function is not None:
                per_sample = _PerSample(function)
                own = tf.cast(nest.flatten(outputs)[index], tf.float32)
                values = per_sample(taught[index], own, sample_weight=weights[index])
                losses.append(tf.reduce_mean(tf.cast(values, tf.float32)) * factors[index])
        return tf.add_n(losses)

    def _task_weights(self, student: QuantizedModel, outputs: Any, sample_weight: Any) -> Any:
        """Sample weights that multiply the losses of targets by `task_weight`."""
        if self.task_weight == 1.0:
            return sample_weight
        factor = tf.constant(self.task_weight)
        weights = [
            factor if own is None else factor * tf.cast(own, tf.float32)
            for own in _compat.per_output(student, outputs, sample_weight)
        ]
        return nest.pack_sequence_as(outputs, weights)

    def _functions(self, student: QuantizedModel) -> list[Function | None]:
        """What compares each output, None where nothing does."""
        compiled = _compat.output_losses(student)
        functions = [
            self._function(name, origins, own, has_task=any(compiled))
            for name, origins, own in zip(student.output_names, self.origins, compiled, strict=True)
        ]
        if not any(functions):
            raise ValueError("distill(loss=...) compares no output.")
        return functions

    def _function(
        self, name: str, origins: tuple[str, str], compiled: Any, *, has_task: bool
    ) -> Function | None:
        """What compares one output.

        Args:
            name: of the output.
            origins: what it comes from, of the teacher and of the student.
            compiled: the loss it is compiled with, None for none.
            has_task: whether any output is compiled with one.
        """
        loss = self.loss.get(name) if isinstance(self.loss, Mapping) else self.loss
        if self.loss == AUTO and has_task and compiled is None:
            return None
        if loss == AUTO:
            loss = soft_targets.loss_of_output(origins[1], compiled)
            if loss is None:
                raise ValueError(
                    f"Whether output {name!r} holds logits or other numbers cannot be told from "
                    "its layer and the loss of compile: say distill(loss=...), one of "
                    f"{', '.join(map(repr, LOSSES))} or a function."
                )
        if isinstance(loss, str):
            return self._named(loss, origins)
        return loss.call if isinstance(loss, keras.losses.Loss) else loss

    def _named(self, loss: str, origins: tuple[str, str]) -> Function:
        if loss == SQUARED:
            return soft_targets.squared
        compare = soft_targets.categorical if loss == CATEGORICAL else soft_targets.binary

        def function(taught: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
            both = zip((taught, outputs), origins, strict=True)
            first, second = (soft_targets.logits(own, origin, loss) for own, origin in both)
            return compare(first, second, self.temperature)

        return function


class _PerSample(keras.losses.Loss):
    """A function's values, times sample weights as Keras applies them."""

    def __init__(self, function: Function) -> None:
        super().__init__(reduction="none")
        self._function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._function(y_true, y_pred)


def _teacher(model: QuantizedModel, given: Any) -> Any:
    """The model that the argument of `distill` refers to."""
    if given is None:
        if model.float_model is None:
            raise ValueError(
                f"Model {model.name!r} has no float model to learn from, since it was loaded or "
                "made by tfmot: give distill a teacher."
            )
        return model.float_model()
    if given is model:
        raise ValueError(f"Model {model.name!r} cannot be its own teacher.")
    if isinstance(given, keras.Model):
        return given
    if not is_keras3(given):
        kind = f"{type(given).__module__}.{type(given).__name__}"
        raise TypeError(f"The teacher must be a Keras model, got {kind}.")
    backend = sys.modules["keras"].backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            f"A teacher of Keras 3 has to run on TensorFlow, not on {backend}: set KERAS_BACKEND, "
            "or leave it out if it is the model that was quantized."
        )
    return given


def _origins(student: QuantizedModel, teacher: Any) -> list[tuple[str, str]]:
    """The output origins of both models; a teacher that cannot be read gets the student's."""
    own = soft_targets.origins(student) or []
    return list(zip(soft_targets.origins(teacher) or own, own, strict=False))


def _check_shapes(what: str, found: Sequence[Any], wanted: Sequence[Any]) -> None:
    """Raise ValueError unless tensors have these shapes, except for the batch and open sizes."""
    shapes, own = ([tuple(tensor.shape[1:]) for tensor in part] for part in (found, wanted))
    fits = len(shapes) == len(own) and all(map(_fits, shapes, own))
    if not fits:
        theirs, ours = (", ".join(map(str, part)) for part in (shapes, own))
        raise ValueError(f"The teacher has {what} of shape {theirs}, the model {what} of {ours}.")


def _fits(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    sizes = zip(one, other, strict=False)
    return len(one) == len(other) and all(a == b or None in (a, b) for a, b in sizes)


def _in_order(parts: Sequence[Any], student: QuantizedModel, inputs: Sequence[Any]) -> list[Any]:
    """One part per student input, in the order of the teacher's `inputs` if both have the same
    names; otherwise unchanged.
    """
    by_name = dict(zip(_names(student.inputs), parts, strict=True))
    names = _names(inputs)
    return [by_name[name] for name in names] if set(names) == set(by_name) else list(parts)


def _names(inputs: Sequence[Any]) -> list[str]:
    """The input names of a model of either Keras."""
    return [tensor._keras_history[0].name for tensor in inputs]
