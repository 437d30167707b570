"""tfmot `Quantizer` objects of CPQ and DropBits; for the source see `cpq`."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import MIN_BITS, Grid, weight_code_range
from tfbinreg.methods import drop_bits, lsq_functions
from tfbinreg.methods.contract import GridTensors
from tfbinreg.methods.cpq_functions import EXPECTED_VALUE, cpq_quantize
from tfbinreg.methods.lsq_quantizers import LSQActivationQuantizer, LSQWeightQuantizer
from tfbinreg.methods.uniform import Parameters, Variables, is_usable

GATES = "gates"
_WIDTH, _DRAWS = "log_width", "draws"
_SEEDS = 2**31


@_compat.register
class CPQWeightQuantizer(LSQWeightQuantizer):
    """CPQ for a kernel, one step and one width of the distribution per tensor or channel.

    Both variables are handled as in LSQ: the gradients are multiplied by 1 / sqrt(N qmax). The step
    acts by its absolute value and the logarithm of the width is trained, so both stay positive.

    Args:
        bits, axis: as for `LSQWeightQuantizer`.
        backward: as for `cpq_quantize`.
        width: where the width starts, in steps.
    """

    def __init__(
        self,
        bits: int,
        axis: int | None = None,
        start: Any = None,
        *,
        backward: str = EXPECTED_VALUE,
        width: float = 1.0 / 6.0,
    ) -> None:
        super().__init__(bits, axis, start)
        self.backward, self.width = backward, width
        self.ranges = [(self.qmin, self.qmax)]

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        variables = super().build(tensor_shape, name, layer)
        log_width = tf.math.log(self.width * self.scale(variables))
        variables[_WIDTH] = self.add_variable(
            layer, name, log_width.shape, what=_WIDTH, initializer=lambda *_, **__: log_width
        )
        return variables

    def start_from(self, variables: Variables, step: np.ndarray) -> None:
        super().start_from(variables, step)
        variables[_WIDTH].assign(np.log(np.float32(self.width) * step))

    def gates(self, training: Any, weights: Variables) -> tf.Tensor | None:
        """What `cpq_quantize` takes as gates."""
        return None

    def __call__(self, inputs: Any, training: Any, weights: Variables, **kwargs: Any) -> tf.Tensor:
        count = int(np.prod(inputs.shape))
        if self.axis is not None:
            count //= int(inputs.shape[self.axis])
        return cpq_quantize(
            inputs,
            weights["step"],
            weights[_WIDTH],
            self.ranges,
            backward=self.backward,
            grad_scale=lsq_functions.gradient_scale(count, self.qmax),
            axis=self.axis,
            gates=self.gates(training, weights),
        )

    def figures(self, latent: tf.Tensor, variables: Variables) -> dict[str, float]:
        """`opposed`: the share of weights whose step, by their own gradient, goes against that of
        their quantized values: all with dq/dx < 0.
        """
        latent = tf.convert_to_tensor(latent)
        with tf.GradientTape() as tape:
            tape.watch(latent)
            quantized = self(latent, False, variables)
        return {"opposed": float(np.mean(tape.gradient(quantized, latent) < 0.0))}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "backward": self.backward, "width": self.width}


@_compat.register
class DropBitsWeightQuantizer(CPQWeightQuantizer):
    """CPQ for a kernel whose bit levels are dropped at random in training passes (`drop_bits`).

    The draws of a pass are determined by a seed, the layer's name and the number of the pass, which
    are saved with the model. A resumed training therefore draws what it would have drawn, and
    replicas draw the same. The first pass drops nothing. Inference is not random: it uses all
    levels or, if bits are learned, those whose gates are then open.

    Args:
        bits, axis, backward, width: as for `CPQWeightQuantizer`.
        by_channel: whether each channel of `axis` has its own gates.
        learns_bits: whether inference drops levels too.
        keep: probability that a gate is open at the start.
        gain: log alpha of a gate is the trained variable times this.
        seed: of the draws.
    """

    def __init__(
        self,
        bits: int,
        axis: int | None = None,
        start: Any = None,
        *,
        backward: str = EXPECTED_VALUE,
        width: float = 1.0 / 6.0,
        by_channel: bool = False,
        learns_bits: bool = False,
        keep: float = 0.9,
        gain: float = 30.0,
        seed: int = 0,
    ) -> None:
        super().__init__(bits, axis, start, backward=backward, width=width)
        self.by_channel, self.learns_bits = by_channel, learns_bits
        self.keep, self.gain, self.seed = keep, gain, seed
        self.ranges = drop_bits.nested_ranges(self.bits)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        shape: tuple[int, ...] = (self.bits - MIN_BITS,)
        if self.by_channel:
            shape += (int(tensor_shape[self.axis]),)
        start = tf.constant_initializer(drop_bits.start_of(self.keep) / self.gain)
        gates = self.add_variable(layer, name, shape, what=GATES, initializer=start)
        seed = (zlib.crc32(layer.name.encode()) + self.seed) % _SEEDS
        first = tf.constant_initializer([seed, 0])
        draws = self.add_variable(layer, name, (2,), False, first, _DRAWS, dtype=tf.int32)
        return {**super().build(tensor_shape, name, layer), GATES: gates, _DRAWS: draws}

    def gates(self, training: Any, weights: Variables) -> tf.Tensor | None:
        if not training:
            return drop_bits.settled_gates(self._gates(weights)) if self.learns_bits else None
        draws = weights[_DRAWS]
        seed = tf.convert_to_tensor(draws)
        draws.assign(seed + [0, 1])
        gates = drop_bits.random_gates(self._gates(weights), seed)
        # Activation grids may start with the first batch.
        return tf.where(seed[1] > 0, gates, tf.ones_like(gates))

    def grid_now(self, variables: Variables) -> GridTensors:
        plain = super().grid_now(variables)
        if not self.learns_bits:
            return plain
        lows, highs = (tf.constant(ends, tf.float32) for ends in zip(*self.ranges, strict=True))
        bits = drop_bits.settled_bits(self._gates(variables))
        place = bits - MIN_BITS

        def nearest(ratio: tf.Tensor) -> tf.Tensor:
            shape = [1] * len(ratio.shape)
            if self.by_channel:
                shape[lsq_functions.channel_axis(self.axis or 0, len(shape))] = -1
            ends = (tf.reshape(tf.gather(own, place), shape) for own in (lows, highs))
            return lsq_functions.nearest_codes(ratio, *ends)

        return GridTensors(plain.scale, self.qmin, self.qmax, self.axis, nearest, bits)

    def settle(self, variables: Variables, name: str) -> Grid:
        scale = self.settled_scale(variables, name)
        if not self.learns_bits:
            return super().settle(variables, name)
        bits = drop_bits.settled_bits(self._gates(variables)).numpy()
        own = tuple(bits.tolist()) if self.by_channel else None
        most = int(np.max(bits))
        return Grid(most, True, scale, *weight_code_range(most), self.axis, channel_bits=own)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "by_channel": self.by_channel,
            "learns_bits": self.learns_bits,
            "keep": self.keep,
            "gain": self.gain,
            "seed": self.seed,
        }

    def _gates(self, variables: Variables) -> tf.Tensor:
        """Log alpha of as many gates as the bits have: the variables can have more."""
        return self.gain * tf.convert_to_tensor(variables[GATES])[: self.bits - MIN_BITS]


@_compat.register
class CPQActivationQuantizer(LSQActivationQuantizer):
    """CPQ for an activation, one step and one width per tensor; started like LSQ's.

    An unsigned grid starts at 0 and includes the ReLU before it.

    Args:
        bits, signed, upper_limit, from_range, fixed: as for `UniformActivationQuantizer`.
        backward, width: as for `CPQWeightQuantizer`.
    """

    parameters = ("step", _WIDTH)

    def __init__(
        self,
        bits: int,
        signed: bool = False,
        upper_limit: float | None = None,
        from_range: bool = False,
        fixed: bool = False,
        *,
        backward: str = EXPECTED_VALUE,
        width: float = 1.0 / 3.0,
    ) -> None:
        super().__init__(bits, signed, upper_limit, from_range, fixed)
        self.backward, self.width = backward, width

    def add_parameters(self, layer: Any, name: str) -> Variables:
        start = tf.constant_initializer(math.log(self.width))
        own = self.add_variable(layer, name, (), not self.fixed, start, _WIDTH)
        return {**super().add_parameters(layer, name), _WIDTH: own}

    def start(self, estimate: tf.Tensor) -> tuple[Parameters, tf.Tensor]:
        return {"step": estimate, _WIDTH: tf.math.log(self.width * estimate)}, is_usable(estimate)

    def quantize(self, inputs: tf.Tensor, parameters: Parameters) -> tf.Tensor:
        return cpq_quantize(
            inputs if self.signed else tf.nn.relu(inputs),
            parameters["step"],
            parameters[_WIDTH],
            [(self.qmin, self.qmax)],
            backward=self.backward,
            grad_scale=self.gradient_factor(inputs),
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "backward": self.backward, "width": self.width}
