"""What turns a kernel's sums into outputs, channel by channel, in as few bytes as C can read."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from tflite_tools.arithmetic import multipliers, short_constants
from tflite_tools.arithmetic.multipliers import HALF
from tflite_tools.c.lowering import Constants, Context
from tflite_tools.schema.contents import Tensor

# As in the runtime header.
_BIAS16, _BIAS24, _FOLDED, _EACH_MULTIPLIER, _EACH_SHIFT, _JOINT_SHIFT = 1, 2, 4, 8, 16, 32
_SHIFTS, _SHORT = 64, 128
_LARGEST_SHIFT = 21  # whose zero point, half and sum together have 31 bits
_JOINT_BITS = 30  # of a multiplier; what is above them is added to the shift


class Factors(NamedTuple):
    """What the sums of each channel are multiplied by: m / 2^31 * 2^s, both int64, (channels,)."""

    multipliers: np.ndarray
    shifts: np.ndarray

    @property
    def is_one(self) -> bool:
        """Whether all channels share a factor."""
        return all((part == part[0]).all() for part in self)


@dataclasses.dataclass(frozen=True, eq=False)
class StoredConstants:
    """Arrays as the kernels read them, and the flags that say how.

    Attributes:
        biases: int16, int32 or bytes.
        multipliers: int32; None if they are among the biases.
        shifts: int8.
        form: flags of `tfb_conv.form`.
    """

    biases: np.ndarray
    multipliers: np.ndarray | None
    shifts: np.ndarray
    form: int

    def note(self, constants: Constants) -> None:
        """Tell which parts of the runtime they need."""
        constants.short |= bool(self.form & _SHORT)
        if self.form & _SHIFTS:
            constants.by_shifts = True
        else:
            constants.by_multipliers = True


def factors(op: Context, source: Tensor, weights: Tensor, channels: int) -> Factors:
    """The factor of each channel, as TFLM prepares it.

    Raises:
        ValueError: if the weights' scales do not fit.
    """
    scales = _weight_scales(op, weights, channels)
    pairs = multipliers.kernel(scales, op.grid(source)[0], op.grid(op.output)[0])
    pairs = pairs if len(pairs) > 1 else pairs * channels
    return Factors(np.array([m for m, _ in pairs]), np.array([s for _, s in pairs]))


def _weight_scales(op: Context, weights: Tensor, channels: int) -> np.ndarray:
    parameters = weights.quantization
    if parameters is None or np.any(parameters.zero_point):
        raise ValueError(f"{weights.name!r} is not quantized with zero point 0")
    axis = 3 if op.op.name == "DEPTHWISE_CONV_2D" else 0
    whole = parameters.scale.size == 1 or (
        parameters.scale.size == channels and parameters.axis == axis
    )
    if not whole or not np.all(np.isfinite(parameters.scale) & (parameters.scale > 0)):
        raise ValueError(f"{weights.name!r} has scales that do not fit its channels")
    return parameters.scale


def stored(own: Factors, bias: np.ndarray, zero_sums: np.ndarray | None) -> StoredConstants:
    """Factors and biases in as few bytes as hold them.

    Args:
        own: the factors.
        bias: int64, (channels,).
        zero_sums: what the input's zero point makes of the weights, int64, (channels,), if it can
            be taken off the biases: where every position sees the whole filter.
    """
    ways = [] if zero_sums is None else [(bias - zero_sums, _FOLDED)]
    ways.append((bias, 0))
    if not own.is_one and not (own.multipliers == HALF).all():
        for biases, form in ways:
            short = short_constants.stored(*own, biases)
            if short is not None:
                flags = form | _SHORT | _EACH_MULTIPLIER
                return StoredConstants(short.words, None, short.form, flags)
    biases, form = min(ways, key=lambda way: _width(way[0]))
    biases, bias_form = _in_width(biases)
    return StoredConstants(biases, *_stored_factors(own, form | bias_form))


def _in_width(biases: np.ndarray) -> tuple[np.ndarray, int]:
    """Biases in 16, 24 or 32 bits, and their flag."""
    if _width(biases) == 16:
        return biases.astype(np.int16), _BIAS16
    if _width(biases) == 24:
        parts = biases.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]
        return np.ascontiguousarray(parts), _BIAS24
    return biases.astype(np.int32), 0


def _width(values: np.ndarray) -> int:
    """The bits, 16, 24 or 32, that hold whole numbers with their sign."""
    largest = int(np.abs(values).max())
    return next((bits for bits in (16, 24) if largest < 2 ** (bits - 1)), 32)


def _stored_factors(own: Factors, form: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Multipliers and shifts in few bytes, and `form` with their flags.

    A multiplier is at least 2^30, so the bits above are free for how far a channel's shift lies
    above the smallest. Multipliers of powers of two are not read at all.
    """
    multiplier, shifts = own
    if (multiplier == HALF).all():
        shifts = _once(shifts)
        form |= _EACH_SHIFT if shifts.size > 1 else 0
        form |= _SHIFTS if shifts.min() >= -_LARGEST_SHIFT else 0
        return np.array([HALF], np.int32), shifts.astype(np.int8), form
    base = shifts.min()
    above = shifts - base
    if above.any() and above.max() < 4 and multiplier.min() >= 2**_JOINT_BITS:
        words = multiplier - 2**_JOINT_BITS + (above << _JOINT_BITS)
        form |= _EACH_MULTIPLIER | _JOINT_SHIFT
        return words.astype(np.uint32).view(np.int32), np.array([base], np.int8), form
    multiplier, shifts = _once(multiplier), _once(shifts)
    form |= _EACH_MULTIPLIER if multiplier.size > 1 else 0
    form |= _EACH_SHIFT if shifts.size > 1 else 0
    return multiplier.astype(np.int32), shifts.astype(np.int8), form


def _once(values: np.ndarray) -> np.ndarray:
    """One value if all are equal."""
    return values[:1] if (values == values[0]).all() else values
