"""What `fit` does by itself: it tracks progress, and lets methods act between epochs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.layers.sites import Site, kernel_sites
from tfbinreg.methods import roster
from tfbinreg.methods.contract import KernelBetweenEpochs

keras = _compat.keras


class TrainingProgress(keras.callbacks.Callback):
    """Moves a model's `training_progress` from 0 to 1 over the epochs of `fit`.

    Within an epoch, each train step advances it. In the first epoch on a dataset of unknown size
    the number of steps is not known, so it stands still.

    Args:
        epochs: the last epoch, as `fit` takes it.
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


class BetweenEpochs(keras.callbacks.Callback):
    """Lets the methods of a model's kernels act before each epoch (`Method.between_epochs`).

    Args:
        epochs: the last epoch, as `fit` takes it.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        model = self.model
        for method in acting_methods(model):
            kernels = [
                _kernel(model, site, epoch / self._epochs)
                for site in kernel_sites(model)
                if site.method == method.name
            ]
            method.between_epochs(kernels, epoch, roster.options_of(model.recipe, method))


def acting_methods(model: Any) -> list[Any]:
    """The methods of a model's kernels that act between epochs."""
    names = dict.fromkeys(site.method for site in kernel_sites(model))
    return [method for name in names if (method := roster.find(name, "weights")).between_epochs]


def _kernel(model: Any, site: Site, progress: float) -> KernelBetweenEpochs:
    trained = [variable for variable in (site.kernel, *site.learned) if variable is not None]
    return KernelBetweenEpochs(
        name=site.name,
        quantizer=site.quantizer,
        variables=site.variables,
        kernel=site.kernel,
        latent=np.asarray(site.latent),
        curvature=lambda: np.asarray(curvature_of(model, site, site.method)),
        restart=functools.partial(_compat.restart_slots, model, trained),
        progress=progress,
    )


def curvature_of(model: Any, site: Site, method: str) -> tf.Tensor:
    """What the optimizer knows about a kernel's curvature, which a method needs (`KernelStep`).

    Raises:
        ValueError: for an optimizer that keeps no such estimate.
    """
    who = f"Method {method!r} of layer {site.name!r}"
    return _compat.curvature(model.optimizer, site.kernel, who)


def with_own_callbacks(fit: Callable[..., Any]) -> Callable[..., Any]:
    """A model's `fit`, with the callbacks of this file that it needs."""
    signature = inspect.signature(fit)

    @functools.wraps(fit)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(self, *args, **kwargs)
        own: list[Any] = []
        epochs = arguments.arguments.get("epochs", 1)
        if self.updates:
            own.append(TrainingProgress(epochs))
        if acting_methods(self):
            own.append(BetweenEpochs(epochs))
        if not own:
            return fit(self, *args, **kwargs)
        given = arguments.arguments.get("callbacks") or []
        if isinstance(given, keras.callbacks.CallbackList):
            for callback in own:
                callback.set_model(self)
                callback.set_params(getattr(given, "params", None))
                given.append(callback)
        else:
            given = [*(given if isinstance(given, (list, tuple)) else [given]), *own]
        arguments.arguments["callbacks"] = given
        return fit(*arguments.args, **arguments.kwargs)

    return call
