"""Grids that the runtime prescribes."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import Grid, stored_zero_point
from tfbinreg.methods import lsq_functions
from tfbinreg.methods.uniform import Variables


@_compat.register
class PrescribedQuantizer(_compat.Quantizer):
    """A grid the runtime prescribes (1/256 for a sigmoid); nothing is learned.

    Args:
        scale: the step.
        qmin: smallest code.
        qmax: largest code.
    """

    def __init__(self, scale: float, qmin: int, qmax: int) -> None:
        self.scale, self.qmin, self.qmax = float(scale), int(qmin), int(qmax)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        return {}

    def __call__(self, inputs: Any, training: Any, weights: Variables, **kwargs: Any) -> tf.Tensor:
        return lsq_functions.lsq_quantize(inputs, tf.constant(self.scale), self.qmin, self.qmax)

    def stored_grid(self, variables: Variables) -> tuple[tf.Tensor, tf.Tensor]:
        """As of the learned grids."""
        return tf.constant(self.scale), tf.constant(stored_zero_point(self.qmax))

    def settle(self, variables: Variables, name: str) -> Grid:
        return Grid(8, self.qmin < 0, np.array(self.scale), self.qmin, self.qmax)

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale, "qmin": self.qmin, "qmax": self.qmax}
