"""Steps that stay as they are while the weights train."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf


def hold(steps: Sequence[tf.Variable], held: tf.Variable) -> Callable[[], None]:
    """To be called before a step of the optimizer; what it returns, after it.

    A zero gradient would not do: momentum would go on moving the steps.

    Args:
        steps: the learned steps and offsets.
        held: int32, (); while it is positive they keep their values.
    """
    before = [tf.identity(step) for step in steps]

    def end() -> None:
        for step, value in zip(steps, before, strict=True):
            step.assign(tf.where(held > 0, value, step))

    return end
