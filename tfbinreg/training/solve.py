"""`solve`: weights or steps found from a few hundred samples, by the recipe's solver."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from tfbinreg.core.target import NOT_FINALIZED
from tfbinreg.layers.sites import (
    activation_sites,
    check_finite,
    kernel_sites,
    require_quantized,
)
from tfbinreg.methods import roster
from tfbinreg.methods.solver_view import Solved
from tfbinreg.training.solver_data import Checkpoint, fingerprint, labelled_samples
from tfbinreg.training.solver_model import solver_view
from tflite_tools.system.progress import progress


@dataclasses.dataclass(frozen=True)
class SolveReport:
    """What a solver did; `print` shows a line for each part.

    Attributes:
        method: name of the solver.
        parts: the minimized quantity of each part, before and after.
    """

    method: str
    parts: tuple[Solved, ...]

    def __str__(self) -> str:
        lines = [f"{self.method}: {len(self.parts)} parts solved"]
        return "\n".join(lines + [f"  {part}" for part in self.parts])


def solve(
    model: Any,
    data: Any,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    verbose: int = 1,
    advance: Callable[[float, str], None] | None = None,
) -> SolveReport:
    """Run the solver of a model's recipe: `Recipe(solver=...)`, or its method if that has a solver.

    A solver searches for weights or steps with few samples and without gradient descent. The model
    is changed in place; `fit` can continue from there.

    Args:
        model: from `quantize_apply`, calibrated; compiled with its loss if the solver needs labels.
        data: typical samples, of which 512 are used, in the form of the `calibration_data` of
            `quantize_apply`. Labels are the second part of (inputs, labels), also in each batch, or
            `labels` in an .npz file.
        checkpoint: folder in which each finished part is saved. A run that was killed continues
            from there when it is started again with the same model, data and recipe.
        verbose: 1 prints a line for each part, and shows a progress bar on a terminal; 0 nothing.
        advance: called with the share of the work that is done, 0 to 1, and what is being done, for
            a progress bar of your own.

    Returns:
        A report.

    Raises:
        ValueError: if the recipe has no solver, the model is not calibrated or not finite, a layer
            is used several times, labels or the loss are missing, the samples do not fit, or the
            checkpoint belongs to another model.
    """
    require_quantized(model)
    method: Any = roster.solver_of(model.recipe)
    check_finite(model)
    _check_calibrated(model)
    _check_used_once(model, method.name)
    batches, labels = labelled_samples(data, model.inputs)
    if method.needs_labels:
        _check_loss(model, method.name, labels)
    model.finalized.assign(NOT_FINALIZED)
    start = "" if checkpoint is None else _start_of(model, method.name, batches, labels)
    with progress(enabled=bool(verbose) and advance is None) as bar:
        view = solver_view(
            model,
            batches,
            labels if method.needs_labels else None,
            Checkpoint(checkpoint, start),
            print if verbose else _tell_nobody,
            advance or bar,
        )
        parts = method.fit(view, roster.options_of(model.recipe, method))
    check_finite(model)
    return SolveReport(method.name, tuple(parts))


def _tell_nobody(line: str) -> None:
    """Ignores progress lines."""


def _check_calibrated(model: Any) -> None:
    names = [site.name for site in activation_sites(model) if not bool(site.layer.is_ready)]
    if names:
        raise ValueError(
            f"Model {model.name!r} is not calibrated ({', '.join(names)}): pass calibration_data "
            "to quantize_apply, or train it first."
        )


def _check_used_once(model: Any, method: str) -> None:
    """A solver can see the inputs of a kernel at one place only."""
    names = [site.name for site in kernel_sites(model) if len(site.layer.inbound_nodes) > 1]
    if names:
        raise ValueError(
            f"Method {method!r} solves kernels that are used once, and {', '.join(names)} of model "
            f"{model.name!r} is used several times: train it with fit, or use one layer per place."
        )


def _check_loss(model: Any, method: str, labels: Any) -> None:
    if labels is None:
        raise ValueError(f"Method {method!r} needs labels: pass data=(inputs, labels).")
    if getattr(model, "compiled_loss", None) is None:
        raise ValueError(f"Method {method!r} needs the loss: compile model {model.name!r} first.")


def _start_of(model: Any, method: str, batches: Any, labels: Any) -> str:
    weights = [np.asarray(weight) for weight in model.get_weights()]
    return fingerprint(method, model.recipe.to_json(), weights, batches, labels or [])
