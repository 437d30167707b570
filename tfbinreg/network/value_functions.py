"""Functions of one value, as expressions: what a table of 256 entries can hold exactly.

An expression is "x", a number, or a list of a function's name and its operands, which are
expressions: ["multiply", "x", ["tanh", ["softplus", "x"]]] is mish.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

import numpy as np
import tensorflow as tf

Expression: TypeAlias = "str | float | list[Any]"
VALUE = "x"


def _clip(x: Any, low: Any, high: Any) -> Any:
    return tf.minimum(tf.maximum(x, low), high)


def _celu(x: Any, alpha: Any) -> Any:
    return tf.maximum(x, 0.0) + alpha * tf.math.expm1(tf.minimum(x, 0.0) / alpha)


def _elu(x: Any, alpha: Any = 1.0) -> Any:
    return tf.where(x > 0.0, x, alpha * tf.math.expm1(tf.minimum(x, 0.0)))


def _where(condition: Any, x: Any, y: Any) -> Any:
    return tf.where(tf.cast(condition, tf.bool), x, y)


def _comparison(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda x, y: tf.cast(compare(x, y), x.dtype)


# By the names that `operation_rules` knows.
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": tf.abs,
    "add": tf.add,
    "celu": _celu,
    "clip": _clip,
    "cos": tf.cos,
    "divide": tf.divide,
    "elu": _elu,
    "erf": tf.math.erf,
    "exp": tf.exp,
    "expm1": tf.math.expm1,
    "floor": tf.floor,
    "gelu": lambda x: 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5))),
    "gelu_tanh": lambda x: (
        0.5 * x * (1.0 + tf.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))
    ),
    "greater": _comparison(tf.greater),
    "greater_equal": _comparison(tf.greater_equal),
    "hard_shrink": lambda x, limit=0.5: tf.where(tf.abs(x) > limit, x, tf.zeros_like(x)),
    "hard_sigmoid": lambda x: tf.nn.relu6(x + 3.0) / 6.0,
    "hard_tanh": lambda x: _clip(x, -1.0, 1.0),
    "hard_swish": lambda x: x * tf.nn.relu6(x + 3.0) / 6.0,
    "identity": tf.identity,
    "leaky_relu": lambda x, slope=0.2: tf.where(x > 0.0, x, slope * x),
    "less": _comparison(tf.less),
    "less_equal": _comparison(tf.less_equal),
    "log": tf.math.log,
    "log1p": tf.math.log1p,
    "log_sigmoid": tf.math.log_sigmoid,
    "maximum": tf.maximum,
    "minimum": tf.minimum,
    "mish": lambda x: x * tf.tanh(tf.math.softplus(x)),
    "multiply": tf.multiply,
    "negative": tf.negative,
    "power": tf.pow,
    "reciprocal": tf.math.reciprocal,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "round": tf.round,
    "rsqrt": tf.math.rsqrt,
    "selu": tf.nn.selu,
    "sigmoid": tf.sigmoid,
    "sign": tf.sign,
    "silu": lambda x: x * tf.sigmoid(x),
    "sin": tf.sin,
    "soft_shrink": lambda x, limit=0.5: tf.sign(x) * tf.nn.relu(tf.abs(x) - limit),
    "softplus": tf.math.softplus,
    "softsign": tf.nn.softsign,
    "sqrt": tf.sqrt,
    "square": tf.square,
    "squareplus": lambda x, b=4.0: (x + tf.sqrt(tf.square(x) + b)) / 2.0,
    "subtract": tf.subtract,
    "tanh": tf.tanh,
    "tanh_shrink": lambda x: x - tf.tanh(x),
    "threshold": lambda x, limit, other: tf.where(x > limit, x, other * tf.ones_like(x)),
    "where": _where,
}


def evaluate(expression: Expression, values: Any) -> Any:
    """What an expression makes of a float tensor, in its shape and type.

    Args:
        expression: of `FUNCTIONS`.
        values: any float tensor.

    Returns:
        A tensor of the same shape and type.
    """
    if expression == VALUE:
        return values
    if isinstance(expression, (int, float)):
        return tf.constant(expression, values.dtype)
    name, *operands = cast(tuple[Any, ...], expression)
    return FUNCTIONS[name](*(evaluate(own, values) for own in operands))


def table(expression: Expression, source: Any, target: Any) -> np.ndarray:
    """The stored outputs of an expression for the stored inputs -128 to 127.

    Args:
        expression: of `FUNCTIONS`.
        source: grid of the inputs.
        target: grid of the outputs; halves are rounded to even.

    Returns:
        int8, (256,).

    Raises:
        ValueError: naming the first value of the inputs' grid of which it makes no number.
    """
    values = (np.arange(-128, 128) - source.zero_point) * np.float64(source.scale)
    results = np.asarray(evaluate(expression, tf.constant(values, tf.float64)))
    results = np.broadcast_to(results, values.shape)
    if np.any(np.isnan(results)):
        first = values[np.argmax(np.isnan(results))]
        raise ValueError(f"its function makes no number of {first:.3g}, which its inputs can be")
    with np.errstate(over="ignore"):
        stored = np.rint(results / np.float64(target.scale)) + target.zero_point
    return np.clip(stored, -128, 127).astype(np.int8)
