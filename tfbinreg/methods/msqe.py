"""MSQE: the mean squared quantization error of a kernel as a penalty.

Choi, El-Khamy and Lee, "Learning Low Precision Deep Neural Networks through Regularization",
arXiv 1809.00095, equation 3, as known from secondary sources: the paper's body was not read.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tfbinreg.methods.contract import About, KernelView, Method

# What is added to the error, in steps squared, before its logarithm: where weights lie a hundredth
# of a step from their levels, the learned strength has grown to half of what it can become.
ERROR_FLOOR = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True)
class MsqeOptions:
    """How the penalty is computed.

    Attributes:
        detach_step: whether the steps get no gradient from the penalty.
        scale_free: whether distances are divided by the step (no gradient through the divisor).
        learned_strength: whether the strength is the paper's learned one (`mean_squared_error`).
    """

    detach_step: bool = True
    scale_free: bool = False
    learned_strength: bool = False


def mean_squared_error(view: KernelView, options: MsqeOptions) -> tf.Tensor:
    """The mean squared distance of a kernel's weights from their levels, or its logarithm.

    With q the code of a weight w, s the step and N the number of weights:

        L      = (1 / N) sum (w - q s)^2
        dL/dw  = 2 (w - q s) / N
        dL/ds  = -(2 / N) sum q (w - q s),  0 with `detach_step`

    Codes are constants for the gradient. Bin regularization divides by the number of weights in
    each bin, this penalty by the number of all weights, so that sparse bins are not pulled more
    strongly.

    The paper trains E + a R - c log a, with the task's loss E, the error R and a learned strength
    a. `learned_strength` puts a where that is least for the present weights, a = c / R, so that it
    grows as the weights come nearer to their levels, and what is left of the objective is c log R.
    The strength of the penalty is then c, and

        L      = log(R / u + f)
        dL/dw  = 2 (w - q s) / (N (R + f u)),  so that a = c / (R + f u)

    in units of u, the mean squared step (a constant for the gradient; 1 with `scale_free`), with
    f = 1e-4, which bounds the pull. L may be negative. This is one reading of the paper: there the
    strength moves by gradient descent, and one serves the whole net; here each kernel has its own.
    """
    grid = view.grid
    scale = grid.broadcast_scale(len(view.latent.shape))
    constant = tf.stop_gradient(scale)
    if options.detach_step:
        scale = constant
    distance = view.latent - tf.stop_gradient(grid.codes(view.latent)) * scale
    if options.scale_free:
        distance /= constant
    error = grid.mean(tf.square(distance))
    if not options.learned_strength:
        return error
    unit = 1.0 if options.scale_free else grid.mean(tf.square(constant))
    return tf.math.log(error / unit + ERROR_FLOOR)


MSQE = Method(
    name="msqe",
    options=MsqeOptions,
    penalty=mean_squared_error,
    about=About(
        what="the mean squared distance from the level over all weights",
        trains="latent weights",
        bits="2-8",
        granularity="kernel",
        paper="Choi et al. 2018",
    ),
)
