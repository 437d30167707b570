"""Convert, verify and inspect integer TFLite models. Imports TensorFlow only to convert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tflite_tools.schema.codes import read_codes

__all__ = ["read_codes"]


def __getattr__(name: str) -> Any:
    """`read_codes` when it is asked for: the help of the commands needs none of its imports."""
    if name in __all__:
        from tflite_tools.schema import codes

        return getattr(codes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
