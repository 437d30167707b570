"""Steps that stay as they are while the weights train, or follow them slowly."""

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


def slow_down(steps: Sequence[tf.Variable], factor: float) -> Callable[[], None]:
    """To be called before a step of the optimizer; what it returns, after it: the steps have then
    moved by `factor` times what the optimizer moved them by.

    Smaller gradients would not do: Adam divides them by their own size.

    Args:
        steps: the learned steps and offsets.
        factor: 0 to 1.
    """
    before = [tf.identity(step) for step in steps]

    def end() -> None:
        for step, value in zip(steps, before, strict=True):
            step.assign(value + factor * (step - value))

    return end
