"""LSQ: steps learned by their own gradient; the default method.

Esser et al., "Learned Step Size Quantization", ICLR 2020 (arXiv 1902.08153): `lsq_functions` has
the formula and its gradient. Activations that extend far on the positive side only also get a
learned offset (LSQ+, `lsq_plus`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfbinreg.methods.contract import About, GridSpec, KernelSpec, Method
from tfbinreg.methods.lsq_plus import LSQPlusActivationQuantizer
from tfbinreg.methods.lsq_quantizers import LSQActivationQuantizer, LSQWeightQuantizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class LsqOptions:
    """LSQ has no options."""


def _weights(spec: KernelSpec, options: LsqOptions) -> Any:
    return LSQWeightQuantizer(spec.channel_bits or spec.bits, spec.axis, spec.start)


def _activations(spec: GridSpec, options: LsqOptions) -> Any:
    if spec.offset:
        return LSQPlusActivationQuantizer(spec.bits)
    return LSQActivationQuantizer(
        spec.bits, spec.signed, spec.upper_limit, spec.from_range, spec.fixed
    )


LSQ = Method(
    name="lsq",
    options=LsqOptions,
    weights=_weights,
    activations=_activations,
    kernel_bits=range(1, 9),
    channel_bits=range(9),
    about=About(
        what="learned steps (LSQ), and offsets (LSQ+) for lopsided activations; the default",
        trains="weights, steps, offsets",
        bits="1-8; per channel 0-8",
        granularity="tensor or channel",
        paper="Esser et al. 2020; Bhalgat et al. 2020",
    ),
)
