"""Integer operations as the runtimes compute them: what LiteRT and TFLM have in common.

Every operation is prepared once, from its grids alone, and becomes a function of tensors. Between
operations there are codes: whole numbers in float32, with 0 for zero, as in `Grid` (the stored int8
value minus its zero point). Results need not be clipped to int8.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from tfbinreg.core.channel_folding import channels_last
from tfbinreg.core.grid import Grid
from tfbinreg.deploy.frozen import FrozenOp
from tfbinreg.deploy.tf_ops import KERNEL_OPS, PLAIN_OPS
from tflite_tools.arithmetic.interpolation import Axis

Step = Callable[[Sequence[tf.Tensor]], tf.Tensor]  # codes of the inputs -> codes
Rule = Callable[[FrozenOp, Sequence[Grid]], Step]  # an operation, grids of its inputs
_FLOAT32_INTEGERS = 2**24  # float32 counts exactly as far as this
_LARGE_WINDOW = 2**14  # values that float32 adds up and divides without an error that counts


class InexactError(ValueError):
    """An operation whose numbers in a runtime are not known.

    Args:
        what: what is wrong with it.
        remedy: what to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


class LimitRule(Protocol):
    """The code at which a ReLU saturates, fused into another operator or by itself."""

    def __call__(self, limit: float, grid: Grid, *, fused: bool) -> int: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """How a runtime computes.

    Attributes:
        rules: by the kind of operation.
        limit: of a ReLU.
        unrounded: rules for operations that no other follows, whose results stay off the grid.
    """

    rules: Mapping[str, Rule]
    limit: LimitRule
    unrounded: Mapping[str, Rule] = dataclasses.field(default_factory=dict)


def grid_of(op: FrozenOp) -> Grid:
    """The grid of an operation's output.

    Raises:
        ValueError: if it has none.
    """
    if op.grid is None:
        raise ValueError("its output is not on a grid")
    return op.grid


def kernel_sums(op: FrozenOp, source: Grid) -> Step:
    """What a kernel adds up, with its bias: int32, the numbers that the device has."""
    kernel = op.kernel
    if kernel is None:
        raise ValueError("it has no weights")
    rows = channels_last(op.kind, np.abs(kernel.codes.astype(np.int64)))
    largest = int(rows.sum(axis=0).max()) * source.qmax_abs
    dtype = np.float32 if largest < _FLOAT32_INTEGERS else np.float64
    codes, bias, prescale = kernel.codes.astype(dtype), kernel.bias, kernel.prescale

    def step(inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        sums = KERNEL_OPS[op.kind](op, tf.cast(inputs[0], dtype), tf.constant(codes))
        return tf.cast(sums, tf.int32) * prescale + bias

    return step


def lookup(table: np.ndarray, source: Grid) -> Step:
    """A function of one int8 value, given as its results for -128 to 127."""
    first = source.zero_point + 128

    def step(inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        return tf.gather(tf.constant(table), tf.cast(inputs[0], tf.int32) + first)

    return step


def stored_lookup(table: np.ndarray, source: Grid, target: Grid) -> Step:
    """`lookup` of a table of stored values."""
    return lookup(table.astype(np.float32) - np.float32(target.zero_point), source)


def _average(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """AVERAGE_POOL_2D: the mean of the stored values in the image, halves away from their zero."""
    zero_point, own = sources[0].zero_point, op.attributes
    strides, padding = own["strides"], own["padding"].upper()
    window = tf.ones([*own["pool_size"], 1, 1])
    dtype = tf.float32 if np.prod(own["pool_size"]) < _LARGE_WINDOW else tf.float64

    def step(inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        image = tf.ones_like(inputs[0][:1, :, :, :1])
        count = tf.cast(tf.nn.conv2d(image, window, strides, padding), tf.int32)
        mean = PLAIN_OPS[op.kind](op, [tf.cast(inputs[0], dtype)])
        total = tf.cast(tf.round(mean * tf.cast(count, dtype)), tf.int32) + count * zero_point
        half = tf.sign(total) * (count // 2)
        return tf.truncatediv(total + half, count) - zero_point

    return step


def _relu(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """RELU and RELU6 on the grid of their input: `output_limits` clip, nothing else happens."""
    return lambda inputs: inputs[0]


def _moved(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """Numbers that are moved, or chosen by their order."""
    return lambda inputs: PLAIN_OPS[op.kind](op, inputs)


def _padded(op: FrozenOp, sources: Sequence[Grid]) -> Step:
    """PAD, or PADV2 with the least number of the grid."""
    if not op.attributes.get("lowest"):
        return _moved(op, sources)
    border = [(0, 0), *op.attributes["padding"], (0, 0)]
    return lambda inputs: tf.pad(inputs[0], border, constant_values=float(grid_of(op).qmin))


def bilinear(
    op: FrozenOp, axis_of: Callable[..., Axis], rounded: Callable[[tf.Tensor], tf.Tensor]
) -> Step:
    """RESIZE_BILINEAR of the stored values.

    Args:
        op: the operation.
        axis_of: how a runtime places new values among old ones, of `interpolation`.
        rounded: how it rounds a mean in units of the product of both axes' shares.

    Raises:
        InexactError: if it does not place them in one known way.
    """
    own, zero_point = op.attributes, grid_of(op).zero_point
    settings = {name: own[name] for name in ("half_pixel_centers", "align_corners")}

    def axes(old: Sequence[int], new: Sequence[int]) -> list[Axis]:
        try:
            return [axis_of(*sizes, **settings) for sizes in zip(old, new, strict=True)]
        except ValueError as error:
            raise InexactError(str(error), "resize to a small multiple of the size") from None

    new = [size for size in op.shape[:2] if size is not None]
    known = axes(own["source"], new) if len(new) == 2 and None not in own["source"] else None

    def step(inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        values, old = tf.cast(inputs[0], tf.int32) + zero_point, inputs[0].shape[1:3]
        for place, axis in enumerate(known or axes(old, np.multiply(old, own["factor"]))):
            share = axis.share.reshape(-1, *[1] * (2 - place))
            low, high = (
                tf.gather(values, np.minimum(axis.low + ahead, old[place] - 1), axis=place + 1)
                for ahead in (0, 1)
            )
            values = low * (2**axis.bits - share) + high * share
        return rounded(values) - zero_point

    return step


SHARED: Mapping[str, Rule] = {
    **dict.fromkeys(
        (
            "Concatenate",
            "Cropping2D",
            "Flatten",
            "GlobalMaxPooling2D",
            "MaxPooling2D",
            "Maximum",
            "Minimum",
            "Permute",
            "Reshape",
            "Slice",
            "UpSampling2D",
        ),
        _moved,
    ),
    "AveragePooling2D": _average,
    "ReLU": _relu,
    "ZeroPadding2D": _padded,
    "ValueFunction": lambda op, sources: stored_lookup(
        op.attributes["table"], sources[0], grid_of(op)
    ),
}
