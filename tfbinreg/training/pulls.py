"""How far a penalty pulls each kernel to its levels over a stage of training."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.warning import QuantizationWarning
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.methods import roster


@dataclasses.dataclass(frozen=True, eq=False)
class Pulls:
    """The pull of a penalty on the kernels of a model.

    A step of the optimizer removes the fraction rate * g * curvature * strength of the distance
    between a latent weight and its level, with g = 1 / (1 - momentum) of SGD
    (`_compat.step_of_gradient`) and the curvature of `Penalty.curvatures`. The sum of this fraction
    over the steps is the pull. If the penalty acts alone, each step removes little, and curvatures
    change little within an epoch, then e^-pull of the root mean square distance is left.

    Attributes:
        model: compiled, from `quantize_apply`.
        penalty: name of a penalty that pulls to levels.
        rates: the sum of the learning rates of each epoch of the training, float64, (epochs,).
    """

    model: Any
    penalty: str
    rates: np.ndarray

    def factors(self, pull: float, shares: Sequence[float]) -> np.ndarray:
        """Factors that give the stage this pull, at the current weights.

        Args:
            pull: for a kernel with the penalty weight 1.
            shares: the strength of each epoch, 0 where the penalty is off.

        Returns:
            float32, (kernels,); 0 for a kernel on which nothing is pulled.
        """
        whole = float(np.dot(self.rates, shares)) * self._per_rate()
        return np.divide(pull, whole, where=whole > 0.0, out=np.zeros_like(whole))

    def warn_of_short_ways(self, pull: float, shares: Sequence[float]) -> None:
        """Warn about kernels that Adam cannot bring as near to their levels as a pull requires,
        because it moves a weight by no more than about the rate in a step.
        """
        if not _compat.needs_steps(self.model.optimizer):
            return
        way, short = float(np.dot(self.rates, shares)), []
        for site in kernel_sites(self.model):
            latent, grid = site.latent, site.quantizer.grid_now(site.variables)
            level = grid.codes(latent) * grid.broadcast_scale(len(latent.shape))
            distance = float(tf.sqrt(tf.reduce_mean(tf.square(latent - level))))
            if way * float(site.layer.largest_slope()) ** 0.5 < -math.expm1(-pull) * distance:
                short.append(site.name)
        if short:
            warnings.warn(
                f"The learning rates of the stage add up to {way:.2g}, with which "
                f"{type(self.model.optimizer).__name__} cannot pull the weights of "
                f"{', '.join(short)} by {pull:g}: the {self.penalty.replace('_', ' ')} will get "
                "strengths that leave no room for the task. Ask for a smaller pull, or let the "
                "penalty act for more steps.",
                QuantizationWarning,
                stacklevel=2,
            )

    def of_epoch(self, epoch: int, strength: float) -> np.ndarray:
        """The pull of an epoch on each kernel, at the current weights; float64."""
        rate = _compat.learning_rate(self.model.optimizer)
        penalty = self.model.penalty_of(self.penalty)
        scales = strength * self.model.strength_factors[self.penalty].numpy() * penalty.weights
        return self.rates[epoch] * scales * self._per_rate(strength, rate)

    def _per_rate(self, *bound: Any) -> np.ndarray:
        steps = _steps_of_gradients(self.model)
        if None in steps:
            raise ValueError(
                f"The pull of a penalty with {type(self.model.optimizer).__name__} depends on the "
                "gradients of steps before, and there were none yet: let the penalty rest at "
                'first, with strategy "two_stage", "ramp" or "cosine" and a switch_epoch from 1 on.'
            )
        curvatures = self.model.penalty_of(self.penalty).curvatures(*bound)
        return np.array(curvatures, np.float64) * np.array(steps, np.float64)


def _steps_of_gradients(model: Any) -> list[float | None]:
    """`_compat.step_of_gradient` of each kernel; 0 for a kernel that is not trained."""
    trained = model.trainable_variables
    known = {variable.ref() for variable in trained}
    with model.distribute_strategy.scope():
        return [
            _compat.step_of_gradient(model.optimizer, site.kernel, trained)
            if site.kernel is not None and site.kernel.ref() in known
            else 0.0
            for site in kernel_sites(model)
        ]


def check_measurable(model: Any, penalty: str, steps: int | None) -> None:
    """Raise ValueError unless the pull of a penalty on a model's kernels can be measured.

    Args:
        model: from `quantize_apply`.
        penalty: name of the penalty.
        steps: steps of an epoch, None if not known.
    """
    if not roster.find(penalty, "penalty").pulls_to_levels:
        raise ValueError(
            f"The penalty {penalty!r} pulls weights to no level, so its pull cannot be measured."
        )
    if getattr(model, "optimizer", None) is None:
        raise ValueError(f"Compile model {model.name!r}: the pull of a penalty depends on how.")
    if steps is None:
        raise ValueError(
            "The pull of a penalty depends on the number of steps of an epoch, which the data do "
            "not tell: give fit steps_per_epoch."
        )
    _steps_of_gradients(model)  # which not every optimizer can tell


def rates_of_epochs(optimizer: Any, epoch: int, epochs: int, steps: int) -> np.ndarray:
    """Sum of the learning rates of each epoch, float64, (epochs,).

    A schedule is evaluated for all steps. For a rate that is a number, perhaps set by a callback,
    the current value is used.

    Args:
        optimizer: about to begin `epoch`.
        epoch: counted from 0.
        epochs: epochs of the whole training.
        steps: steps of an epoch.
    """
    if not _compat.has_rate_schedule(optimizer):
        return np.full(epochs, float(_compat.learning_rate(optimizer)) * steps)
    first = int(optimizer.iterations.numpy()) - epoch * steps
    numbers = tf.range(first, first + epochs * steps, dtype=tf.int64)

    def rates() -> tf.Tensor:
        return tf.map_fn(
            lambda step: _compat.learning_rate(optimizer, step),
            tf.maximum(numbers, 0),  # of a model compiled anew, and trained from a later epoch on
            fn_output_signature=tf.float32,
        )

    # Not called as a tf.function, which TensorFlow would blame for being made anew.
    found = tf.function(rates).get_concrete_function()()
    return found.numpy().astype(np.float64).reshape(epochs, steps).sum(axis=1)
