"""How much of a training is over, for what follows a schedule inside the train step."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from tfbinreg import _compat

keras = _compat.keras


class TrainingProgress(keras.callbacks.Callback):
    """Moves a model's `training_progress` from 0 to 1 over the epochs of `fit`.

    Within an epoch the train step moves it on. How many steps an epoch has is not known in the
    first one of a dataset of unknown size, where it stands still.

    Args:
        epochs: the last one, as `fit` takes it.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs
        self._steps: int | None = None
        self._first_step = 0

    def on_train_begin(self, logs: Any = None) -> None:
        self._steps = (self.params or {}).get("steps")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._first_step = _compat.steps_of_fit(self.model)
        self.model.training_progress.assign(epoch / self._epochs)
        steps = (self._steps or 0) * self._epochs
        self.model.progress_per_step.assign(1.0 / steps if steps else 0.0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._steps = _compat.steps_of_fit(self.model) - self._first_step


def with_progress(fit: Callable[..., Any]) -> Callable[..., Any]:
    """A model's `fit` with this callback, if the recipe has updates to follow it."""
    signature = inspect.signature(fit)

    @functools.wraps(fit)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.recipe.updates:
            return fit(self, *args, **kwargs)
        arguments = signature.bind(self, *args, **kwargs)
        given = arguments.arguments.get("callbacks") or []
        progress = TrainingProgress(arguments.arguments.get("epochs", 1))
        if isinstance(given, keras.callbacks.CallbackList):
            progress.set_model(self)
            progress.set_params(getattr(given, "params", None))
            given.append(progress)
        else:
            given = [*(given if isinstance(given, (list, tuple)) else [given]), progress]
        arguments.arguments["callbacks"] = given
        return fit(*arguments.args, **arguments.kwargs)

    return call
