"""BSQ: the bits of each kernel are trained, and trimmed where a group lasso has emptied them.

Yang, Duan, Chen and Li, "BSQ: Exploring Bit-Level Sparsity for Mixed-Precision Neural Network
Quantization", ICLR 2021. The body of the paper could not be read; planes, gradients, penalty and
re-quantization are as in the authors' released code for CIFAR-10. Ours are: the scale as step times
a power of two, with which trimming changes no number; a penalty of exactly 0 where all planes are
0; 8 bits with the sign as the most there are, which int8 holds, where the code has 8 and the sign;
activations with learned steps in place of the code's range of each batch; biases, which are not
trained in planes; and LSQ's training on the grid that was found (Esser et al., ICLR 2020) in place
of the code's DoReFa-like one.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.core.warning import QuantizationWarning
from tfbinreg.methods.bsq_quantizers import BSQWeightQuantizer, plane_groups
from tfbinreg.methods.contract import (
    About,
    GridSpec,
    KernelBetweenEpochs,
    KernelSpec,
    KernelView,
    Method,
)
from tfbinreg.methods.lsq import LSQ, LsqOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class BsqOptions:
    """How strongly bits are penalized, and for how long.

    Attributes:
        strength: of the penalty. A `PenaltySchedule("bsq", ...)` can override it.
        every: epochs between two re-quantizations, counted from epoch 0.
        planes_until: fraction of the epochs of `fit` after which the bits are fixed and weights
            train on their grid; 1.0 for never.

    Raises:
        ValueError: for a value outside its range.
    """

    strength: float = 0.005
    every: int = 100
    planes_until: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.strength < math.inf:
            raise ValueError(f"strength must not be negative, got {self.strength!r}.")
        if not (type(self.every) is int and self.every > 0):
            raise ValueError(f"every must be a positive integer, got {self.every!r}.")
        if not 0.0 <= self.planes_until <= 1.0:
            raise ValueError(f"planes_until must be from 0 to 1, got {self.planes_until!r}.")


def bit_penalty(view: KernelView, options: BsqOptions) -> tf.Tensor:
    """The group lasso over a kernel's bits: N V / W * (the sum of the norms of its planes).

    N is the number of its live planes, V of its weights, W that of all kernels; see
    `plane_groups`. 0 once the planes are fixed.
    """
    planes = view.parameters["planes"]
    top = view.grid.rounded(tf.constant(float(view.grid.qmax)))  # 2^N - 1
    bits = tf.math.log(top + 1.0) / math.log(2.0)
    share = bits * float(np.prod(view.latent.shape)) / view.weights
    return share * plane_groups(planes)


def requantize_kernels(
    kernels: Sequence[KernelBetweenEpochs], epoch: int, options: BsqOptions
) -> None:
    """Re-quantize and trim every few epochs, for the last time when the planes become fixed.

    Kernels whose weights have all become 0 keep one plane, with a warning.

    Raises:
        ValueError: naming kernels that are not finite.
    """
    broken = [kernel.name for kernel in kernels if not np.all(np.isfinite(kernel.latent))]
    if broken:
        raise ValueError(
            f"The kernels of {', '.join(broken)} have NaN or infinite values: training diverged."
        )
    empty = []
    for kernel in kernels:
        quantizer, variables = kernel.quantizer, kernel.variables
        fix = kernel.progress >= options.planes_until
        if variables["fixed"].numpy() or not (fix or epoch % options.every == 0):
            continue
        weights = quantizer.requantize(variables, kernel.latent, fix)
        kernel.kernel.assign(weights)
        kernel.restart(mean_squares=False)
        if not np.any(weights):
            empty.append(kernel.name)
    if empty:
        warnings.warn(
            f"Every weight of {', '.join(empty)} is 0 at the bits that BSQ has come to: lower its "
            "strength, or leave these layers out of the model.",
            QuantizationWarning,
            stacklevel=2,
        )


def _weights(spec: KernelSpec, options: BsqOptions) -> BSQWeightQuantizer:
    return BSQWeightQuantizer(spec.bits, spec.axis, spec.start)


def _activations(spec: GridSpec, options: BsqOptions) -> Any:
    return LSQ.activations(spec, LsqOptions())  # type: ignore[misc]


BSQ = Method(
    name="bsq",
    options=BsqOptions,
    weights=_weights,
    activations=_activations,
    penalty=bit_penalty,
    strength=lambda options: options.strength,
    between_epochs=requantize_kernels,
    folds=False,
    pulls_to_levels=False,
    about=About(
        what="bits of each kernel found by a penalty on its bit planes, from the given bits down",
        trains="bit planes and scales, then weights",
        bits="2-8, found",
        granularity="kernel; scales of tensor or channel",
        paper="Yang et al. 2021",
    ),
)
