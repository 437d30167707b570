"""BSQ's bit planes as functions and a tfmot `Quantizer`; for the source see `bsq`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import Grid, check_bits, weight_code_range
from tfbinreg.methods import lsq_functions
from tfbinreg.methods.contract import GridTensors, KernelStep
from tfbinreg.methods.uniform import Parameters, UniformWeightQuantizer, Variables, is_usable

_LARGEST_BIT = 2.0  # planes lie in [0, 2]
# The square root's slope at zero stays finite.
_SMOOTHING = 1e-8


def plane_sum(planes: tf.Tensor, powers: tf.Tensor) -> tf.Tensor:
    """sum over k of powers_k (p_k - n_k), in the shape of the kernel.

    Args:
        planes: p and n, float32, (2, planes, *kernel).
        powers: float32, (planes,).
    """
    return tf.tensordot(powers, planes[0] - planes[1], 1)


def plane_groups(planes: tf.Tensor) -> tf.Tensor:
    """The sum over k of sqrt(1e-8 + sum(p_k^2 + n_k^2)) - 1e-4: 0 if all are 0, and only then.

    Args:
        planes: as of `plane_sum`.

    Returns:
        float32, ().
    """
    others = [d for d in range(len(planes.shape)) if d != 1]
    squares = tf.reduce_sum(tf.square(planes), axis=others)
    return tf.reduce_sum(tf.sqrt(_SMOOTHING + squares) - _SMOOTHING**0.5)


def plane_quantize(
    latent: tf.Tensor,
    planes: tf.Tensor,
    powers: tf.Tensor,
    grid: GridTensors,
    fixed: tf.Tensor,
) -> tf.Tensor:
    """Quantize latent weights that mirror bit planes to code * s.

    With r = w / s, q the nearest code to r from -(2^N - 1) to 2^N - 1, and the gradient g of q s:

        dL/dp_k = powers_k s g,  dL/dn_k = -powers_k s g     0 once the planes are fixed
        dL/ds   = sum(g q)                                   sum(g (q - r)) inside once fixed
        dL/dw   = g where |r| < 2^N - 1, else 0

    The weights' own gradient trains them once the planes are fixed. Before that, the weights of a
    step are computed from the planes, so their gradient only enters the optimizer's averages.

    Args:
        latent: w, float32.
        planes: p and n, float32, (2, planes, *kernel).
        powers: 2^k for live planes in steps of the grid, 0 for others, float32, (planes,).
        grid: with s, which gets a gradient.
        fixed: bool, ().
    """

    @tf.custom_gradient
    def call(values: tf.Tensor, planes: tf.Tensor, scale: tf.Tensor) -> Any:
        rank = len(values.shape)
        step = GridTensors(scale, grid.qmin, grid.qmax, grid.axis).broadcast_scale(rank)
        ratio = values / step
        codes = grid.rounded(ratio)
        inside = tf.abs(ratio) < grid.rounded(tf.constant(float(grid.qmax)))

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            zeros = tf.zeros_like(upstream)
            learned = tf.where(tf.logical_and(fixed, inside), codes - ratio, codes)
            to_scale = tf.reduce_sum(upstream * learned, lsq_functions.other_axes(grid.axis, rank))
            own = tf.where(fixed, 0.0, powers)
            signs = tf.stack([own, -own])
            to_planes = tf.tensordot(signs, upstream * step, 0)
            return tf.where(inside, upstream, zeros), to_planes, to_scale

        return codes * step, gradient

    return call(latent, planes, grid.scale)


def exact_planes(codes: tf.Tensor, powers: tf.Tensor) -> tf.Tensor:
    """Codes as exact bits, those of positive ones in p and of negative ones in n.

    Args:
        codes: whole numbers, float32, no larger than the sum of the powers.
        powers: as of `plane_quantize`.

    Returns:
        0 and 1, float32, (2, planes, *shape of the codes).
    """
    sizes = tf.nn.relu(tf.stack([codes, -codes]))[:, None]
    powers = tf.reshape(powers, [-1] + [1] * len(codes.shape))
    bits = tf.math.floormod(tf.floor(tf.math.divide_no_nan(sizes, powers)), 2.0)
    return tf.where(powers > 0.0, bits, 0.0)


@_compat.register
class BSQWeightQuantizer(UniformWeightQuantizer):
    """BSQ for a kernel, with one scale per tensor or per output channel and the same bits
    throughout.

    Variables: `planes`, p and n of up to bits - 1 places, of which `count` are live from `lowest`
    on; the others are 0. A live plane adds 2^k (p_k - n_k) steps to a weight, k counted from
    `lowest`. The step is `scale` * 2^(lowest - places), so that a plane keeps its weight when
    others are trimmed: no number changes. `fixed` is 1 once the planes have found the bits.

    Args:
        bits: the most that a code may have, including its sign, 2 to 8.
        axis: channel axis of the kernel for a scale per channel, None for one scale.
        start: as for `LSQWeightQuantizer`: its largest weight is on the outermost level.
    """

    acts_after_steps = True

    def __init__(self, bits: int, axis: int | None = None, start: Any = None) -> None:
        self.bits = check_bits(bits, "weight bits")
        self.signed, self.axis, self._start = True, axis, start
        self.places = self.bits - 1
        self.qmax = weight_code_range(self.bits)[1]
        self.qmin = -self.qmax

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        shape = tuple(int(size) for size in tensor_shape)
        channels = () if self.axis is None else (shape[self.axis],)

        def number(what: str, start: int) -> tf.Variable:
            initializer = tf.constant_initializer(start)
            return self.add_variable(layer, name, (), False, initializer, what, tf.int32)

        scale, planes = self._first_scale, self._first_planes
        wide = (2, self.places, *shape)
        return {
            "planes": self.add_variable(layer, name, wide, initializer=planes, what="planes"),
            "scale": self.add_variable(layer, name, channels, initializer=scale, what="scale"),
            "lowest": number("lowest", 0),
            "count": number("count", self.places),
            "fixed": number("fixed", 0),
        }

    def _first_scale(self, shape: Any, dtype: Any = None) -> tf.Tensor:
        if self._start is None:
            return tf.ones(shape)
        start = tf.cast(self._start, tf.float32)
        others = lsq_functions.other_axes(self.axis, len(start.shape))
        largest = tf.reduce_max(tf.abs(start), axis=others) * (2.0**self.places / self.qmax)
        return tf.where(is_usable(largest), largest, tf.ones_like(largest))

    def _first_planes(self, shape: Any, dtype: Any = None) -> tf.Tensor:
        if self._start is None:
            return tf.zeros(shape)
        start = tf.cast(self._start, tf.float32)
        first = {"scale": self._first_scale(()), "lowest": 0, "count": self.places}
        return exact_planes(self.grid_now(first).codes(start), self._powers(first))

    def scale(self, parameters: Parameters) -> tf.Tensor:
        """The step: what a code of 1 stands for."""
        units = tf.constant(2.0 ** np.arange(-self.places, 1), tf.float32)
        return lsq_functions.effective_step(parameters["scale"]) * tf.gather(
            units, parameters["lowest"]
        )

    def show_as_used(self, variables: Variables) -> None:
        variables["scale"].assign(lsq_functions.effective_step(variables["scale"]))

    def grid_now(self, variables: Parameters) -> GridTensors:
        tops = tf.constant(2.0 ** np.arange(self.places + 1) - 1.0, tf.float32)
        top = tf.gather(tops, variables["count"])
        return GridTensors(
            self.scale(variables),
            self.qmin,
            self.qmax,
            self.axis,
            lambda ratio: lsq_functions.nearest_codes(ratio, -top, top),
            variables["count"] + 1,
        )

    def settle(self, variables: Variables, name: str) -> Grid:
        count, scale = int(variables["count"].numpy()), self.settled_scale(variables, name)
        return Grid(count + 1, True, scale, 1 - 2**count, 2**count - 1, self.axis)

    def start_from(self, variables: Variables, step: np.ndarray) -> None:
        unit = 2.0 ** (self.places - int(variables["lowest"].numpy()))
        variables["scale"].assign(np.asarray(step, np.float32) * np.float32(unit))

    def initialize(self, variables: Variables, kernel: np.ndarray, start: str = "mse") -> None:
        """Set scale and planes from the current weights, with all places live.

        Raises:
            ValueError: if every weight is zero, or the step would not be finite.
        """
        for name, number in {"lowest": 0, "count": self.places, "fixed": 0}.items():
            variables[name].assign(number)
        super().initialize(variables, kernel, start)
        codes = self.grid_now(variables).codes(tf.constant(kernel))
        variables["planes"].assign(exact_planes(codes, self._powers(variables)))

    def __call__(self, inputs: Any, training: Any, weights: Variables, **kwargs: Any) -> tf.Tensor:
        inputs = tf.convert_to_tensor(inputs)
        quantized = plane_quantize(
            tf.cast(inputs, tf.float32),
            tf.convert_to_tensor(weights["planes"]),
            self._powers(weights),
            self.grid_now(weights),
            weights["fixed"] > 0,
        )
        return tf.cast(quantized, inputs.dtype)

    def after_step(self, step: KernelStep) -> tf.Tensor:
        """The kernel that the planes stand for; once they are fixed, the kernel as it is. The
        planes are clamped to [0, 2]."""
        planes = tf.clip_by_value(step.variables["planes"], 0.0, _LARGEST_BIT)
        step.variables["planes"].assign(planes)
        own = plane_sum(planes, self._powers(step.variables))
        own *= step.grid.broadcast_scale(len(step.kernel.shape))
        return tf.where(step.variables["fixed"] > 0, step.kernel, own)

    def requantize(self, variables: Variables, latent: np.ndarray, fix: bool) -> np.ndarray:
        """Make the planes exact bits again and drop those that are 0 everywhere, at both ends.

        Codes that have outgrown the live planes get one more, unless all places are taken: then
        they stay on the outermost level.

        Args:
            variables: the quantizer's.
            latent: the weights, float32.
            fix: whether the planes have found the bits.

        Returns:
            The weights on the grid, float32: what they were quantized to, except for those that had
            outgrown it.
        """
        variables["count"].assign(self.places)
        wide = self.settle(variables, "kernel")
        codes = wide.codes(latent)
        used = int(np.bitwise_or.reduce(np.abs(codes), axis=None))
        trimmed = max(0, (used & -used).bit_length() - 1)
        count = max(1, used.bit_length() - trimmed)
        lowest = int(variables["lowest"].numpy()) + trimmed
        excess = max(0, lowest + count - self.places)
        variables["scale"].assign(variables["scale"] * 2.0**excess)
        variables["lowest"].assign(lowest - excess)
        variables["count"].assign(count)
        variables["fixed"].assign(int(fix))
        planes = exact_planes(tf.constant(codes >> trimmed, tf.float32), self._powers(variables))
        variables["planes"].assign(tf.zeros_like(planes) if fix else planes)
        return wide.values(codes)

    def figures(self, latent: tf.Tensor, variables: Variables) -> dict[str, float]:
        """`planes`: the live planes, which are the bits without the sign."""
        return {"planes": float(variables["count"].numpy())}

    def get_config(self) -> dict[str, Any]:
        return {"bits": self.bits, "axis": self.axis}

    def _powers(self, variables: Parameters) -> tf.Tensor:
        """Of the places, 2^k for live planes, k counted from the lowest, 0 for others."""
        place = tf.range(self.places) - variables["lowest"]
        live = tf.logical_and(place >= 0, place < variables["count"])
        powers = tf.constant(2.0 ** np.arange(self.places), tf.float32)
        return tf.where(live, tf.gather(powers, tf.maximum(place, 0)), 0.0)
