"""Keeps TensorFlow's C++ log off the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def native_log_hidden(*, enabled: bool = True) -> Iterator[None]:
    """Send what native code writes to stderr to nowhere.

    Python's own stderr still reaches the terminal, so exceptions and messages are not lost. Python
    warnings are hidden unless they come from tfbinreg.

    Args:
        enabled: False leaves everything visible.
    """
    if not enabled:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    saved, previous = os.dup(2), sys.stderr
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        if _is_native(previous):
            sys.stderr = os.fdopen(os.dup(saved), "w", buffering=1, errors="backslashreplace")
        os.dup2(sink, 2)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore")
            warnings.filterwarnings("default", module=r"tfbinreg(\.|$)")
            yield
    finally:
        os.dup2(saved, 2)
        if sys.stderr is not previous:
            sys.stderr.close()
            sys.stderr = previous
        os.close(saved)
        os.close(sink)


def _is_native(stream: object) -> bool:
    """Whether a stream writes to file descriptor 2 (test runners replace it)."""
    try:
        return stream.fileno() == 2  # type: ignore[attr-defined]
    except (OSError, ValueError, AttributeError):
        return False
