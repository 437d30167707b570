"""Oscillation dampening: a pull onto the levels that does not affect clipped weights.

Nagel et al., "Overcoming Oscillations in Quantization-Aware Training", ICML 2022 (arXiv
2203.11086), section 4.1; the reduction is that of the authors' code.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tfbinreg.methods.contract import About, KernelView, Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class DampeningOptions:
    """Dampening has no options."""


def dampening(view: KernelView, options: DampeningOptions) -> tf.Tensor:
    """The squared distances of weights from their levels: channel means, summed.

    With q the code of a weight w, s the step, [n, p] the codes' range, C output channels (of a
    depthwise kernel: channels times multiplier) and N weights:

        L      = (C / N) sum (q s - clip(w, n s, p s))^2
        dL/dw  = (2 C / N) (w - q s),  0 beyond n s and p s
        dL/ds  = 0: levels and limits are constants

    The paper raises the strength by a cosine from 0 at a quarter of the training to 0.1 at its end:
    `PenaltySchedule("dampening", "cosine", strength=0.1)`.
    """
    grid = view.grid
    scale = tf.stop_gradient(grid.broadcast_scale(len(view.latent.shape)))
    level = tf.stop_gradient(grid.codes(view.latent)) * scale
    # Codes of the outermost levels: a channel may have fewer than the grid.
    ends = [
        tf.ones_like(view.latent) * tf.cast(code, tf.float32) for code in (grid.qmin, grid.qmax)
    ]
    lowest, highest = (grid.rounded(end) * scale for end in ends)
    clipped = tf.clip_by_value(view.latent, lowest, highest)
    return tf.reduce_mean(tf.square(level - clipped)) * view.channels


DAMPENING = Method(
    name="dampening",
    options=DampeningOptions,
    penalty=dampening,
    about=About(
        what="the same, summed over channels, which leaves clipped weights alone",
        trains="latent weights",
        bits="2-8",
        granularity="channel",
        paper="Nagel et al. 2022",
    ),
)
