"""`Grid`: the integer grid a tensor is quantized to. NumPy only.

After training nothing but grids, latent values and codes is passed on: freezing, export,
statistics and reports never ask which method found the step.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

MIN_BITS = 2
MAX_BITS = 8
# Every int8 weight the runtimes accept lies in [-127, 127]; the largest power of two below.
_CONTAINER_HALF_RANGE = 64


def check_bits(bits: object, what: str = "bits") -> int:
    """Return `bits` as an int in [2, 8].

    Raises:
        ValueError: if `bits` is not an integer between 2 and 8.
    """
    valid = isinstance(bits, (int, np.integer)) and not isinstance(bits, bool)
    if not valid or not MIN_BITS <= int(bits) <= MAX_BITS:  # type: ignore[call-overload]
        raise ValueError(f"{what} must be an integer from {MIN_BITS} to {MAX_BITS}, got {bits!r}.")
    return int(bits)  # type: ignore[call-overload]


def code_range(bits: int, signed: bool) -> tuple[int, int]:
    """Smallest and largest activation code of a `bits`-wide grid, both included."""
    if signed:
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def weight_code_range(bits: int) -> tuple[int, int]:
    """Smallest and largest weight code: [-2^(b-1), 2^(b-1) - 1], but [-127, 127] at 8 bits.

    TFLite's int8 specification keeps weights in [-127, 127] (its ARM kernels add two products in
    16 bits, which -128 * -128 overflows), so a code of -128 could never be deployed as trained.
    """
    qmin, qmax = code_range(bits, signed=True)
    return (-qmax, qmax) if bits == MAX_BITS else (qmin, qmax)


def prescale(bits: int, stored_bits: int = MAX_BITS) -> int:
    """Factor P by which weight codes are multiplied when they are stored.

    2^(7 - b) in an int8 container, 1 at 8 bits. The values code * P with scale / P are the same
    numbers; the int32 bias grid becomes P times finer and the runtimes' first rounding P times less
    coarse. With `stored_bits` of 4, codes of 4 bits and fewer are multiplied by 2^(4 - b), which
    INT4 holds.
    """
    if bits <= stored_bits < MAX_BITS:
        return int(2 ** (stored_bits - bits))
    return max(1, _CONTAINER_HALF_RANGE // 2 ** (bits - 1))


def nearest_codes(ratio: np.ndarray, qmin: int, qmax: int) -> np.ndarray:
    """clip(ratio) rounded half up, in the dtype of `ratio`: the rule of every grid here."""
    return np.floor(np.clip(ratio, qmin, qmax) + 0.5)


def stored_zero_point(qmax: Any) -> Any:
    """The int8 value of code 0 in an activation tensor: 127 - qmax, of an int or a tensor.

    The int8 container's upper end is then the largest code, so saturation clips from above and a
    fused ReLU from below: b-bit activations at no cost.
    """
    return 127 - qmax


@dataclasses.dataclass(frozen=True)
class Grid:
    """An integer grid: value = code * scale with code in [qmin, qmax].

    Attributes:
        bits: width of the codes, 2 to 8.
        signed: whether negative codes exist.
        scale: float32, positive; shape () per tensor or (channels,) per channel. The learned step.
        qmin: smallest code.
        qmax: largest code.
        axis: channel axis of the tensor for a per-channel scale, None per tensor.
    """

    bits: int
    signed: bool
    scale: np.ndarray
    qmin: int
    qmax: int
    axis: int | None = None

    def __post_init__(self) -> None:
        scale = np.asarray(self.scale, np.float32)
        if not np.all(np.isfinite(scale)) or np.any(scale <= 0):
            raise ValueError(f"A grid needs finite, positive scales, got {scale}.")
        if (self.axis is None) != (scale.ndim == 0):
            raise ValueError(f"A scale of shape {scale.shape} does not fit axis={self.axis}.")
        object.__setattr__(self, "scale", scale)

    @property
    def levels(self) -> int:
        """How many codes the grid has."""
        return self.qmax - self.qmin + 1

    @property
    def qmax_abs(self) -> int:
        """The largest absolute code."""
        return max(-self.qmin, self.qmax)

    @property
    def zero_point(self) -> int:
        """The int8 value of code 0 in an activation tensor (`stored_zero_point`)."""
        return stored_zero_point(self.qmax)

    def broadcast_scale(self, rank: int) -> np.ndarray:
        """The scale, shaped to broadcast against a tensor of `rank` dimensions."""
        if self.axis is None:
            return self.scale
        shape = [1] * rank
        shape[self.axis] = -1
        return self.scale.reshape(shape)

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Codes of `values`: clip(value / scale) rounded half up, int32, shape of `values`."""
        values = np.asarray(values, np.float32)
        ratio = values / self.broadcast_scale(values.ndim)
        return nearest_codes(ratio, self.qmin, self.qmax).astype(np.int32)

    def values(self, codes: np.ndarray) -> np.ndarray:
        """The float32 numbers that `codes` stand for."""
        codes = np.asarray(codes)
        return codes.astype(np.float32) * self.broadcast_scale(codes.ndim)


@dataclasses.dataclass(frozen=True)
class CodedTensor:
    """A quantized tensor as it is deployed: value = (codes - zero_point) * scale.

    Attributes:
        codes: int8, in the layout of the Keras kernel.
        scale: float32, () per tensor or (channels,) per output channel.
        zero_point: 0 for weights.
        bits: width the codes were trained at.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero_point: int
    bits: int
