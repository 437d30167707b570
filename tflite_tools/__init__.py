"""Convert, verify and inspect integer TFLite models. Imports TensorFlow only for conversion."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tflite_tools.from_keras.c_bytes import c_bytes
    from tflite_tools.schema.codes import read_codes

__all__ = ["c_bytes", "read_codes"]
_MODULES = {"c_bytes": "tflite_tools.from_keras.c_bytes", "read_codes": "tflite_tools.schema.codes"}


def __getattr__(name: str) -> Any:
    """Imports a function when it is first used: the commands' help needs none of its imports."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
