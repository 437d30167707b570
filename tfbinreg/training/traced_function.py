"""Functions that are traced with facts (`methods.trace_facts`), as Keras' of training are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfbinreg.methods.trace_facts import TraceFacts


class TracedFunction:
    """A function of batches, made and traced again once a fact of its trace no longer holds.

    Facts are checked before each call: a callback may set weights at any time.

    Args:
        make: makes the function, not traced yet.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._facts = make, TraceFacts()
        self._function = make()

    def __call__(self, batches: Any) -> Any:
        if not self._facts.hold():
            self._facts = TraceFacts()
            self._function = self._make()
        with self._facts.collected():
            return self._function(batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)
