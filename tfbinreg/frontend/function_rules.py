"""How functions of one value (`tf.nn.gelu(x)`, `tf.where(x > 0, x, y)`) are written: as one table.

A table takes in what is computed before and behind it from the same tensor alone, so that mish, in
whatever operations it is written, is one function and not three layers with a grid each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfbinreg.frontend.builder import (
    Builder,
    PendingAffine,
    PendingFunction,
    PendingReLU,
    UnsupportedError,
    Value,
)
from tfbinreg.frontend.program import Step
from tfbinreg.network.value_functions import FUNCTIONS, VALUE

# Names of operands, in order, where they are not given by their places; then those of options.
_OPERANDS = ("condition", "x", "x1", "y", "x2")
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "celu": ("alpha",),
    "clip": ("minimum", "maximum"),
    "elu": ("alpha",),
    "hard_shrink": ("limit",),
    "leaky_relu": ("negative_slope",),
    "soft_shrink": ("limit",),
    "squareplus": ("b",),
    "threshold": ("limit", "other"),
}
# What layers compute, unless they are part of a table.
_IN_LAYERS = frozenset(
    (
        *("add", "clip", "divide", "hard_sigmoid", "hard_swish", "identity", "leaky_relu"),
        *("multiply", "negative", "relu", "relu6", "sigmoid", "silu", "subtract", "tanh"),
    )
)


def operands(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The operands of a function in order, and behind them its options."""
    named = [kwargs[key] for key in (*_OPERANDS, *_OPTIONS.get(name, ())) if key in kwargs]
    return [*args, *named]


def _are_numbers(given: Sequence[Any]) -> bool:
    """Whether what is not a tensor is one number."""
    return all(isinstance(own, Value) or np.size(own) == 1 for own in given)


def extended(
    build: Builder, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Value | None:
    """The result of an operation that layers compute as part of the table before it; None if there
    is none, or it takes something else as well."""
    given = operands(name, args, kwargs)
    if name not in _IN_LAYERS or not _are_numbers(given):
        return None
    values = [own for own in given if isinstance(own, Value)]
    behind = (_has_table(own) and build.function_of(own)[1] != VALUE for own in values)
    return build.function(name, given) if any(behind) else None


def _has_table(value: Value) -> bool:
    while isinstance(value, (PendingAffine, PendingReLU)):
        value = value.source
    return isinstance(value, PendingFunction)


def tabled(build: Builder, name: str, *given: Any) -> Value:
    """A function of values and numbers, as a table.

    Raises:
        UnsupportedError: if it takes the numbers of several tensors.
    """
    if not _are_numbers(given):
        shapes = [np.shape(own) for own in given if not isinstance(own, Value)]
        what = f"{name} with a constant of shape {max(shapes, key=len)}"
        raise UnsupportedError((what, "use one number for all channels"))
    made = build.function(name, given)
    if made is None:
        what = f"{name} of several tensors"
        raise UnsupportedError((what, "only what is computed from one tensor fits a table"))
    return made


def _rule(name: str) -> Callable[..., Value]:
    def rewrite(build: Builder, step: Step, *args: Any, **kwargs: Any) -> Value:
        return tabled(build, name, *operands(name, args, kwargs))

    return rewrite


def divide(build: Builder, x: Any, y: Value) -> Value:
    """x / y as a table, where y is no constant.

    Raises:
        UnsupportedError: if x is another tensor.
    """
    plain = isinstance(x, Value) and build.function_of(x) == build.function_of(y)
    made = None if plain or not _are_numbers([x]) else build.function("divide", [x, y])
    if made is None:
        raise UnsupportedError(("division by a tensor", "divide by a constant"))
    return made


def _gelu(build: Builder, step: Step, x: Value, approximate: Any = False) -> Value:
    return tabled(build, "gelu_tanh" if approximate else "gelu", x)


def _cast(build: Builder, step: Step, x: Value, *_: Any, **__: Any) -> Value:
    """Truth values are 0 and 1 already."""
    return x


OPERATIONS: Mapping[str, Callable[..., Value]] = {
    **{name: _rule(name) for name in FUNCTIONS if name not in _IN_LAYERS},
    "cast": _cast,
    "gelu": _gelu,
}
