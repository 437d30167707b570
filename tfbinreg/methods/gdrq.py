"""GDRQ: thresholds taken from the mean of the numbers, which make the trained numbers uniform.

Yu et al., "Low-bit Quantization Needs Good Distribution", CVPRW 2020 (arXiv 1908.01477). The body
of the paper could not be read. The implementation is a reading based on its abstract, its figure 5
(which determines the step) and others' code and notes: Scale-Clip with T = k mean|x|, one threshold
per group of output channels, moving averages for activations. Known only from this package are the
range of grids of many bits, see `GDRQActivationQuantizer`, the ratios that "least_loss" tries, and
the use of T / (2^b - 1) for the step of unsigned activations.
"""

from __future__ import annotations

import dataclasses
import math

from tfbinreg.methods.contract import About, GridSpec, KernelSpec, Method
from tfbinreg.methods.gdrq_quantizers import (
    FORWARD,
    LATENT,
    LEAST_LOSS,
    SCALE_CLIP,
    GDRQActivationQuantizer,
    GDRQWeightQuantizer,
    group_problem,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GdrqOptions:
    """Where thresholds come from.

    Attributes:
        k_weights: threshold of a kernel in means of |w|. At 2 a uniform distribution does not
            change; below 2 the weights collapse towards zero, well above 2 they stay bell-shaped.
        k_activations: the same for an activation; zeros count in the mean.
        groups: how many groups of consecutive output channels a kernel has, each with its own
            threshold; 1 is per tensor, None follows `per_channel` of the recipe. A kernel with
            `per_channel` is not grouped.
        group_size: instead of `groups`, the channels in a group.
        alpha: for weights: "scale_clip" takes T = k mean|w| in each forward pass; "least_loss"
            takes the threshold of the least quantized loss, searched every `search_every` training
            passes.
        search_every: see `alpha`.
        clip: "forward" clips where weights are quantized; "latent" also clips the trained weights
            themselves after each step of the optimizer in `fit`.
        masked: whether weights beyond the threshold get no gradient.
        momentum: share of the newest batch in the moving averages of activations.

    Raises:
        ValueError: for a value outside its range, or both `groups` and `group_size`.
    """

    k_weights: float = 2.0
    k_activations: float = 6.0
    groups: int | None = None
    group_size: int | None = None
    alpha: str = SCALE_CLIP
    search_every: int = 100
    clip: str = FORWARD
    masked: bool = False
    momentum: float = 0.01

    def __post_init__(self) -> None:
        for name in ("k_weights", "k_activations"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}.")
        for name in ("groups", "group_size", "search_every"):
            value = getattr(self, name)
            if value is not None and not (type(value) is int and value > 0):
                raise ValueError(f"{name} must be a positive integer, got {value!r}.")
        if self.groups is not None and self.group_size is not None:
            raise ValueError("Give groups or group_size, not both.")
        for name, known in {
            "alpha": (SCALE_CLIP, LEAST_LOSS),
            "clip": (FORWARD, LATENT),
        }.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be {' or '.join(map(repr, known))}, got {getattr(self, name)!r}."
                )
        if not 0.0 < self.momentum <= 1.0:
            raise ValueError(f"momentum must be above 0 and at most 1, got {self.momentum!r}.")


def _weights(spec: KernelSpec, options: GdrqOptions) -> GDRQWeightQuantizer:
    grouped = spec.axis is None and (options.groups or 0) != 1
    grouped = grouped and (options.groups or options.group_size) is not None
    return GDRQWeightQuantizer(
        spec.bits,
        spec.channel_axis if grouped else spec.axis,
        groups=options.groups if grouped else None,
        group_size=options.group_size if grouped else None,
        k=options.k_weights,
        alpha=options.alpha,
        search_every=options.search_every,
        clip=options.clip,
        masked=options.masked,
    )


def _kernel_problem(spec: KernelSpec, options: GdrqOptions) -> str | None:
    """Why the channels of a kernel without per-channel thresholds cannot be grouped."""
    if spec.axis is not None:
        return None
    return group_problem(spec.channels, options.groups, options.group_size)


def _activations(spec: GridSpec, options: GdrqOptions) -> GDRQActivationQuantizer:
    return GDRQActivationQuantizer(
        spec.bits,
        spec.signed,
        spec.upper_limit,
        spec.from_range,
        spec.fixed,
        k=options.k_activations,
        momentum=options.momentum,
    )


GDRQ = Method(
    name="gdrq",
    options=GdrqOptions,
    weights=_weights,
    activations=_activations,
    kernel_problem=_kernel_problem,
    about=About(
        what="thresholds from the mean of the weights, searched or clipped in place on demand",
        trains="weights; thresholds are statistics",
        bits="2-8",
        granularity="tensor, channel or group of channels",
        paper="Yu et al. 2020",
    ),
)
