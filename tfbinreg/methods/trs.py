"""TRS: the share of weights that change their codes in a step follows a schedule.

Lee et al., "Scheduling Weight Transitions for Quantization-Aware Training", ICCV 2025 (arXiv
2404.19248), section 3.3. The learning rate says little about how many codes change: few weights lie
near the edge of a bin, and those that do change by a whole level. So the rate of the weights is
controlled by the counted changes. Two things differ from the paper, because the method works with
any quantizer and optimizer here: levels keep their learned scale, which the paper absorbs into
normalizations, and the optimizer's step is scaled as a whole, with its weight decay.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

from tfbinreg.methods.contract import About, KernelStep, Method, State

_STARTS = {"share": 0.0, "own_rate": -1.0, "gain": 0.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrsOptions:
    """How many codes should change.

    Attributes:
        rate: the paper's lambda: at the start, rate * sqrt(bits) of a kernel's codes should change
            in a step. From there the share falls to 0 as half a cosine over the training.
        momentum: momentum of the moving average of the share that did change.
        gain: eta, how far the weights' rate moves per difference of the shares; 0 takes the
            learning rate of the first step.
        hold_steps: whether the kernels' steps stay fixed, which is closer to the paper, where
            normalizations learn the scale. Learned steps were better by five points at W2A2.
        most_bits: kernels, and channels, with more bits are left to the optimizer.

    Raises:
        ValueError: for a number outside its range.
    """

    rate: float = 0.005
    momentum: float = 0.99
    gain: float = 0.0
    hold_steps: bool = False
    most_bits: int = 4

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"rate must be between 0 and 1, got {self.rate!r}.")
        if not 0.0 <= self.momentum < 1.0:
            raise ValueError(f"momentum must be at least 0 and below 1, got {self.momentum!r}.")
        if not 0.0 <= self.gain < math.inf:
            raise ValueError(f"gain must not be negative, got {self.gain!r}.")
        if not 2 <= self.most_bits <= 8:
            raise ValueError(f"most_bits must be from 2 to 8, got {self.most_bits!r}.")


def schedule_transitions(
    step: KernelStep, state: State, options: TrsOptions
) -> tuple[tf.Tensor, State]:
    """Scale the optimizer's step of a kernel so that the target share of its codes changes.

    With b the bits and p the progress of training:

        w  = w' + (U / learning rate) (w - w')  with w' before the step of the optimizer, w after it
        k  = the share of codes that this has changed
        K <- momentum K + (1 - momentum) k
        R  = rate sqrt(b) (1 + cos(pi p)) / 2
        U <- max(0, U + gain (R - K))           for the next step; it starts at the learning rate

    For a kernel whose channels have their own bits, sqrt(b) is a mean over its weights. Channels
    with more bits than `most_bits` are left to the optimizer; these and pruned channels do not
    count.

    Args:
        step: what the optimizer did.
        state: `share` K, `own_rate` U (negative before the first step) and `gain`; float32, ().
        options: see `TrsOptions`.
    """
    first = state["own_rate"] < 0.0
    own_rate = tf.where(first, step.rate, state["own_rate"])
    gain = tf.where(first, options.gain or step.rate, state["gain"])
    factor = tf.math.divide_no_nan(own_rate, step.rate)
    factor = tf.where(step.bits <= options.most_bits, factor, 1.0)
    scaled = step.before + factor * (step.kernel - step.before)
    kernel = tf.where(tf.equal(factor, 1.0), step.kernel, scaled)
    changed = tf.cast(tf.not_equal(step.codes_of(kernel), step.codes_before), tf.float32)
    share = options.momentum * state["share"]
    share += (1.0 - options.momentum) * step.grid.mean(changed, options.most_bits)
    root = step.grid.mean(tf.sqrt(step.bits), options.most_bits)
    wanted = options.rate * root * 0.5 * (1.0 + tf.cos(math.pi * step.progress))
    own_rate = tf.maximum(0.0, own_rate + gain * (wanted - share))
    return kernel, {"share": share, "own_rate": own_rate, "gain": gain}


def _state(shape: tuple[int, ...], options: TrsOptions) -> State:
    return {name: np.float32(start) for name, start in _STARTS.items()}


TRS = Method(
    name="trs",
    options=TrsOptions,
    update=schedule_transitions,
    state=_state,
    holds_steps=lambda options: options.hold_steps,
    about=About(
        what="the share of codes that change in a step follows a schedule (TRS)",
        trains="the weights' rate",
        bits="2-4",
        granularity="kernel",
        paper="Lee et al. 2025",
    ),
)
