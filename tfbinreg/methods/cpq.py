"""CPQ: the mode of a categorical distribution over the grid; DropBits; learned bits.

Lee, Yun, Hwang and Yang, "Cluster-Promoting Quantization with Bit-Drop for Minimizing Network
Quantization Loss", ICCV 2021 (arXiv 2109.02100). The body of the paper could not be read. The
implementation is a reading based on its abstract, a note on it and Relaxed Quantization (Louizos et
al., ICLR 2019), from which the distribution comes. Activations of more than 4 bits are LSQ's here:
among so many levels an expected value moves as the numbers do, at several times the cost.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.core.grid import MAX_BITS, MIN_BITS
from tfbinreg.methods import drop_bits
from tfbinreg.methods.contract import About, GridSpec, KernelSpec, KernelView, Method
from tfbinreg.methods.cpq_functions import EXPECTED_VALUE, MULTICLASS_STE
from tfbinreg.methods.cpq_quantizers import (
    GATES,
    CPQActivationQuantizer,
    CPQWeightQuantizer,
    DropBitsWeightQuantizer,
)
from tfbinreg.methods.lsq import LSQ, LsqOptions

LAYER, CHANNEL = "layer", "channel"
# With half a step an expected value is nearly straight through. Narrower ones gather weights at
# their levels, but with many levels that makes the step's gradient noise: it has the size of codes.
_FEW_BITS, _WIDE, _NARROW, _OF_CHOSEN = 4, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CpqOptions:
    """How gradients are computed, and what is dropped.

    Attributes:
        backward: "multiclass_ste" or "expected_value" (`cpq_quantize`), for weights.
        activation_backward: the same for activations, which are CPQ's up to 4 bits and LSQ's above.
        width: where the width of the kernels' distributions starts, in steps; None for 1/3 with
            "multiclass_ste", and with "expected_value" for 1/6 up to 4 bits and 1/2 above.
        activation_width: where the width for activations starts.
        drop_bits: whether bit levels of kernels are dropped at random in training (DropBits).
        keep: probability that the gate of a level is open at the start.
        gain: log alpha of a gate is the trained variable times this: Adam's steps have the size of
            the learning rate, and log alpha has to go from 0.6 to -2.4 until a gate is closed.
        most_bits: kernels with more bits have no gates, and kernels of 2 bits have no level to
            drop.
        strength: strength of the penalty, the expected number of open gates of a weight, on
            average. With 0 the loss alone trains the gates, and inference drops nothing. With any
            other strength, the bits of the open gates are learned and deployed.
        granularity: "layer" or "channel": what has its own gates and therefore its own bits.
            Channels with their own gates also have their own steps.
        seed: seed of the draws.

    Raises:
        ValueError: for a value outside its range, or a strength without `drop_bits`.
    """

    backward: str = EXPECTED_VALUE
    activation_backward: str = EXPECTED_VALUE
    width: float | None = None
    activation_width: float = 1.0 / 3.0
    drop_bits: bool = False
    keep: float = 0.9
    gain: float = 30.0
    most_bits: int = 4
    strength: float = 0.0
    granularity: str = LAYER
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in {
            "backward": (MULTICLASS_STE, EXPECTED_VALUE),
            "activation_backward": (MULTICLASS_STE, EXPECTED_VALUE),
            "granularity": (LAYER, CHANNEL),
        }.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be {' or '.join(map(repr, known))}, got {getattr(self, name)!r}."
                )
        for name in ("width", "activation_width", "gain"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be positive, got {value!r}.")
        if not 0.0 < self.keep < 1.0:
            raise ValueError(f"keep must lie between 0 and 1, got {self.keep!r}.")
        if not (type(self.most_bits) is int and MIN_BITS <= self.most_bits <= MAX_BITS):
            raise ValueError(f"most_bits must be from 2 to 8, got {self.most_bits!r}.")
        if not 0.0 <= self.strength < math.inf:
            raise ValueError(f"strength must be 0 or positive, got {self.strength!r}.")
        if self.strength and not self.drop_bits:
            raise ValueError("A strength needs drop_bits: without gates no bits are learned.")
        if type(self.seed) is not int:
            raise ValueError(f"seed must be an integer, got {self.seed!r}.")


def _width(bits: int, options: CpqOptions) -> float:
    """Where the width of a kernel starts, in steps."""
    if options.width is not None:
        return options.width
    if options.backward == MULTICLASS_STE:
        return _OF_CHOSEN
    return _NARROW if bits <= _FEW_BITS else _WIDE


def _weights(spec: KernelSpec, options: CpqOptions) -> CPQWeightQuantizer:
    own: dict[str, Any] = {"backward": options.backward, "width": _width(spec.bits, options)}
    if not (options.drop_bits and MIN_BITS < spec.bits <= options.most_bits):
        return CPQWeightQuantizer(spec.bits, spec.axis, spec.start, **own)
    by_channel = options.granularity == CHANNEL
    return DropBitsWeightQuantizer(
        spec.bits,
        spec.channel_axis if by_channel else spec.axis,
        spec.start,
        by_channel=by_channel,
        learns_bits=options.strength > 0.0,
        keep=options.keep,
        gain=options.gain,
        seed=options.seed,
        **own,
    )


def _activations(spec: GridSpec, options: CpqOptions) -> Any:
    if spec.bits > _FEW_BITS:
        return LSQ.activations(spec, LsqOptions())  # type: ignore[misc]
    return CPQActivationQuantizer(
        spec.bits,
        spec.signed,
        spec.upper_limit,
        spec.from_range,
        spec.fixed,
        backward=options.activation_backward,
        width=options.activation_width,
    )


def open_gates(view: KernelView, options: CpqOptions) -> tf.Tensor:
    """The expected number of open gates of a weight: the kernel's part of the mean over weights.

    With P(z > 0) of each gate of the kernel (`drop_bits.open_probability`), averaged over the
    channels if they have their own gates:

        L = (weights of the kernel / weights of all kernels) * sum over its gates of P(z > 0)

    Each gate counts by itself, as in the L0 penalty; how many levels there are also depends on the
    inner gates.
    """
    gates = view.parameters.get(GATES)
    if gates is None:
        return tf.constant(0.0)
    probability = drop_bits.open_probability(options.gain * gates)
    by_gate = tf.reshape(probability, (gates.shape[0], -1))
    share = float(np.prod(view.latent.shape)) / view.weights
    return share * tf.reduce_sum(tf.reduce_mean(by_gate, axis=1))


def _strength(options: Any) -> float:
    return options.strength


CPQ = Method(
    name="cpq",
    options=CpqOptions,
    weights=_weights,
    activations=_activations,
    penalty=open_gates,
    strength=_strength,
    pulls_to_levels=False,
    about=About(
        what="the mode of a distribution over the levels (CPQ); bits dropped or learned (DropBits)",
        trains="weights, steps, widths; bits",
        bits="2-8; learned from 2 on",
        granularity="tensor or channel",
        paper="Lee et al. 2021",
    ),
)
