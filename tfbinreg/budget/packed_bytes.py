"""The size of the packed weights of a quantized model at its current bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tfbinreg.layers.sites import kernel_sites, require_quantized

# Bias, multiplier and shift of an output channel in generated C, which packs biases and shares
# shifts: 4.8 to 6.0 bytes in ResNet-8, MobileNetV2 and MobileNetV3Small at 2 to 8 bits.
CHANNEL_BYTES = 6


def packed_bytes(model: Any) -> int:
    """Bytes of the packed weights and of the constants of their channels, estimated.

    A pruned channel takes none. The bytes saved in other kernels that no longer read it are not
    counted.

    Args:
        model: a quantized model.

    Raises:
        ValueError: if it is not quantized, or has a kernel without a grid.
    """
    require_quantized(model)
    total = 0
    for site in kernel_sites(model):
        grid = site.grid()
        bits = np.ones(1) if grid.channel_bits is None else np.array(grid.channel_bits)
        constants = round(float(np.mean(bits > 0)) * site.layer.channels) * CHANNEL_BYTES
        total += math.ceil(grid.code_bits(site.size) / 8) + constants
    return total
