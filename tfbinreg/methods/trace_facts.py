"""What is taken for granted while a function is traced, so that its graph needs no branch for it.

Of a quantizer's part in a graph, the conditional that starts its grid with the first batch takes
longest to trace. Once the grid is started there is nothing to decide. So whoever traces may collect
what was found true then, and trace anew when it no longer is.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

_now = threading.local()


class TraceFacts:
    """Variables that were above a bound when functions were traced."""

    def __init__(self) -> None:
        self._found: set[tuple[Any, int]] = set()  # references to variables

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Scope of a trace, in which `exceeds` may find facts."""
        before = getattr(_now, "facts", None)
        _now.facts = self
        try:
            yield
        finally:
            _now.facts = before

    def add(self, variable: tf.Variable, bound: int) -> None:
        """Note that a variable is above a bound."""
        self._found.add((variable.ref(), bound))

    def hold(self) -> bool:
        """Whether what was found is still so."""
        return all(int(found.deref().numpy()) > bound for found, bound in self._found)


def exceeds(variable: tf.Variable, bound: int) -> Any:
    """`variable > bound`: True where that is a fact of this trace, else a tensor that says so.

    Replicas have variables of their own, so under a tf.distribute strategy nothing is a fact.
    """
    facts = getattr(_now, "facts", None)
    if facts is not None and not tf.executing_eagerly() and not tf.distribute.has_strategy():
        with tf.init_scope():
            if tf.executing_eagerly() and int(variable.numpy()) > bound:
                facts.add(variable, bound)
                return True
    return variable > bound


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Scope in which layers are called only for the shape and type of their outputs, as Keras does
    when a model is put together."""
    before = shapes_suffice()
    _now.shapes_only = True
    try:
        yield
    finally:
        _now.shapes_only = before


def shapes_suffice() -> bool:
    """Whether only the shape and type of what is computed here matter."""
    return getattr(_now, "shapes_only", False)
