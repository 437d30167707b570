"""Normalizations with negative factors: the sign moves into the kernel before training starts.

Folding multiplies a kernel's codes by the sign of the factor, and the b-bit codes -2^(b-1) to
2^(b-1) - 1 turned round no longer fit b bits. Turning round the float kernel instead leaves the
model as it is and every factor positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfbinreg import _compat
from tfbinreg.network.added_layers import ChannelAffine

keras = _compat.keras
# Layer -> its weights, which are changed in place.
Weights = dict[Any, list[np.ndarray]]


def make_factors_positive(norms: Sequence[tuple[Any, Any]], weights: Weights) -> None:
    """Give every normalization behind a kernel factors that are not negative.

    Args:
        norms: (BatchNormalization or ChannelAffine, the layer before it), in the order of the data.
        weights: by layer, as `set_weights` takes them.
    """
    before = dict(norms)
    for norm, _ in reversed(norms):
        scaled = isinstance(norm, ChannelAffine) or norm.scale
        if not scaled or not np.any(weights[norm][0] < 0):
            continue
        sign = np.where(weights[norm][0] < 0, -1.0, 1.0).astype(weights[norm][0].dtype)
        weights[norm][0] = weights[norm][0] * sign
        if not isinstance(norm, ChannelAffine):
            _turn(weights[norm], -2, sign)  # the moving mean
        _negate(before[norm], sign, before, weights)


def _negate(layer: Any, sign: np.ndarray, before: dict[Any, Any], weights: Weights) -> None:
    """Multiply the output of a layer by 1 or -1 per channel."""
    own = weights[layer]
    if isinstance(layer, ChannelAffine):
        own[:] = [values * sign for values in own]
    elif isinstance(layer, keras.layers.BatchNormalization):
        offsets = int(layer.scale) + int(layer.center)
        for index in range(offsets):
            _turn(own, index, sign)
        if not layer.scale:
            _turn(own, -2, sign)
            _negate(before[layer], sign, before, weights)
    else:
        own[0] = own[0] * _along_channels(layer, own[0], sign)
        if len(own) > 1:
            _turn(own, 1, sign)


def _turn(values: list[np.ndarray], index: int, sign: np.ndarray) -> None:
    values[index] = values[index] * sign


def _along_channels(layer: Any, kernel: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """`sign` of the output channels in a shape that multiplies the kernel."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return sign.reshape(kernel.shape[-2:])
    if isinstance(layer, keras.layers.Conv2DTranspose):
        return sign[:, None]
    return sign
