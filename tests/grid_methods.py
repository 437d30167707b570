"""A method of every grid that is not evenly spaced: a codebook, signs, bits or a codebook for each
channel.

Straight-through quantizers with LSQ's step, registered by the tests alone.
"""

import dataclasses

import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg.core.grid import Grid
from tfbinreg.methods import lsq_functions
from tfbinreg.methods.contract import GridTensors

LEVELS = {"codebook": (-4, -1, 0, 1, 4), "lopsided": (-2, 0, 1, 3), "sign": (-1, 1)}
BY_CHANNEL = ((-127, -43, 43, 127), (-5, 0, 3), (-1, 1), (0,))
KINDS = (*LEVELS, "channels", "codebooks")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """kind: one of `KINDS`."""

    kind: str = "codebook"


def channel_bits(channels, bits):
    """0, 1, 2 and `bits` in turn, from the last channel on."""
    return [(bits, 2, 1, 0)[(channels - 1 - channel) % 4] for channel in range(channels)]


def channel_levels(channels):
    """Those of `BY_CHANNEL` in turn, from the last channel on."""
    return [BY_CHANNEL[(channels - 1 - channel) % 4] for channel in range(channels)]


@keras.utils.register_keras_serializable(package="grid_methods")
class StraightThrough(tfbinreg.LSQWeightQuantizer):
    """q(w) = s * (the level nearest to w / s); its gradient for w is 1."""

    def __init__(self, bits, axis=None, kind="codebook"):
        super().__init__(bits, axis)
        self.kind, self.asked = kind, bits
        if kind in LEVELS:
            grid = Grid.codebook(LEVELS[kind], 1.0)
            self.bits, self.qmin, self.qmax = grid.bits, grid.qmin, grid.qmax
        if kind == "codebooks":
            self.bits, self.qmin, self.qmax = 2, -127, 127

    def build(self, tensor_shape, name, layer):
        variables = super().build(tensor_shape, name, layer)
        if self.kind == "channels":
            own = channel_bits(int(tensor_shape[self.axis]), self.bits)
            start = keras.initializers.Constant(own)
            variables["bits"] = self.add_variable(layer, name, (len(own),), False, start, "bits")
        return variables

    def grid_now(self, variables):
        scale, kind = self.scale(variables), self.kind

        def nearest(ratio):
            if kind in LEVELS:
                return lsq_functions.nearest_levels(ratio, LEVELS[kind])
            if kind == "codebooks":
                rows = tf.unstack(ratio, axis=self.axis)
                own = zip(rows, channel_levels(len(rows)), strict=True)
                codes = [lsq_functions.nearest_levels(row, levels) for row, levels in own]
                return tf.stack(codes, axis=self.axis)
            shape = [1] * len(ratio.shape)
            shape[self.axis] = -1
            bits = tf.reshape(variables["bits"], shape)
            half = tf.where(bits > 0.0, 2.0 ** (bits - 1.0), 0.0)
            codes = lsq_functions.nearest_codes(ratio, -half, tf.maximum(half - 1.0, 0.0))
            return tf.where(bits == 1.0, tf.where(ratio < 0.0, -1.0, 1.0), codes)

        return GridTensors(scale, self.qmin, self.qmax, self.axis, nearest)

    def settle(self, variables, name):
        scale = self.settled_scale(variables, name)
        if self.kind in LEVELS:
            return Grid.codebook(LEVELS[self.kind], scale, self.axis)
        if self.kind == "codebooks":
            return Grid.codebooks(channel_levels(scale.size), scale, self.axis)
        own = tuple(variables["bits"].numpy())
        return Grid(self.bits, True, scale, self.qmin, self.qmax, self.axis, channel_bits=own)

    def __call__(self, inputs, training, weights, **kwargs):
        grid = self.grid_now(weights)
        scale = grid.broadcast_scale(len(inputs.shape))
        return tf.grad_pass_through(grid.nearest)(inputs / scale) * scale

    def get_config(self):
        return {"bits": self.asked, "axis": self.axis, "kind": self.kind}


METHOD = tfbinreg.Method(
    name="straight_through",
    options=Options,
    weights=lambda spec, options: StraightThrough(spec.bits, spec.axis, options.kind),
    activations=lambda spec, options: tfbinreg.LSQActivationQuantizer(
        spec.bits, spec.signed, spec.upper_limit, spec.from_range, spec.fixed
    ),
)
