"""Which runtime's integers a model computes with once it is finalized.

"tflm" is what microcontrollers run: TFLM, CMSIS-NN and the generated C round a sum twice. "litert"
is LiteRT with XNNPACK on phones and desktops, which rounds once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TFLM, LITERT = "tflm", "litert"
TARGETS = (TFLM, LITERT)
# Values of a model's `finalized` variable. Version 0.1.0 knew LiteRT alone, and wrote a 1.
NOT_FINALIZED, FORMERLY, FOR_LITERT, FOR_TFLM, FOR_SHORT_C = range(5)
STATES: Mapping[str, int] = {LITERT: FOR_LITERT, TFLM: FOR_TFLM}
_TARGET_OF = {FORMERLY: LITERT, FOR_LITERT: LITERT, FOR_TFLM: TFLM, FOR_SHORT_C: TFLM}


def check_target(target: str) -> str:
    """Return `target`.

    Raises:
        ValueError: unless it is one of `TARGETS`.
    """
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}.")
    return target


def state_of(model: Any) -> int:
    """Whether a quantized model was finalized, and for which target."""
    return int(model.finalized.numpy())


def has_short_constants(model: Any) -> bool:
    """Whether a quantized model was finalized with `short_constants`."""
    return state_of(model) == FOR_SHORT_C


def target_of(model: Any) -> str:
    """The target a quantized model was finalized for; before that, its recipe's."""
    return _TARGET_OF.get(state_of(model), model.recipe.target)
