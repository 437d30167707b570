"""Logs of what the quantizers of a model's kernels report."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.layers.sites import Site, kernel_sites, require_quantized, sites

keras = _compat.keras

STEP = "step/"  # what the names of logged steps begin with


def step_of(site: Site) -> float:
    """The current step of a kernel or an activation; the mean over channels."""
    return float(tf.reduce_mean(site.quantizer.grid_now(site.variables).scale))


class QuantizerLog(keras.callbacks.Callback):
    """Logs the current bits of the kernels, and what their methods report.

    At the end of each epoch it adds the following to `logs`, for later callbacks, History and the
    progress bar. Each is averaged over the weights of the kernels that have it:

    - `weight_bits`: the bits that their codes take;
    - the entries of a quantizer's `figures`, such as `opposed` of CPQ;
    - with `per_layer`, all of them for each kernel as `weight_bits/<layer>`.

    With `steps`, the History that `fit` returns also has `step/<layer>`: the step of each kernel
    and activation (the mean over channels), as `tfbinreg.plot.steps` draws them. They are not in
    `logs`, where they would clutter the progress bar.

    Args:
        per_layer: whether to log each kernel separately as well.
        steps: whether to record the steps.
    """

    def __init__(self, *, per_layer: bool = False, steps: bool = False) -> None:
        super().__init__()
        self._per_layer, self._steps = per_layer, steps

    def set_model(self, model: Any) -> None:
        require_quantized(model)
        super().set_model(model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._steps:
            history: dict[str, list[float]] = getattr(self.model.history, "history", {})
            for site in sites(self.model):
                history.setdefault(f"{STEP}{site.name}", []).append(step_of(site))
        if logs is None:
            return
        sizes: dict[str, list[int]] = {}
        found: dict[str, list[float]] = {}
        for site in kernel_sites(self.model):
            latent = tf.convert_to_tensor(site.latent)
            own = {"weight_bits": site.grid().code_bits(site.size) / site.size}
            for name, figure in {**own, **site.quantizer.figures(latent, site.variables)}.items():
                sizes.setdefault(name, []).append(site.size)
                found.setdefault(name, []).append(figure)
                if self._per_layer:
                    logs[f"{name}/{site.name}"] = figure
        for name, figures in found.items():
            logs[name] = float(np.average(figures, weights=sizes[name]))
