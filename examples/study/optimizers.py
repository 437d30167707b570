"""The optimizer of an arm: cosine decay to zero, decay of kernels only."""

from __future__ import annotations

from typing import Any

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
    kind = keras.optimizers.Adam if arm.optimizer == "adam" else keras.optimizers.SGD
    if arm.optimizer == "sgd":
        options["momentum"] = 0.9
    optimizer = kind(rate, **options)
    if arm.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer
