"""Steps that stay fixed while the weights train, or follow them slowly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def hold(steps: Sequence[tf.Variable], held: tf.Variable) -> Callable[[], None]:
    """Call it before a step of the optimizer, and call what it returns after the step.

    A zero gradient would not be enough: momentum would keep moving the steps.

    Args:
        steps: the learned steps and offsets.
        held: int32, (); while it is positive, the steps keep their values.
    """
    return _afterwards(steps, lambda before, now: tf.where(held > 0, before, now))


def slow_down(steps: Sequence[tf.Variable], factor: float) -> Callable[[], None]:
    """Call it before a step of the optimizer, and call what it returns after the step: the steps
    have then moved by `factor` times what the optimizer moved them by.

    Smaller gradients would not be enough: Adam divides them by their own size.

    Args:
        steps: the learned steps and offsets.
        factor: 0 to 1.
    """
    return _afterwards(steps, lambda before, now: before + factor * (now - before))


def _afterwards(steps: Sequence[tf.Variable], new: Callable[[Any, Any], Any]) -> Callable[[], None]:
    """A function that sets each step to `new` of its value now and when it is called."""
    before = [tf.identity(step) for step in steps]

    def end() -> None:
        for step, value in zip(steps, before, strict=True):
            step.assign(new(value, step))

    return end
