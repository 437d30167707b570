"""Mirror descent: weights of one or two bits from soft ones whose projection sharpens.

Ajanthan, Gupta, Torr, Hartley and Dokania, "Mirror Descent View for Neural Network Quantization",
AISTATS 2021 (arXiv 1910.08237). The body of the paper could not be read: the projections, the
updates and the rates of the sharpening are those of the authors' released code. Scales, the start
from a trained net, the last part of the training with hard weights and the optimizer's freedom are
this package's own; in the paper nothing has a scale, biases are also quantized, activations are
float, and training starts from random weights.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tfbinreg.core.grid import MAX_BITS
from tfbinreg.methods.contract import About, KernelSpec, Method
from tfbinreg.methods.lsq import LSQ, LsqOptions
from tfbinreg.methods.mirror_quantizers import (
    FIXED,
    LEARNED,
    LEVELS,
    ONE,
    SOFTMAX,
    TANH,
    MirrorWeightQuantizer,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MirrorDescentOptions:
    """How kernels of one and two bits are trained; kernels of more bits use LSQ.

    With the weights w, their scale s, the loss L and the sharpness beta, the layer computes with

        q  = s P(w / s)         P(u) = tanh(beta u)                                        1 bit
                                P(u) = (tanh(beta (u + 1/2)) + tanh(beta (u - 1/2))) / 2   2 bits
        w <- w - rate * (the optimizer's direction for dL/dq)

    or, with a number v_k for each level l_k of a weight,

        q  = s sum_k p_k l_k    p = softmax(beta v)
        v <- v - rate * (the optimizer's direction for s l_k dL/dq)

    That is dual ascent: gradients at the projected weights move the dual ones. Without `stable` it
    is the update in closed form, w <- P(P^-1(w) - beta rate ghat) with the direction ghat, kept
    as its dual u = P^-1(w) at a sharpness of 1, which never overflows: u <- u - beta rate ghat.

    Attributes:
        form: "tanh" or "softmax".
        stable: whether beta sharpens the projection; otherwise it lengthens the steps.
        scaling: "learned" trains the scale as LSQ does, "fixed" leaves it where calibration starts
            it, "one" is the paper's scale of 1: a normalization has to follow.
        first_beta: sharpness at the start; 1 is the paper's.
        last_beta: sharpness at the end, reached at equal ratios. 2e4 is the paper's 1.02 for each
            200 of 100,000 steps.
        hard_from: the fraction of the training after which weights are their codes and gradients
            pass straight through, so that normalizations and steps adapt to what is deployed.

    Raises:
        ValueError: for a value outside its range.
    """

    form: str = TANH
    stable: bool = True
    scaling: str = LEARNED
    first_beta: float = 1.0
    last_beta: float = 2e4
    hard_from: float = 0.9

    def __post_init__(self) -> None:
        known = {"form": (TANH, SOFTMAX), "scaling": (LEARNED, FIXED, ONE)}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"{name} must be {' or '.join(map(repr, values))}, got {getattr(self, name)!r}."
                )
        if not 0.0 < self.first_beta <= self.last_beta < math.inf:
            raise ValueError(
                "betas must be positive, and the last not below the first, got "
                f"{self.first_beta!r} and {self.last_beta!r}."
            )
        if not 0.0 <= self.hard_from <= 1.0:
            raise ValueError(f"hard_from must be from 0 to 1, got {self.hard_from!r}.")


def _weights(spec: KernelSpec, options: MirrorDescentOptions) -> Any:
    if spec.bits not in LEVELS:
        return LSQ.weights(spec, LsqOptions()) if LSQ.weights else None
    return MirrorWeightQuantizer(spec.bits, spec.axis, **dataclasses.asdict(options))


def _kernel_problem(spec: KernelSpec, options: MirrorDescentOptions) -> str | None:
    if spec.bits == 2 and options.form == TANH and not options.stable:
        return (
            "mirror descent with tanh draws nothing to a level between two others unless beta "
            "sharpens the projection: set stable=True, or form='softmax'"
        )
    return None


MIRROR_DESCENT = Method(
    name="mirror_descent",
    options=MirrorDescentOptions,
    weights=_weights,
    kernel_bits=range(1, MAX_BITS + 1),
    kernel_problem=_kernel_problem,
    activations=LSQ.activations,
    about=About(
        what="signs or ternary weights from soft ones whose projection sharpens (MD)",
        trains="dual weights, scales",
        bits="1, 2 (ternary); LSQ above",
        granularity="tensor or channel",
        paper="Ajanthan et al. 2021",
    ),
)
