"""KURE: the kurtosis of a kernel's weights as a penalty.

Shkolnik, Chmiel et al., "Robust Quantization: One Model to Rule Them All", NeurIPS 2020, equations
14 and 15, as known from a reading of them and from the authors' code, not from the paper's body.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from tfbinreg.methods.contract import About, KernelView, Method

# A standard deviation below this part of the root mean square is a constant kernel's rounding.
_CONSTANT = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class KureOptions:
    """How the penalty is computed.

    Attributes:
        target: the kurtosis with zero penalty, above 1, the smallest possible one. 1.8 is that of a
            uniform distribution, which is least sensitive to the step it is quantized with.
    """

    target: float = 1.8

    def __post_init__(self) -> None:
        if not 1.0 < self.target < math.inf:
            raise ValueError(f"The target of kure must be a number above 1, got {self.target!r}.")


def kurtosis_error(view: KernelView, options: KureOptions) -> tf.Tensor:
    """The squared distance of a kernel's kurtosis from the target, over the number of kernels.

    With N weights of mean m and standard deviation d, z = (w - m) / d, and L kernels:

        K      = (1 / N) sum z^4
        L      = (K - target)^2 / L
        dK/dw  = (4 / N d) (z^3 - mean(z^3) - K z)

    The sum over the kernels is the paper's mean over the layers, so that a strength of 1 is the
    paper's. Kernels with a penalty weight of 0 are not counted; first and last layers are left out
    in this way, as in the paper. d divides by N; the authors' code by N - 1, which makes K smaller
    by (1 - 1 / N)^2. A kernel has one kurtosis, even with a step per channel; weights of pruned
    channels do not count. The kurtosis of a constant kernel is not defined: it adds nothing.

    It spreads weights evenly, while bin regularization, dampening and msqe gather them at levels:
    the paper uses it before quantization. If they are combined, they work against each other.
    """
    mean = view.grid.mean
    centred = view.latent - mean(view.latent)
    variance = mean(tf.square(centred))
    varies = variance > _CONSTANT**2 * mean(tf.square(view.latent))
    # Chosen before the division: NaN times 0 is NaN in a gradient.
    deviation = tf.sqrt(tf.where(varies, variance, 1.0))
    kurtosis = mean((tf.where(varies, centred, 0.0) / deviation) ** 4)
    error = tf.square(kurtosis - options.target) / view.kernels
    return tf.where(varies, error, 0.0)


KURE = Method(
    name="kure",
    options=KureOptions,
    penalty=kurtosis_error,
    pulls_to_levels=False,
    about=About(
        what="the squared distance of the kurtosis from that of uniform weights, for robustness",
        trains="latent weights",
        bits="2-8",
        granularity="kernel",
        paper="Shkolnik et al. 2020",
    ),
)
