"""The optimizer of an arm: cosine decay to zero, decay of kernels only, a rate of the steps."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from examples.study.arm import Arm

NOT_DECAYED = ["gamma", "beta", "bias"]  # the model itself keeps decay away from learned steps


def make_optimizer(arm: Arm, steps: int) -> Any:
    """A new optimizer.

    Args:
        arm: how to train.
        steps: batches until the rate is zero.
    """
    rate = keras.optimizers.schedules.CosineDecay(arm.rate, steps)
    options: dict[str, Any] = {"weight_decay": arm.weight_decay or None}
    kind = _SlowerAdam if arm.optimizer == "adam" else _SlowerSGD
    if arm.optimizer == "sgd":
        options["momentum"] = 0.9
    optimizer = kind(rate, **options)
    if arm.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer


def slow_down(optimizer: Any, variables: list[Any], factor: float) -> None:
    """Let `optimizer` change these variables at its rate times `factor`."""
    optimizer.factors = {variable.ref(): factor for variable in variables if factor != 1.0}


class _Slower:
    """An optimizer whose update of some variables is multiplied by a factor."""

    factors: dict[Any, float] | None = None

    def update_step(self, gradient: Any, variable: Any) -> None:
        factor = (self.factors or {}).get(variable.ref())
        if factor is None:
            super().update_step(gradient, variable)  # type: ignore[misc]
            return
        before = tf.identity(variable)
        super().update_step(gradient, variable)  # type: ignore[misc]
        variable.assign(before + factor * (variable - before))


class _SlowerAdam(_Slower, keras.optimizers.Adam):
    """Adam, see `slow_down`."""


class _SlowerSGD(_Slower, keras.optimizers.SGD):
    """SGD, see `slow_down`."""
