"""The class of every warning of this package."""

from __future__ import annotations

import warnings


class QuantizationWarning(UserWarning):
    """Something works, but most likely not as intended."""


def warn_never_acts(what: str, option: str, value: int, epochs: int) -> None:
    """Warn that, according to `option`, `what` begins after the last epoch of a training."""
    warnings.warn(
        f"{what} never acts in this training: {option} is {value}, and the last of its {epochs} "
        f"epochs, counted from 0, is epoch {epochs - 1}. Make {option} smaller, or train longer.",
        QuantizationWarning,
        stacklevel=2,
    )


def warn_unfinalized(doing: str, stacklevel: int) -> None:
    """Warn that a model is saved or converted without having been finalized."""
    warnings.warn(
        f"The model is {doing} without having been finalized. Its batch normalization may lag "
        "behind the weights, which can cost many points at few bits: call "
        "tfbinreg.finalize(model, data) first.",
        QuantizationWarning,
        stacklevel=stacklevel,
    )
