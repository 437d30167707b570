"""The integer form of a quantized model as it is now."""

from __future__ import annotations

from typing import Any

from tfbinreg.core.target import FORMERLY, state_of, target_of
from tfbinreg.deploy import former_arithmetic
from tfbinreg.deploy.freeze import freeze
from tfbinreg.deploy.integer_model import ARITHMETICS, IntegerModel
from tfbinreg.deploy.integer_ops import Arithmetic


class Deployed(IntegerModel):
    """What the target of a model (`target_of`) computes with its file.

    Args:
        model: a trained model from `quantize_apply`.

    Raises:
        ValueError: if it has no exact integer form (see `freeze` and `IntegerModel`).
    """

    def __init__(self, model: Any) -> None:
        super().__init__(freeze(model), arithmetic_of(model))


def arithmetic_of(model: Any) -> Arithmetic:
    """How a model computes once it is finalized."""
    if state_of(model) == FORMERLY:
        return former_arithmetic.ARITHMETIC
    return ARITHMETICS[target_of(model)]
