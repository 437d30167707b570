"""`Grid`: the integer grid a tensor is quantized to. NumPy only.

After training, only grids, latent values and codes are passed on: freezing, export, statistics and
reports do not depend on the method that found the step.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

# The bits of a kernel: one number, or one for each channel; 0 prunes.
WeightBits: TypeAlias = "int | tuple[int, ...]"
MIN_BITS = 2
MAX_BITS = 8
# Every int8 weight the runtimes accept lies in [-127, 127].
_INT8, _INT4 = (-127, 127), (-8, 7)
_PRESCALES = (64, 32, 16, 8, 4, 2, 1)


def check_bits(bits: object, what: str = "bits", least: int = MIN_BITS) -> int:
    """Return `bits` as an int in [least, 8].

    Raises:
        ValueError: if `bits` is not an integer between `least` and 8.
    """
    valid = isinstance(bits, (int, np.integer)) and not isinstance(bits, bool)
    if not valid or not least <= int(bits) <= MAX_BITS:  # type: ignore[call-overload]
        raise ValueError(f"{what} must be an integer from {least} to {MAX_BITS}, got {bits!r}.")
    return int(bits)  # type: ignore[call-overload]


def check_weight_bits(bits: object, what: str = "weight bits") -> WeightBits:
    """Return the bits of a kernel as an int in [0, 8], or as a tuple of such ints.

    Raises:
        ValueError: if `bits` is neither such an integer nor a non-empty sequence of them.
    """
    if not isinstance(bits, (list, tuple, np.ndarray)):
        return check_bits(bits, what, least=0)
    if len(bits) == 0:
        raise ValueError(f"{what} must be a number, or one for each channel, got none.")
    return tuple(check_bits(own, f"{what}[{channel}]", 0) for channel, own in enumerate(bits))


def widest(bits: WeightBits) -> int:
    """The bits of a grid whose channels have their own bits: the largest, or 1 if all are pruned. A
    single number is returned as it is.
    """
    return bits if isinstance(bits, int) else max(1, *bits)


def bits_text(bits: WeightBits) -> str:
    """The bits of a kernel as text: "4", "2-8", "0-4, 12 pruned"."""
    if isinstance(bits, int):
        return str(bits)
    pruned = bits.count(0)
    ends = "-".join(map(str, sorted({min(bits), max(bits)})))
    return ends + (f", {pruned} pruned" if pruned else "")


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


def channel_range(bits: int) -> tuple[int, int]:
    """Smallest and largest weight code of a channel that has its own bits, 0 to 8.

    At 0 bits the channel is pruned, and its only code is 0. At 1 bit its codes are -1 and 1,
    without 0.
    """
    return (-bits, bits) if bits < MIN_BITS else weight_code_range(bits)


def prescale(qmin: int, qmax: int, stored_bits: int = MAX_BITS) -> int:
    """Factor P by which weight codes from `qmin` to `qmax` are multiplied when they are stored.

    The largest power of two for which they fit int8: 32, 16, 8 for 2, 3, 4 bits, 1 at 8 bits. The
    values code * P with scale / P are the same numbers, but the int32 bias grid becomes P times
    finer and the runtimes' first rounding P times less coarse. With `stored_bits` of 4, codes that
    fit INT4 stay within it.
    """
    small = stored_bits < MAX_BITS and _INT4[0] <= qmin and qmax <= _INT4[1]
    low, high = _INT4 if small else _INT8
    return next(p for p in _PRESCALES if low <= p * qmin and p * qmax <= high)


def nearest_codes(ratio: np.ndarray, qmin: int, qmax: int) -> np.ndarray:
    """clip(ratio) rounded half up, in the dtype of `ratio`: the rule of every grid here."""
    return np.floor(np.clip(ratio, qmin, qmax) + 0.5)


def nearest_levels(ratio: np.ndarray, levels: Sequence[int]) -> np.ndarray:
    """The nearest of sorted `levels`, the upper one if two are equally near; int32."""
    own = np.asarray(levels, np.int32)
    middles = ((own[1:] + own[:-1]) / 2.0).astype(np.float32)
    return own[np.searchsorted(middles, ratio, side="right")]


def stored_zero_point(qmax: Any) -> Any:
    """The int8 value of code 0 in an activation tensor: 127 - qmax, for an int or a tensor.

    The upper end of int8 is then the largest code, so saturation clips from above and a fused ReLU
    from below: b-bit activations come at no cost.
    """
    return 127 - qmax


def _codebook(levels: Sequence[int]) -> tuple[int, ...]:
    """Levels as ints.

    Raises:
        ValueError: if they are not a codebook.
    """
    own = tuple(int(level) for level in levels)
    if len(own) < 2 or any(a >= b for a, b in itertools.pairwise(own)):
        raise ValueError(f"A codebook needs at least two levels, ascending, got {own}.")
    if own[0] < _INT8[0] or own[-1] > _INT8[1]:
        raise ValueError(f"Levels lie in {list(_INT8)}, got {own[0]} to {own[-1]}.")
    return own


def _index_bits(levels: Sequence[int]) -> int:
    """The bits needed to number the levels of a codebook; 0 for a single level."""
    return max(0, len(levels) - 1).bit_length()


@dataclasses.dataclass(frozen=True)
class Grid:
    """An integer grid: value = code * scale with code in [qmin, qmax].

    Attributes:
        bits: width of the codes, 2 to 8. For a codebook, the bits that number its levels, 1 to 8;
            for several codebooks, those of the longest.
        signed: whether negative codes exist.
        scale: float32, positive; shape () per tensor or (channels,) per channel. The learned step.
        qmin: smallest code.
        qmax: largest code.
        axis: channel axis of the tensor for a per-channel scale, None per tensor.
        levels: the available codes, ascending, for weights whose levels are not evenly spaced: a
            codebook. One-bit weights have (-1, 1). None for all codes from `qmin` to `qmax`.
        channel_bits: the bits of each channel, 0 to `bits`, for weights whose channels differ: the
            codes of each channel lie in its `channel_range`. None if the channels do not differ.
        channel_levels: a codebook for each channel, (0,) for a pruned channel. None if the channels
            share one codebook, or their levels are evenly spaced.
    """

    bits: int
    signed: bool
    scale: np.ndarray
    qmin: int
    qmax: int
    axis: int | None = None
    levels: tuple[int, ...] | None = None
    channel_bits: tuple[int, ...] | None = None
    channel_levels: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        scale = np.asarray(self.scale, np.float32)
        if not np.all(np.isfinite(scale)) or np.any(scale <= 0):
            raise ValueError(f"A grid needs finite, positive scales, got {scale}.")
        if (self.axis is None) != (scale.ndim == 0):
            raise ValueError(f"A scale of shape {scale.shape} does not fit axis={self.axis}.")
        object.__setattr__(self, "scale", scale)
        parts = (self.levels, self.channel_bits, self.channel_levels)
        if sum(part is not None for part in parts) > 1:
            raise ValueError("A grid has one codebook, several, or bits per channel, not both.")
        if self.levels is not None:
            self._check_levels()
        if self.channel_bits is not None:
            self._check_channel_bits()
        if self.channel_levels is not None:
            self._check_channel_levels()

    @classmethod
    def codebook(cls, levels: Sequence[int], scale: Any, axis: int | None = None) -> Grid:
        """The grid of weights whose levels are code * scale with the codes `levels`, ascending."""
        own = tuple(int(level) for level in levels)
        low, high = min(own, default=0), max(own, default=0)
        return cls(max(1, _index_bits(own)), True, scale, low, high, axis, own)

    @classmethod
    def codebooks(cls, levels: Sequence[Sequence[int]], scale: Any, axis: int) -> Grid:
        """The grid of weights with a codebook per channel; that of a pruned channel is (0,)."""
        own = tuple(tuple(int(level) for level in channel) for channel in levels)
        every = [level for channel in own for level in channel] or [0]
        bits = max(1, *map(_index_bits, own), 1)
        low, high = min(every), max(every)
        return cls(bits, True, scale, low, high, axis, channel_levels=own)

    def _check_levels(self) -> None:
        own = _codebook(self.levels or ())
        wanted = (_index_bits(own), own[0], own[-1], True)
        if (self.bits, self.qmin, self.qmax, self.signed) != wanted:
            raise ValueError(
                f"A codebook of {len(own)} levels from {own[0]} to {own[-1]} has these ends, is "
                f"signed and takes {wanted[0]} bits: make it with Grid.codebook."
            )
        object.__setattr__(self, "levels", own)

    def _check_channel_bits(self) -> None:
        own = tuple(int(bits) for bits in self.channel_bits or ())
        if self.axis is None or len(own) != self.scale.size:
            raise ValueError(f"{len(own)} channels have bits, scales of {self.scale.shape} do not.")
        if not all(0 <= bits <= self.bits for bits in own):
            raise ValueError(f"Bits per channel lie in 0 to {self.bits}, got {own}.")
        low, high = channel_range(max(own))
        if not self.signed or low < self.qmin or high > self.qmax:
            raise ValueError(f"Codes of {max(own)} bits do not fit {self.qmin} to {self.qmax}.")
        object.__setattr__(self, "channel_bits", own)

    def _check_channel_levels(self) -> None:
        given = self.channel_levels or ()
        if self.axis is None or len(given) != self.scale.size:
            raise ValueError(f"{len(given)} codebooks do not fit scales of {self.scale.shape}.")
        own = tuple((0,) if tuple(levels) == (0,) else _codebook(levels) for levels in given)
        bits = max(1, *map(_index_bits, own), 1)
        low, high = min(levels[0] for levels in own), max(levels[-1] for levels in own)
        if not self.signed or self.bits != bits or low < self.qmin or high > self.qmax:
            raise ValueError(
                f"Codebooks from {low} to {high} of {bits} bits do not fit this grid: make it with "
                "Grid.codebooks."
            )
        object.__setattr__(self, "channel_levels", own)

    @property
    def level_count(self) -> int:
        """How many codes the grid has; with codebooks per channel, the length of the longest."""
        if self.channel_levels is not None:
            return max(map(len, self.channel_levels))
        return self.qmax - self.qmin + 1 if self.levels is None else len(self.levels)

    @property
    def widths(self) -> tuple[int, ...] | None:
        """The bits of each channel, 0 for a pruned channel; None if the channels share `bits`."""
        if self.channel_levels is not None:
            return tuple(map(_index_bits, self.channel_levels))
        return self.channel_bits

    @property
    def qmax_abs(self) -> int:
        """The largest absolute code."""
        return max(-self.qmin, self.qmax)

    @property
    def zero_point(self) -> int:
        """The int8 value of code 0 in an activation tensor (`stored_zero_point`)."""
        return stored_zero_point(self.qmax)

    def code_bits(self, size: int) -> int:
        """The bits that the codes of a tensor of `size` numbers take."""
        widths = self.widths
        return size * self.bits if widths is None else size // len(widths) * sum(widths)

    def broadcast_scale(self, rank: int) -> np.ndarray:
        """The scale, shaped to broadcast against a tensor of `rank` dimensions."""
        if self.axis is None:
            return self.scale
        shape = [1] * rank
        shape[self.axis] = -1
        return self.scale.reshape(shape)

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Codes of `values`, int32, in their shape: nearest to value / scale, halves rounded up."""
        values = np.asarray(values, np.float32)
        ratio = values / self.broadcast_scale(values.ndim)
        if self.levels is not None:
            return nearest_levels(ratio, self.levels)
        if self.channel_bits is not None or self.channel_levels is not None:
            return self._codes_by_channel(ratio)
        return nearest_codes(ratio, self.qmin, self.qmax).astype(np.int32)

    def _codes_by_channel(self, ratio: np.ndarray) -> np.ndarray:
        rows, found = np.moveaxis(ratio, self.axis or 0, 0), np.empty(ratio.shape, np.int32)
        to = np.moveaxis(found, self.axis or 0, 0)
        for channel, levels in enumerate(self.channel_levels or ()):
            to[channel] = nearest_levels(rows[channel], levels)
        for channel, bits in enumerate(self.channel_bits or ()):
            row = rows[channel]
            own = (
                nearest_levels(row, (-1, 1))
                if bits == 1
                else nearest_codes(row, *channel_range(bits))
            )
            to[channel] = own
        return found

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
        bits: the width that the codes were trained at.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero_point: int
    bits: int
