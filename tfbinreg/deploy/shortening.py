"""Scales and biases of kernels that generated C can store in three bytes per channel.

Each scale moves to a near one whose factor has few digits, each bias to a near multiple
(`tflite_tools.arithmetic.short_constants` has the form). A scale moves by a few thousandths, a bias
by at most an eighth of an output level. A layer that does not fit the form is not changed.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfbinreg.core.grid import Grid
from tfbinreg.deploy.frozen import FrozenOp, stored_scale
from tflite_tools.arithmetic import multipliers, short_constants
from tflite_tools.arithmetic.short_constants import FactorForm
from tflite_tools.schema.codes import DEPTHWISE

# A unit of biases of 2^this of a level moves outputs by at most an eighth of one.
_COARSEST = -2
_CHANGES = sorted(range(-8, 9), key=abs)  # of a factor's code, until one is right


@dataclasses.dataclass(frozen=True, eq=False)
class Constants:
    """The constants that turn a kernel's sums into outputs.

    Attributes:
        scale: of the weights, float32, (channels,).
        bias: whole numbers, (channels,).
    """

    scale: np.ndarray
    bias: np.ndarray


def shortened(
    op: FrozenOp,
    size: tuple[int, ...],
    rows: np.ndarray,
    scale: np.ndarray,
    offset: np.ndarray,
    prescale: int,
    source: Grid,
    target: Grid,
) -> Constants | None:
    """A kernel's scale and bias for three bytes per channel; None if it has no such form.

    Args:
        op: without its kernel.
        size: shape of the kernel, Keras layout.
        rows: codes, (weights per channel, channels).
        scale: of the codes, float32, () or (channels,).
        offset: the bias times scale, in units of the inputs' scale over the pre-scale, float64,
            (channels,).
        prescale: P.
        source: grid of the inputs.
        target: grid of the outputs.
    """
    if not scale.ndim:
        return None  # one factor for all: there is nothing to be saved
    near = _near_factors(scale, prescale, source, target)
    if near is None:
        return None
    scale, octaves, base = near
    plain = np.zeros(len(scale))
    ways = [plain]
    if _holds_zero_points(op, size):
        ways.insert(0, float(source.zero_point) * prescale * rows.sum(axis=0, dtype=np.float64))
    for zeros in ways:
        biases = offset / scale - zeros
        unit = short_constants.bias_unit(biases, octaves)
        if unit is not None and (unit == 0 or unit + base <= _COARSEST):
            sizes = short_constants.bias_sizes(unit, octaves)
            return Constants(scale, np.rint(biases / sizes) * sizes + zeros)
    return None


def _holds_zero_points(op: FrozenOp, size: tuple[int, ...]) -> bool:
    """Whether C can subtract the effect of the input's zero point on the weights from the biases,
    which saves time: where a filter never sees a border, and in depthwise layers, which are given
    one.
    """
    if op.kind == "Conv2D":
        return op.attributes["padding"] == "valid" or size[:2] == (1, 1)
    return op.kind in (*DEPTHWISE, "Dense")


def _near_factors(
    scale: np.ndarray, prescale: int, source: Grid, target: Grid
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Near scales whose factors are codes, the octaves of these and the form's base."""

    def factors_of(scales: np.ndarray) -> np.ndarray:
        stored = stored_scale(scales, prescale)
        return np.array(multipliers.kernel(stored, source.scale, target.scale)).T

    exact = factors_of(scale)
    form: FactorForm | None = short_constants.factor_form(*exact)
    if form is None:
        return None
    first = form.nearest(*exact)
    codes, chosen, left = first.copy(), scale.copy(), np.arange(len(scale))
    for change in _CHANGES:
        tried = np.clip(first[left] + change, 0, 2**short_constants.CODE_BITS - 1)
        factor, shift = form.factors(tried)
        ratio = float(target.scale) / float(source.scale) * prescale
        scales = (np.ldexp(factor / 2.0**31, shift) * ratio).astype(np.float32)
        alike = short_constants.round_alike(factor, shift, *factors_of(scales))
        codes[left[alike]], chosen[left[alike]] = tried[alike], scales[alike]
        left = left[~alike]
        if not left.size:
            return chosen, form.octaves(codes), form.base
    return None
