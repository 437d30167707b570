"""ALQ: kernels as sums of a few signed coordinates, without underlying float weights.

Qu, Zhou, Cheng and Thiele, "Adaptive Loss-aware Quantization for Multi-bit Networks", CVPR 2020.
The body of the paper could not be read: the mathematics of the method follow the authors' released
code. Two things are done differently here, as they must be intended: importances are taken of the
remaining coordinates, and a negative coordinate reverses its basis. Of the paper's groups only
output channels are supported, which files have scales for. The paper prunes at every step of a
separate epoch; here a round's coordinates are pruned at once, between epochs. Activations are float
there and LSQ's here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfbinreg.core.grid import MAX_BITS
from tfbinreg.methods.alq_quantizers import (
    BASES,
    COORDINATES,
    MOST_BITS,
    STRAIGHT_THROUGH,
    ALQWeightQuantizer,
)
from tfbinreg.methods.alq_sketch import importance, least_important
from tfbinreg.methods.contract import About, GridSpec, KernelBetweenEpochs, KernelSpec, Method
from tfbinreg.methods.lsq import LSQ, LsqOptions
from tfbinreg.methods.lsq_quantizers import LSQWeightQuantizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlqOptions:
    """How bases and coordinates alternate, and how many coordinates are pruned.

    Attributes:
        basis_epochs: epochs of a round in which bases are optimized and coordinates solved for.
        coordinate_epochs: the epochs of a round after those, in which the optimizer moves the
            coordinates.
        rounds: number of rounds; coordinates are pruned before each of the epochs that follow them.
        pruned: share of all coordinates that are pruned after the last round; the same number is
            pruned after each.
        shortlist: the largest share of its remaining coordinates that a layer loses at once.
        straight_through: after the rounds, weights stay where the optimizer moves them, and levels
            follow. False continues with rounds without pruning.

    Raises:
        ValueError: for a value outside its range.
    """

    basis_epochs: int = 2
    coordinate_epochs: int = 1
    rounds: int = 5
    pruned: float = 0.0
    shortlist: float = 0.5
    straight_through: bool = False

    def __post_init__(self) -> None:
        for name, least in {"basis_epochs": 1, "coordinate_epochs": 0, "rounds": 0}.items():
            value = getattr(self, name)
            if not (type(value) is int and value >= least):
                raise ValueError(f"{name} must be a whole number from {least}, got {value!r}.")
        for name in ("pruned", "shortlist"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be from 0 to below 1, got {getattr(self, name)!r}.")
        if type(self.straight_through) is not bool:
            raise ValueError(
                f"straight_through must be True or False, got {self.straight_through!r}."
            )


def phase(epoch: int, options: AlqOptions) -> int:
    """What the steps of an epoch, counted from 0, move: one of the phases of the quantizer."""
    rounds, place = divmod(epoch, options.basis_epochs + options.coordinate_epochs)
    if options.straight_through and rounds >= options.rounds:
        return STRAIGHT_THROUGH
    return BASES if place < options.basis_epochs else COORDINATES


def pruned_by(epoch: int, options: AlqOptions) -> float:
    """The target share of pruned coordinates when an epoch begins; 0 within a round."""
    rounds, place = divmod(epoch, options.basis_epochs + options.coordinate_epochs)
    if place or not 0 < rounds <= options.rounds:
        return 0.0
    return options.pruned * rounds / options.rounds


def between_epochs(kernels: Sequence[KernelBetweenEpochs], epoch: int, options: AlqOptions) -> None:
    """Prune the least important coordinates of all kernels together, and begin a phase.

    Raises:
        ValueError: for an optimizer that keeps no mean squares of gradients.
    """
    own = [kernel for kernel in kernels if isinstance(kernel.quantizer, ALQWeightQuantizer)]
    if own:
        own[0].curvature()  # which the steps need, and not all optimizers have
    if share := pruned_by(epoch, options):
        _prune(own, share, options.shortlist)
    for kernel in own:
        kernel.quantizer.begin(kernel.variables, phase(epoch, options))


def _prune(kernels: Sequence[KernelBetweenEpochs], share: float, shortlist: float) -> None:
    coordinates = [kernel.variables["coordinates"].numpy() for kernel in kernels]
    live = [own != 0.0 for own in coordinates]
    worth = [
        importance(own, kernel.variables["pull"].numpy(), kernel.variables["stiffness"].numpy())
        for own, kernel in zip(coordinates, kernels, strict=True)
    ]
    wanted = round(share * sum(own.size for own in coordinates))
    gone = sum(int(np.count_nonzero(~left)) for left in live)
    masks = least_important(worth, live, wanted - gone, shortlist)
    for kernel, mask in zip(kernels, masks, strict=True):
        kernel.quantizer.prune(kernel.variables, mask)


def _weights(spec: KernelSpec, options: AlqOptions) -> Any:
    """ALQ's quantizer; LSQ's at 8 bits, where every int8 value is a level already."""
    if spec.bits > MOST_BITS:
        return LSQWeightQuantizer(spec.bits, spec.axis, spec.start)
    axis = spec.channel_axis if spec.axis is None else spec.axis
    if axis is None:
        raise ValueError("ALQ groups the weights of a channel, and this kernel has no such axis.")
    bits = spec.channel_bits or spec.bits
    return ALQWeightQuantizer(bits, axis, options.pruned > 0.0, spec.start)


def _activations(spec: GridSpec, options: AlqOptions) -> Any:
    return LSQ.activations(spec, LsqOptions())  # type: ignore[misc]


ALQ = Method(
    name="alq",
    options=AlqOptions,
    weights=_weights,
    kernel_bits=range(1, MAX_BITS + 1),
    channel_bits=range(MOST_BITS + 1),
    activations=_activations,
    between_epochs=between_epochs,
    about=About(
        what="kernels as sums of coordinates with signs, solved for after each step; pruned",
        trains="signs and coordinates; no float weights",
        bits="1-7; per channel 0-7",
        granularity="channel",
        paper="Qu et al. 2020",
    ),
)
