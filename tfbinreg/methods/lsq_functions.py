"""Learned step size quantization (LSQ) as one differentiable function.

Esser et al., "Learned Step Size Quantization", ICLR 2020 (arXiv 1902.08153), equations 1-5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.core.grid import WeightBits, channel_range

# A step is used as max(|step|, STEP_FLOOR): no optimizer can make it negative or zero.
STEP_FLOOR = 1e-9
# The fused kernels compare with <=, the paper with <; four units in the last place make up for it.
_EDGE = 2.0**-21
# Up to here the step gradient is taken as the difference of two sums, which saves a pass over the
# activations; with finer levels the sums are so much larger than their difference that it is lost.
_FEW_BITS = 4


def effective_step(step: tf.Tensor) -> tf.Tensor:
    """The step that the quantizers actually use, max(|step|, 1e-9), in float32."""
    return tf.maximum(tf.abs(tf.cast(step, tf.float32)), STEP_FLOOR)


def nearest_codes(ratio: tf.Tensor, qmin: Any, qmax: Any) -> tf.Tensor:
    """clip(ratio) rounded half up, like `core.grid.nearest_codes`."""
    return tf.floor(tf.clip_by_value(ratio, qmin, qmax) + 0.5)


def nearest_levels(ratio: tf.Tensor, levels: Sequence[int]) -> tf.Tensor:
    """The nearest of sorted `levels`, the upper one if two are equally near, in the dtype of
    `ratio`, like `core.grid.nearest_levels`.
    """
    own = tf.constant(levels, ratio.dtype)
    places = tf.searchsorted((own[1:] + own[:-1]) / 2.0, tf.reshape(ratio, [-1]), side="right")
    return tf.reshape(tf.gather(own, places), tf.shape(ratio))


def nearest_by_bits(ratio: tf.Tensor, bits: WeightBits, axis: int | None = None) -> tf.Tensor:
    """The nearest codes for kernels of 1 bit, or for channels with their own bits, in the dtype of
    `ratio`, like those of `core.grid.Grid`.

    Args:
        ratio: weights / step.
        bits: 1 to 8, or 0 to 8 for each channel along `axis`. At 1 bit the codes are -1 and 1, and
            the code of 0 is 1, as halves round up.
        axis: the channel axis.
    """
    own, low, high = _bits_and_ends(bits, axis, ratio)
    codes = nearest_codes(ratio, low, high)
    if not np.any(own == 1):
        return codes
    signs = tf.where(ratio < 0.0, -tf.ones_like(ratio), tf.ones_like(ratio))
    return tf.where(own == 1, signs, codes)


def _bits_and_ends(
    bits: WeightBits, axis: int | None, ratio: tf.Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bits, the smallest and the largest code, shaped to broadcast to `ratio`."""
    own = np.atleast_1d(bits)
    shape = [1] * len(ratio.shape)
    if axis is not None:
        shape[channel_axis(axis, len(shape))] = len(own)
    ends = np.array([channel_range(int(width)) for width in own], ratio.dtype.as_numpy_dtype)
    return own.reshape(shape), ends[:, 0].reshape(shape), ends[:, 1].reshape(shape)


def channel_axis(axis: int, rank: int) -> int:
    """The axis counted from the front; a negative one counts from the back.

    Raises:
        ValueError: if a tensor of `rank` dimensions has no such axis.
    """
    if not -rank <= axis < rank:
        raise ValueError(f"axis={axis} is no axis of a tensor of {rank} dimensions.")
    return axis % rank


def other_axes(axis: int | None, rank: int) -> list[int] | None:
    """All axes except `axis`; without an axis None, which means all of them."""
    if axis is None:
        return None
    own = channel_axis(axis, rank)
    return [d for d in range(rank) if d != own]


def initial_step(values: tf.Tensor, qmax: int, axis: int | None = None) -> tf.Tensor:
    """The paper's start value 2 * mean|v| / sqrt(qmax) (section 2.1), float32.

    Args:
        values: the tensor to be quantized.
        qmax: largest code.
        axis: channel axis for one step per channel; None for one step; may be negative.

    Returns:
        Shape () or (channels,). Zero where all values are zero; callers must handle that.
    """
    values = tf.cast(values, tf.float32)
    others = other_axes(axis, len(values.shape))
    return 2.0 * tf.reduce_mean(tf.abs(values), axis=others) / math.sqrt(qmax)


def gradient_scale(count: int, qmax: int) -> float:
    """The paper's step gradient factor g = 1 / sqrt(N * qmax) (section 2.2).

    Args:
        count: N, how many numbers share the step: the elements of a weight tensor, the elements of
            one channel for per-channel steps, or the features of one sample (batch excluded) for
            activations.
        qmax: largest code.
    """
    return 1.0 / math.sqrt(max(1, count) * qmax)


def lsq_quantize(
    inputs: tf.Tensor,
    step: tf.Tensor,
    qmin: int,
    qmax: int,
    grad_scale: float = 1.0,
    axis: int | None = None,
) -> tf.Tensor:
    """Quantize to the learned grid: v_hat = s * round(clip(v / s, qmin, qmax)).

    s = max(|step|, 1e-9); halves round up. Gradients (paper equations 3 and 5), with r = v / s:

        dv_hat/dv = 1 if qmin < r < qmax else 0
        dv_hat/ds = round(r) - r if qmin < r < qmax, qmin if r <= qmin, qmax if r >= qmax

    and the gradient of `step` is grad_scale * sum(dL/dv_hat * dv_hat/ds), negated where `step` is
    negative. With qmin = 0 the function includes the ReLU. Per-tensor float32 grids run on
    TensorFlow's fused fake-quant kernels, in which values less than four units in the last place
    from the clipping point count as clipped.

    Args:
        inputs: any float tensor; float16 and bfloat16 are quantized in float32 and cast back.
        step: shape (), or (channels,) with `axis`.
        qmin: smallest code, <= 0.
        qmax: largest code, > 0.
        grad_scale: g, see `gradient_scale`.
        axis: the channel axis of `inputs` for a step per channel; may be negative.

    Returns:
        A tensor of the shape and dtype of `inputs`.

    Raises:
        ValueError: if the range does not satisfy qmin <= 0 < qmax, or `inputs` has no such axis.
    """
    if not qmin <= 0 < qmax:
        raise ValueError(f"Expected qmin <= 0 < qmax, got qmin={qmin}, qmax={qmax}.")
    inputs = tf.convert_to_tensor(inputs)
    step = tf.convert_to_tensor(step)
    if inputs.dtype in (tf.float16, tf.bfloat16):
        quantized = lsq_quantize(tf.cast(inputs, tf.float32), step, qmin, qmax, grad_scale, axis)
        return tf.cast(quantized, inputs.dtype)
    width, narrow = _fake_quant_width(qmin, qmax)
    if axis is not None or width is None or inputs.dtype != tf.float32:
        return _quantize_elementwise(inputs, step, qmin, qmax, grad_scale, axis)
    if qmin == 0:
        return _quantize_unsigned(inputs, step, qmax, width, grad_scale)
    return _quantize_signed(inputs, step, qmin, qmax, width, narrow, grad_scale)


def lsq_quantize_bits(
    inputs: tf.Tensor,
    step: tf.Tensor,
    bits: WeightBits,
    grad_scale: Any = 1.0,
    axis: int | None = None,
) -> tf.Tensor:
    """`lsq_quantize` for weights of 1 bit, or for channels with their own bits.

    Channels of 2 to 8 bits are quantized as there. At 1 bit, with r = w / s:

        w_hat       = s sign(r), sign(0) = 1
        dw_hat/dw   = 1 if |r| < 1 else 0
        dw_hat/ds   = sign(r) - r if |r| < 1 else sign(r)

    which are LSQ's gradients (Esser et al., equations 3 and 5) for qmin = -1, qmax = 1 and a code
    that is the sign: inside the range, the derivatives of rounding and of the sign are both taken
    as 1. It is the straight-through estimator of binarized networks (Hubara et al., NeurIPS 2016),
    whose range is 1 where it is s here. LSQ's paper stops at 2 bits: this is our extension.

    At 0 bits w_hat = 0, and so are all gradients.

    Args:
        inputs: weights of any float dtype; float16 and bfloat16 are quantized in float32.
        step: shape (), or (channels,) with `axis`.
        bits: 1 to 8, or 0 to 8 for each channel along `axis`.
        grad_scale: g, a number, or (channels,), see `gradient_scale`.
        axis: the channel axis of `inputs` for a step per channel; may be negative.

    Returns:
        A tensor of the shape and dtype of `inputs`.
    """
    inputs, step = tf.convert_to_tensor(inputs), tf.convert_to_tensor(step)
    if inputs.dtype in (tf.float16, tf.bfloat16):
        quantized = lsq_quantize_bits(tf.cast(inputs, tf.float32), step, bits, grad_scale, axis)
        return tf.cast(quantized, inputs.dtype)
    _, low, high = _bits_and_ends(bits, axis, inputs)

    def nearest(ratio: tf.Tensor) -> tf.Tensor:
        return nearest_by_bits(ratio, bits, axis)

    return _quantize_elementwise(inputs, step, low, high, grad_scale, axis, nearest)


def lsq_plus_quantize(
    inputs: tf.Tensor,
    step: tf.Tensor,
    offset: tf.Tensor,
    bits: int,
    grad_scale: float = 1.0,
) -> tf.Tensor:
    """Quantize to a grid with a learned offset (LSQ+).

    Bhalgat et al., "LSQ+: Improving low-bit quantization through learnable offsets and better
    initialization", CVPRW 2020 (arXiv 2004.09576).

    With s = max(|step|, 1e-9), n = 2^bits - 1 and the zero point Z = clip(round(-offset / s), 0, n)
    the levels are (code - Z) * s for codes 0 to n. The paper adds a real offset to the levels.
    Rounding it to a whole number of steps makes zero a level, which padding and TFLite require.
    Gradients (the paper's, with v the value and c its code):

        dv_hat/dv      = 1 inside the grid, else 0
        dv_hat/ds      = c - Z - v / s inside, 0 below, n above
        dv_hat/doffset = 0 inside, 1 below and above

    The gradients of `step` and `offset` are multiplied by grad_scale.

    Args:
        inputs: any float tensor; computed in float32 and cast back.
        step: shape ().
        offset: shape (), the smallest level.
        bits: 2 to 8.
        grad_scale: g, see `gradient_scale`.

    Returns:
        A tensor of the shape and dtype of `inputs`.
    """
    inputs = tf.convert_to_tensor(inputs)
    top = 2.0**bits - 1.0

    @tf.custom_gradient
    def call(values: tf.Tensor, raw_step: tf.Tensor, raw_offset: tf.Tensor) -> Any:
        scale = effective_step(raw_step)
        zero_point = effective_zero_point(scale, raw_offset, bits)
        low, high = -zero_point * scale, (top - zero_point) * scale
        quantized = tf.quantization.fake_quant_with_min_max_vars(values, low, high, num_bits=bits)

        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            # As for the signed grid; the kernel counts values on the clipping point as inside.
            inner = 1.0 - _EDGE
            to_values, below, above = tf.quantization.fake_quant_with_min_max_vars_gradient(
                upstream, values, low * inner, high * inner, num_bits=bits
            )
            rounding = tf.reduce_sum(to_values * (quantized - values)) / scale
            to_step = grad_scale * (rounding + top * above)
            return to_values, signed_like(to_step, raw_step), grad_scale * (below + above)

        return quantized, grad

    quantized = call(tf.cast(inputs, tf.float32), tf.convert_to_tensor(step), offset)
    return tf.cast(quantized, inputs.dtype)


def effective_zero_point(scale: tf.Tensor, offset: tf.Tensor, bits: int) -> tf.Tensor:
    """The code that stands for zero: clip(round(-offset / scale), 0, 2^bits - 1), float32."""
    return tf.clip_by_value(tf.floor(0.5 - offset / scale), 0.0, 2.0**bits - 1.0)


def _fake_quant_width(qmin: int, qmax: int) -> tuple[int | None, bool]:
    """(num_bits, narrow_range) of the fake-quant kernel with these codes; (None, _) without one."""
    span = qmax - qmin
    for narrow in (False, True):
        width = (span + 1 + narrow).bit_length() - 1
        if 2**width == span + 1 + narrow and 2 <= width <= 16:
            return width, narrow
    return None, False


def signed_like(gradient: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Chain rule through |step|; a step of exactly 0 is pushed up like a positive one."""
    gradient = tf.cast(gradient, step.dtype)
    return tf.where(step < 0, -gradient, gradient)


def _quantize_elementwise(
    inputs: tf.Tensor,
    step: tf.Tensor,
    qmin: Any,
    qmax: Any,
    grad_scale: Any,
    axis: int | None,
    nearest: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tf.Tensor:
    """The formula as written: any range, any float dtype, per tensor or per channel; ranges and
    codes of channels may differ.
    """
    rank = len(inputs.shape)
    others = other_axes(axis, rank)
    shape = [] if others is None else [1 if d in others else -1 for d in range(rank)]

    @tf.custom_gradient
    def call(values: tf.Tensor, raw_step: tf.Tensor) -> Any:
        positive = tf.maximum(tf.abs(raw_step), STEP_FLOOR)
        scale = tf.reshape(tf.cast(positive, values.dtype), shape)
        ratio = values / scale
        codes = nearest_codes(ratio, qmin, qmax) if nearest is None else nearest(ratio)

        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            inside = tf.logical_and(ratio > qmin, ratio < qmax)
            to_values = tf.where(inside, upstream, tf.zeros_like(upstream))
            slope = tf.where(inside, codes - ratio, codes)
            to_step = grad_scale * tf.reduce_sum(upstream * slope, axis=others)
            return to_values, signed_like(to_step, raw_step)

        return codes * scale, grad

    return call(inputs, step)


def _quantize_unsigned(
    inputs: tf.Tensor, step: tf.Tensor, qmax: int, width: int, grad_scale: Any
) -> tf.Tensor:
    """qmin = 0: one pass forward that also is the ReLU."""

    @tf.custom_gradient
    def call(values: tf.Tensor, raw_step: tf.Tensor) -> Any:
        scale = effective_step(raw_step)
        top = qmax * scale
        quantized = tf.quantization.fake_quant_with_min_max_vars(values, 0.0, top, num_bits=width)

        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            # Relu6Grad(a, b) is a where 0 < b < 6: the paper's strict mask in one fused pass.
            scaled = values * (6.0 * (1.0 + _EDGE) / top)
            to_values = tf.raw_ops.Relu6Grad(gradients=upstream, features=scaled)
            if width <= _FEW_BITS:
                total = tf.reduce_sum(upstream * quantized) - tf.reduce_sum(to_values * values)
            else:
                passed = tf.raw_ops.Relu6Grad(gradients=values, features=scaled)
                total = tf.reduce_sum(upstream * (quantized - passed))
            return to_values, signed_like(total * (grad_scale / scale), raw_step)

        return quantized, grad

    return call(inputs, step)


def _quantize_signed(
    inputs: tf.Tensor,
    step: tf.Tensor,
    qmin: int,
    qmax: int,
    width: int,
    narrow: bool,
    grad_scale: Any,
) -> tf.Tensor:
    @tf.custom_gradient
    def call(values: tf.Tensor, raw_step: tf.Tensor) -> Any:
        scale = effective_step(raw_step)
        options = {"num_bits": width, "narrow_range": narrow}
        quantized = tf.quantization.fake_quant_with_min_max_vars(
            values, qmin * scale, qmax * scale, **options
        )

        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            inner = scale * (1.0 - _EDGE)
            to_values, below, above = tf.quantization.fake_quant_with_min_max_vars_gradient(
                upstream, values, qmin * inner, qmax * inner, **options
            )
            rounding = tf.reduce_sum(to_values * (quantized - values)) / scale
            to_step = grad_scale * (rounding + qmin * below + qmax * above)
            return to_values, signed_like(to_step, raw_step)

        return quantized, grad

    return call(inputs, step)
