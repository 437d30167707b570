"""Bilinear interpolation as the runtimes compute it: between two neighbours along each axis.

Every output is a weighted mean of four stored int8 values, whose weights are products of whole
shares, one for each axis. TFLM keeps positions in 10 bits behind the point
(tensorflow/lite/kernels/internal/reference/resize_bilinear.h), XNNPACK in float32, of which it
rounds the shares to 11 bits (github.com/google/XNNPACK, src/indirection.c).
"""

from __future__ import annotations

import dataclasses

import numpy as np

TFLM_BITS, XNNPACK_BITS = 10, 11


@dataclasses.dataclass(frozen=True, eq=False)
class Axis:
    """Where the values of a resized axis lie among the old ones.

    Attributes:
        low: index of the value at or before each place, int32.
        share: the share of the value behind that one, in units of 2^-bits, int32; 0 where there is
            none.
        bits: binary digits of a share.
    """

    low: np.ndarray
    share: np.ndarray
    bits: int

    @property
    def places(self) -> np.ndarray:
        """The places themselves, in old values, float64."""
        return self.low + self.share / float(2**self.bits)


def tflm(old: int, new: int, *, half_pixel_centers: bool, align_corners: bool) -> Axis:
    """The axis of `new` values made of `old` ones, as TFLM and LiteRT without XNNPACK have it.

    Raises:
        ValueError: if the rounded distance of two places adds up to a place behind the last value.
    """
    ends = int(align_corners and new > 1)
    step = ((old - ends << TFLM_BITS) + (new - ends) // 2) // (new - ends)
    first = step // 2 - (1 << TFLM_BITS - 1) if half_pixel_centers else 0
    places = np.maximum(first + step * np.arange(new, dtype=np.int64), 0)
    low, share = places >> TFLM_BITS, places & (1 << TFLM_BITS) - 1
    if low[-1] >= old:
        raise ValueError(f"TFLM, resizing {old} values to {new}, reads behind the last one")
    return _axis(low, share, old, TFLM_BITS)


def xnnpack(old: int, new: int, *, half_pixel_centers: bool, align_corners: bool) -> Axis:
    """The axis of `new` values made of `old` ones, as XNNPACK has it.

    Raises:
        ValueError: if its shares differ from processor to processor: those of Arm round a product
            and the sum with it at once.
    """
    ends = int(align_corners and new > 1)
    step = np.float32(old - ends) / np.float32(new - ends)
    first = np.float32(0.5) * step - np.float32(0.5) if half_pixel_centers else np.float32(0)
    steps = np.arange(new, dtype=np.float32)
    twice = steps * step + first
    once = (steps.astype(np.float64) * float(step) + float(first)).astype(np.float32)
    rounded, fused = (_xnnpack_axis(places, old) for places in (twice, once))
    if np.any(rounded.places != fused.places):
        raise ValueError(f"LiteRT, resizing {old} values to {new}, rounds as the processor does")
    return rounded


def _xnnpack_axis(places: np.ndarray, old: int) -> Axis:
    places = np.clip(places, 0, old - 1)
    low = np.floor(places)
    share = np.rint((places - low) * 2**XNNPACK_BITS)
    return _axis(low, share, old, XNNPACK_BITS)


def _axis(low: np.ndarray, share: np.ndarray, old: int, bits: int) -> Axis:
    share = np.where(low < old - 1, share, 0)  # behind the last value there is only itself
    return Axis(low.astype(np.int32), share.astype(np.int32), bits)
