"""Logs of how weights move between the bins of their grids."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfbinreg import _compat
from tfbinreg.core.grid import MAX_BITS
from tfbinreg.layers.sites import Site, kernel_sites
from tfbinreg.training.model import QuantizedModel
from tfbinreg.training.weight_statistics import FEW_BITS, shares_near_edges

keras = _compat.keras


class TransitionLog(keras.callbacks.Callback):
    """Logs how many codes change, and how many weights are about to change theirs.

    At the end of each epoch it adds the following to `logs`, for later callbacks, History and the
    progress bar:

    - `code_changes`: the share of codes that a training step changes, averaged over the epoch and
      over the weights of up to 4 bits (over all weights if no kernel has so few bits; weights of
      pruned channels never count);
    - `near_edge`: the share of these weights within 5 % of a step of the edge between two bins,
      where the next step may change the code;
    - with `per_layer`, both for each kernel as `code_changes/<layer>` and `near_edge/<layer>`.

    Oscillating codes make batch normalization's statistics lag behind (Nagel et al., ICML 2022,
    section 3). Counting requires a pass over the weights in each step.

    Args:
        per_layer: whether to log each kernel separately as well.
    """

    def __init__(self, *, per_layer: bool = False) -> None:
        super().__init__()
        self._per_layer = per_layer
        self._first_step = 0

    def set_model(self, model: Any) -> None:
        if not isinstance(model, QuantizedModel):
            raise ValueError("TransitionLog needs a model from tfbinreg.quantize_apply.")
        super().set_model(model)
        model.enable_change_counts()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._first_step = _compat.steps_of_fit(self.model)
        self.model.code_changes.assign([0.0] * len(kernel_sites(self.model)))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None:
            return
        sites = kernel_sites(self.model)
        steps = max(1, _compat.steps_of_fit(self.model) - self._first_step)
        near = shares_near_edges(self.model, FEW_BITS)
        found = {
            "code_changes": self.model.code_changes.numpy() / steps,
            "near_edge": np.array([near[site.name] for site in sites]),
        }
        counted = ([_weights(site, most) for site in sites] for most in (FEW_BITS, MAX_BITS))
        weights = next(filter(any, counted))
        for what, shares in found.items():
            logs[what] = float(np.average(shares, weights=weights))
            for site, share in zip(sites if self._per_layer else (), shares, strict=False):
                logs[f"{what}/{site.name}"] = float(share)


def _weights(site: Site, most_bits: int) -> float:
    """How many weights of a kernel are not pruned and have at most this many bits."""
    return site.size * float(site.quantizer.grid_now(site.variables).share(most_bits))
