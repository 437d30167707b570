"""Stock Keras 3 optimizers, schedules, losses, metrics and callbacks, rebuilt as those of tf_keras.

Keras 3 is never imported here: its objects are known by the modules of their classes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from tfbinreg import _compat
from tfbinreg.core.problems import Problem, raise_problems
from tfbinreg.frontend.program import replaced

keras = _compat.keras

_HOMES = {
    "callbacks": keras.callbacks,
    "losses": keras.losses,
    "metrics": keras.metrics,
    "optimizers": keras.optimizers,
    "schedules": keras.optimizers.schedules,
}
_BASES = {
    "callbacks": "callbacks.Callback",
    "losses": "losses.Loss",
    "metrics": "metrics.Metric",
    "optimizers": "optimizers.Optimizer",
    "schedules": "optimizers.schedules.LearningRateSchedule",
}
# Arguments of callbacks that Keras 3 keeps under another name.
_ATTRIBUTES = {"separator": "sep", "initial_value_threshold": "best"}


class _RefusedError(Exception):
    """What of an object tf_keras does not have; `problem` says it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def to_tf_keras(value: Any, doing: str) -> Any:
    """`value` with each Keras 3 object in its lists, tuples and dicts rebuilt as tf_keras' own.

    An object is made anew from its configuration, so an optimizer starts without state. Everything
    else is left as it is.

    Args:
        value: arguments of `compile`, or callbacks.
        doing: for the error, as in "compile model 'net'".

    Raises:
        ValueError: listing each object, or option of one, that tf_keras does not have.
    """
    problems: list[Problem] = []

    def own(leaf: Any) -> Any:
        try:
            return _rebuilt(leaf)
        except _RefusedError as error:
            problems.append(error.problem)
            return leaf

    result = replaced(value, own)
    raise_problems(problems, doing)
    return result


def takes_keras3_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a Keras model, which then takes Keras 3's callbacks too."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(self, *args, **kwargs)
        callbacks = arguments.arguments.get("callbacks")
        if callbacks is not None:
            doing = f"use these callbacks with model {self.name!r}"
            arguments.arguments["callbacks"] = to_tf_keras(callbacks, doing)
        return method(*arguments.args, **arguments.kwargs)

    return call


def _rebuilt(leaf: Any) -> Any:
    if inspect.isfunction(leaf):
        return _function(leaf) if _is_keras3(leaf) else leaf
    base = next((cls for cls in type(leaf).__mro__ if _is_keras3(cls)), None)
    family = None if base is None else _family(base.__module__)
    if family is None:
        return leaf
    name = type(leaf).__name__
    if base is not type(leaf):
        what = f"{name} is made for Keras 3, and a quantized model is a tf_keras model"
        remedy = f"import tf_keras and derive it from tf_keras.{_BASES[family]}"
        raise _RefusedError(Problem(name, what, remedy))
    if name == "LossScaleOptimizer":
        return _loss_scale(leaf)
    config = _attributes(leaf) if family == "callbacks" else _config(leaf)
    return _made(family, name, config, inspect.signature(base).parameters)


def _is_keras3(value: Any) -> bool:
    return value.__module__.split(".")[0] == "keras"


def _family(module: str) -> str | None:
    """The key of `_HOMES` that a module of Keras 3 belongs to, None for other parts of Keras."""
    return next((part for part in reversed(module.split(".")) if part in _HOMES), None)


def _function(function: Any) -> Any:
    """A loss or metric given as a function."""
    home = _HOMES[_family(function.__module__) or "losses"]
    own = getattr(home, function.__name__, None)
    if own is None:
        raise _RefusedError(_missing(function.__name__))
    return own


def _missing(name: str) -> Problem:
    return Problem(name, "tf_keras does not have it", "use one that tf_keras has (import tf_keras)")


def _config(value: Any) -> dict[str, Any]:
    """The configuration; losses and metrics leave out some of their function's arguments."""
    return {**value.get_config(), **getattr(value, "_fn_kwargs", {})}


def _attributes(callback: Any) -> dict[str, Any]:
    """What a callback was made with."""
    known = vars(callback)
    if "_start_batch" in known:  # of a TensorBoard
        known = {**known, "profile_batch": (known["_start_batch"], known["_stop_batch"])}
    names = {
        name: _ATTRIBUTES.get(name, name) for name in inspect.signature(type(callback)).parameters
    }
    return {ours: known[theirs] for ours, theirs in names.items() if theirs in known}


def _made(family: str, name: str, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    """The object of tf_keras with this configuration.

    Args:
        family: a key of `_HOMES`.
        name: its class.
        config: arguments, more than tf_keras' class may have.
        defaults: parameters of the Keras 3 class; arguments with their defaults can be left out.
    """
    own = getattr(_HOMES[family], name, None)
    if own is None:
        raise _RefusedError(_missing(name))
    known = {key for base in own.__mro__ for key in inspect.signature(base.__init__).parameters}
    lost = [
        f"{key}={value!r}"
        for key, value in config.items()
        if key not in known and not (key in defaults and defaults[key].default == value)
    ]
    if lost:
        what = f"tf_keras' {name} has no {', '.join(lost)}"
        raise _RefusedError(Problem(name, what, "leave it out"))
    options = {key: _option(key, value) for key, value in config.items() if key in known}
    return own(**options)


def _option(key: str, value: Any) -> Any:
    if key == "reduction" and value is None:
        return "none"
    if key == "dtype" and value == "int64":  # Keras 3's own choice for IoU metrics
        return None
    if isinstance(value, dict) and "class_name" in value:
        module, name = value.get("module") or "", value["class_name"]
        family = _family(module) if module.split(".")[0] == "keras" else None
        if family is None:
            what = f"{key} {name} is no stock object of Keras 3"
            raise _RefusedError(Problem(name, what, "import tf_keras and make it from its classes"))
        return _made(family, name, value["config"], {})
    return replaced(value, _rebuilt) if callable(value) else value


def _loss_scale(optimizer: Any) -> Any:
    return keras.mixed_precision.LossScaleOptimizer(
        _rebuilt(optimizer.inner_optimizer),
        initial_scale=optimizer.initial_scale,
        dynamic_growth_steps=optimizer.dynamic_growth_steps,
    )
