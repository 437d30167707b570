"""Losses between the outputs of a teacher and a student, and which of them suits an output."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow import nest

from tfbinreg import _compat
from tfbinreg.frontend.program import Program, refs
from tfbinreg.frontend.read import read

keras = _compat.keras

SOFTMAX, SIGMOID, OTHER = "softmax", "sigmoid", "other"  # what outputs come from
CATEGORICAL, BINARY, SQUARED = "categorical", "binary", "mse"  # losses by name
LOSSES = (CATEGORICAL, BINARY, SQUARED)

_LEAST = 1e-7  # of a probability, before its logarithm
_LOSS_OF = {
    "categorical_crossentropy": CATEGORICAL,
    "sparse_categorical_crossentropy": CATEGORICAL,
    "categorical_focal_crossentropy": CATEGORICAL,
    "binary_crossentropy": BINARY,
    "binary_focal_crossentropy": BINARY,
    "mean_squared_error": SQUARED,
    "mean_absolute_error": SQUARED,
    "mean_absolute_percentage_error": SQUARED,
    "mean_squared_logarithmic_error": SQUARED,
    "huber": SQUARED,
    "log_cosh": SQUARED,
    "cosine_similarity": SQUARED,
}
# Steps that hand on the numbers they are given, in inference.
_PASSING = ("Activation", "Dropout", "Flatten", "QuantizeActivation", "Reshape", "reshape")


def categorical(taught: Any, outputs: Any, temperature: float) -> tf.Tensor:
    """T^2 KL(p || q) of softened classes (Hinton, Vinyals and Dean, 2015, section 2).

        p = softmax(z_teacher / T), q = softmax(z / T), gradient dL/dz = T (q - p)

    Args:
        taught: the teacher's logits or logarithms of probabilities, float32, (batch, ..., classes).
        outputs: the student's, likewise.
        temperature: T, positive.

    Returns:
        float32, (batch, ...).
    """
    log_p = tf.nn.log_softmax(taught / temperature)
    log_q = tf.nn.log_softmax(outputs / temperature)
    return temperature**2 * tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)


def binary(taught: Any, outputs: Any, temperature: float) -> tf.Tensor:
    """The same for labels that do not exclude each other, averaged over the last axis.

        p = sigmoid(z_teacher / T), q = sigmoid(z / T), gradient dL/dz = T (q - p) / labels

    Args:
        taught: the teacher's logits, float32, (batch, ..., labels).
        outputs: the student's, likewise.
        temperature: T, positive.

    Returns:
        float32, (batch, ...).
    """
    p = tf.sigmoid(taught / temperature)
    cross = tf.nn.sigmoid_cross_entropy_with_logits(p, outputs / temperature)
    own = tf.nn.sigmoid_cross_entropy_with_logits(p, taught / temperature)
    return temperature**2 * tf.reduce_mean(cross - own, axis=-1)


def squared(taught: Any, outputs: Any) -> tf.Tensor:
    """The mean squared difference over the last axis; shapes as of `binary`."""
    return tf.reduce_mean(tf.math.squared_difference(taught, outputs), axis=-1)


def logits(outputs: Any, origin: str, loss: str) -> tf.Tensor:
    """Outputs as float32 logits for `categorical` or `binary`.

    Args:
        outputs: what a model returns.
        origin: what the outputs come from: probabilities from SOFTMAX or SIGMOID, logits from
            OTHER.
        loss: CATEGORICAL, for which the logarithm of a probability suffices, or BINARY.
    """
    outputs = tf.cast(outputs, tf.float32)
    if origin == OTHER:
        return outputs
    if loss == CATEGORICAL:
        return tf.math.log(tf.maximum(outputs, _LEAST))
    outputs = tf.clip_by_value(outputs, _LEAST, 1.0 - _LEAST)
    return tf.math.log(outputs) - tf.math.log1p(-outputs)


def origins(model: Any) -> list[str] | None:
    """What each output of a model of either Keras comes from: SOFTMAX, SIGMOID or OTHER.

    None if the model has no readable layer graph.
    """
    if not hasattr(getattr(model, "_functional", None) or model, "_nodes_by_depth"):
        return None
    program = read(model)
    return [_origin(program, index) for index in nest.flatten(program.nested_outputs)]


def _origin(program: Program, index: int) -> str:
    step = program.steps[index]
    while step.kind in _PASSING and step.activation == "linear":
        step = program.steps[refs((step.args, step.kwargs))[0].index]
    found = step.kind.lower() if step.activation == "linear" else step.activation
    return found if found in (SOFTMAX, SIGMOID) else OTHER


def loss_of_output(origin: str, compiled: Any) -> str | None:
    """The name of the loss that suits an output; None if that cannot be determined.

    A softmax needs CATEGORICAL and a sigmoid BINARY. Other outputs are logits if the model is
    compiled with a crossentropy with `from_logits=True`, and numbers if it is compiled with a stock
    loss for numbers.

    Args:
        origin: what the output comes from.
        compiled: the loss that the output is compiled with, a `keras.losses.Loss`; None for none.
    """
    if origin != OTHER:
        return CATEGORICAL if origin == SOFTMAX else BINARY
    function: Any = getattr(compiled, "fn", None)
    if not (getattr(function, "__module__", None) or "").startswith("tf_keras."):
        return None
    found = _LOSS_OF.get(function.__name__)
    return found if found == SQUARED or compiled.get_config().get("from_logits") else None
