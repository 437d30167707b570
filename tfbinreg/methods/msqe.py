"""MSQE: the mean squared quantization error of a kernel as a penalty.

Choi, El-Khamy and Lee, "Learning Low Precision Deep Neural Networks through Regularization",
arXiv 1809.00095, equation 3, as known from secondary sources. The paper learns the strength; here
it is given.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tfbinreg.methods.contract import KernelView, Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class MsqeOptions:
    """How the penalty is computed.

    Attributes:
        detach_step: whether the steps get no gradient from it.
    """

    detach_step: bool = True


def mean_squared_error(view: KernelView, options: MsqeOptions) -> tf.Tensor:
    """The mean squared distance of a kernel's weights from their levels.

    With q the code of a weight w, s the step and N the number of weights:

        L      = (1 / N) sum (w - q s)^2
        dL/dw  = 2 (w - q s) / N
        dL/ds  = -(2 / N) sum q (w - q s),  0 with `detach_step`

    Codes are constants for the gradient. Bin regularization divides by the weights of each bin,
    this by all weights, so that sparse bins are not pulled harder.
    """
    grid = view.grid
    scale = grid.broadcast_scale(len(view.latent.shape))
    if options.detach_step:
        scale = tf.stop_gradient(scale)
    codes = grid.codes(view.latent)
    return tf.reduce_mean(tf.square(view.latent - tf.stop_gradient(codes) * scale))


MSQE = Method(name="msqe", options=MsqeOptions, penalty=mean_squared_error)
