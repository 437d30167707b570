"""LSQ+: a learned offset in addition to the learned step.

Bhalgat et al., "LSQ+: Improving low-bit quantization through learnable offsets and better
initialization", CVPRW 2020 (arXiv 2004.09576).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import Grid
from tfbinreg.methods import lsq_functions
from tfbinreg.methods.contract import GridTensors
from tfbinreg.methods.lsq_quantizers import LSQActivationQuantizer
from tfbinreg.methods.uniform import Parameters, Variables, is_usable


@_compat.register
class LSQPlusActivationQuantizer(LSQActivationQuantizer):
    """LSQ+ for an activation: it also learns an offset, for swish-like outputs.

    Starts from the range of the data (arXiv 2004.09576, section 3.3, min-max): the step is
    (max - min) / (2^b - 1) and the offset the minimum, both with zero inside the range.

    Args:
        bits: 2 to 8.
    """

    parameters = ("step", "offset")

    def __init__(self, bits: int) -> None:
        super().__init__(bits, signed=True, from_range=True)
        self.qmin, self.qmax = 0, 2**self.bits - 1  # before the zero point is taken off

    def add_parameters(self, layer: Any, name: str) -> Variables:
        step = super().add_parameters(layer, name)
        offset = self.add_variable(layer, name, what="offset", initializer="zeros")
        return {**step, "offset": offset}

    def quantize(self, inputs: tf.Tensor, parameters: Parameters) -> tf.Tensor:
        step, offset = parameters["step"], parameters["offset"]
        factor = self.gradient_factor(inputs)
        return lsq_functions.lsq_plus_quantize(inputs, step, offset, self.bits, factor)

    def grid_now(self, variables: Variables) -> GridTensors:
        step = self.scale(variables)
        zero_point = lsq_functions.effective_zero_point(step, variables["offset"], self.bits)
        return GridTensors(step, -zero_point, self.qmax - zero_point)

    def observe(self, inputs: tf.Tensor) -> tf.Tensor:
        """How far one batch extends below and above zero, shape (2,)."""
        values = tf.cast(inputs, tf.float32)
        reach = [-tf.reduce_min(values), tf.reduce_max(values)]
        return tf.maximum(tf.stack(reach), 0.0)

    def start(self, estimate: tf.Tensor) -> tuple[Parameters, tf.Tensor]:
        step = (estimate[0] + estimate[1]) / self.qmax
        return {"step": step, "offset": -estimate[0]}, is_usable(step)

    def covered(self, parameters: Parameters) -> tf.Tensor:
        below = -tf.convert_to_tensor(parameters["offset"])
        span = tf.convert_to_tensor(parameters["step"]) * self.qmax
        return tf.stack([below, span - below])

    def spanning(self, low: Any, high: Any) -> Any:
        return np.stack([-low, high])

    def settle(self, variables: Variables, name: str) -> Grid:
        grid = super().settle(variables, name)
        offset = variables["offset"]
        if not np.isfinite(offset.numpy()):
            raise ValueError(f"The offset of {name!r} is not finite: training diverged.")
        zero_point = int(lsq_functions.effective_zero_point(grid.scale, offset, self.bits))
        return dataclasses.replace(grid, qmin=-zero_point, qmax=self.qmax - zero_point)

    def get_config(self) -> dict[str, Any]:
        return {"bits": self.bits}
