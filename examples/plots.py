"""Pictures of latent weights around their quantization levels."""

from __future__ import annotations

from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from tfbinreg.layers.sites import kernel_sites
from tfbinreg.training.weight_statistics import scaled_weights


def bin_histograms(model: Any, path: str) -> None:
    """Draw each low-bit kernel, in units of its step, as a histogram; levels are dotted lines."""
    sites = [site for site in kernel_sites(model) if site.quantizer.bits < 8]
    figure, axes = plt.subplots(1, len(sites), figsize=(4 * len(sites), 3), squeeze=False)
    for site, axis in zip(sites, axes[0], strict=True):
        low, high = site.quantizer.qmin, site.quantizer.qmax
        scaled = np.clip(scaled_weights(site), low - 1.5, high + 1.5)
        axis.hist(scaled, bins=np.linspace(low - 1.5, high + 1.5, 30 * (high - low + 3) + 1))
        for level in range(low, high + 1):
            axis.axvline(level, color="tab:red", linewidth=0.8, linestyle=":")
        axis.set_title(f"{site.name} ({site.quantizer.bits} bits)")
        axis.set_xlabel("weight / step")
    axes[0][0].set_ylabel("weights")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
