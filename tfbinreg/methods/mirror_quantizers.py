"""The projections of mirror descent as functions and a tfmot `Quantizer`; see `mirror_descent`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.grid import Grid
from tfbinreg.methods import lsq_functions
from tfbinreg.methods.contract import GridTensors, KernelStep
from tfbinreg.methods.lsq_quantizers import LSQWeightQuantizer
from tfbinreg.methods.uniform import Variables

TANH, SOFTMAX = "tanh", "softmax"
LEARNED, FIXED, ONE = "learned", "fixed", "one"
LEVELS = {1: (-1, 1), 2: (-1, 0, 1)}  # by bits
HARD = 0.0  # what the variable `beta` is once weights are codes


def project_tanh(dual: tf.Tensor, beta: tf.Tensor, levels: tuple[int, ...]) -> tf.Tensor:
    """Numbers between the outermost levels: tanh(beta u), or for three levels the mean of two,
    (tanh(beta (u + 1/2)) + tanh(beta (u - 1/2))) / 2. Nears the nearest level as beta grows."""
    if len(levels) == 2:
        return tf.tanh(beta * dual)
    return 0.5 * (tf.tanh(beta * (dual + 0.5)) + tf.tanh(beta * (dual - 0.5)))


def project_softmax(dual: tf.Tensor, beta: tf.Tensor, levels: tuple[int, ...]) -> tf.Tensor:
    """sum_k p_k level_k with p = softmax(beta dual) along the first axis."""
    shares = tf.nn.softmax(beta * dual, axis=0)
    return tf.tensordot(tf.constant(levels, dual.dtype), shares, 1)


def soft_quantize(
    latent: tf.Tensor, projected: tf.Tensor, scale: tf.Tensor, factor: float, others: Any
) -> tf.Tensor:
    """scale * projected, straight through to the latent weights.

    Gradients: dL/dlatent = dL/dq, the one at the projected weights applied to the dual ones
    unchanged, and dL/dscale = factor * sum(dL/dq * projected).

    Args:
        latent: float32.
        projected: of its shape.
        scale: broadcastable to it, of its rank or ().
        factor: of the scale's gradient.
        others: axes that share a scale, None for all.
    """

    @tf.custom_gradient
    def call(values: tf.Tensor, own: tf.Tensor) -> Any:
        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            keep = bool(own.shape.rank)
            total = tf.reduce_sum(upstream * projected, axis=others, keepdims=keep)
            return upstream, factor * total

        return own * projected, grad

    return call(latent, scale)


def dual_of(ratio: tf.Tensor, levels: tuple[int, ...]) -> tf.Tensor:
    """Dual numbers for `project_softmax`, (levels, ...): minus the squared distance from each
    level, so that the largest is that of the nearest; halved for two levels, where the share of the
    upper one is then sigmoid(2 ratio): the projection tanh(ratio)."""
    column = tf.reshape(tf.constant(levels, ratio.dtype), (-1, *[1] * len(ratio.shape)))
    distances = tf.square(tf.clip_by_value(ratio, -1.0, 1.0) - column)
    return -distances * (0.5 if len(levels) == 2 else 1.0)


@_compat.register
class MirrorWeightQuantizer(LSQWeightQuantizer):
    """Weights of one or two bits that start soft and end on their levels.

    The variable `beta`, saved with the model, is the sharpness of the projection, 0 once weights
    are codes, as they always are at inference. With "softmax" the variable `dual` holds a number
    for each level of each weight and is trained; the kernel follows it, as the level with the
    largest number times the scale.

    Args:
        bits: 1 for levels -1 and 1, 2 for -1, 0 and 1.
        axis: channel axis of the kernel for a scale per channel, None for one scale.
        form, stable, scaling, first_beta, last_beta, hard_from: as for `MirrorDescentOptions`.
    """

    acts_after_steps = True

    def __init__(
        self,
        bits: int,
        axis: int | None = None,
        *,
        form: str = TANH,
        stable: bool = True,
        scaling: str = LEARNED,
        first_beta: float = 1.0,
        last_beta: float = 2e4,
        hard_from: float = 0.9,
    ) -> None:
        if bits not in LEVELS:
            raise ValueError(f"Mirror descent has kernels of 1 and 2 bits, got {bits!r}.")
        self.bits, self.signed, self.axis = bits, True, axis
        self.qmin, self.qmax = -1, 1
        self._start = None
        self.form, self.stable, self.scaling = form, stable, scaling
        self.first_beta, self.last_beta, self.hard_from = first_beta, last_beta, hard_from

    @property
    def levels(self) -> tuple[int, ...]:
        """The available codes."""
        return LEVELS[self.bits]

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Variables:
        shape = tuple(int(size) for size in tensor_shape)
        channels = () if self.axis is None else (shape[self.axis],)
        trains = self.scaling == LEARNED
        variables = {"step": self.add_variable(layer, name, channels, trains)}
        first = _compat.keras.initializers.Constant(
            HARD if self.hard_from == 0.0 else self.first_beta
        )
        variables["beta"] = self.add_variable(layer, name, (), False, first, "beta")
        if self.form == SOFTMAX:
            duals = (len(self.levels), *shape)
            variables["dual"] = self.add_variable(layer, name, duals, True, "zeros", "dual")
            if not self.stable:
                variables["before"] = self.add_variable(
                    layer, name, duals, False, "zeros", "before"
                )
        return variables

    def start_from(self, variables: Variables, step: np.ndarray) -> None:
        if self.scaling != ONE:
            super().start_from(variables, step)

    def initialize(self, variables: Variables, kernel: np.ndarray, start: str = "mse") -> None:
        super().initialize(variables, kernel, start)
        if self.form == SOFTMAX:
            grid = self.grid_now(variables)
            dual = dual_of(tf.constant(kernel) / grid.broadcast_scale(kernel.ndim), self.levels)
            for name in ("dual", "before"):
                if name in variables:
                    variables[name].assign(dual)

    def grid_now(self, variables: Variables) -> GridTensors:
        nearest = None
        if self.bits == 1:
            nearest = _signs
        return GridTensors(self.scale(variables), -1, 1, self.axis, nearest, self.bits)

    def settle(self, variables: Variables, name: str) -> Grid:
        scale = self.settled_scale(variables, name)
        if self.bits == 1:
            return Grid.codebook(self.levels, scale, self.axis)
        return Grid(self.bits, True, scale, -1, 1, self.axis)

    def __call__(self, inputs: Any, training: Any, weights: Variables, **kwargs: Any) -> tf.Tensor:
        inputs = tf.convert_to_tensor(inputs)
        values = tf.cast(inputs, tf.float32)
        grid = self.grid_now(weights)
        scale = grid.broadcast_scale(len(values.shape))
        codes = tf.stop_gradient(grid.codes(values))
        beta = tf.convert_to_tensor(weights["beta"])
        latent, projected = values, codes
        if training and self.form == TANH:
            projected = self._where_soft(beta, project_tanh, values / scale, codes)
        elif training:
            dual = tf.convert_to_tensor(weights["dual"])
            projected = self._where_soft(beta, project_softmax, dual, codes)
            # Only its gradient is used: that of all levels, and 0 for the kernel.
            latent = tf.tensordot(tf.constant(self.levels, tf.float32), dual, 1)
            latent = latent * tf.stop_gradient(scale) + 0.0 * values
        count = values.shape.num_elements() // (scale.shape.num_elements() or 1)
        factor = lsq_functions.gradient_scale(count, 1)
        others = lsq_functions.other_axes(self.axis, len(values.shape))
        quantized = soft_quantize(latent, tf.stop_gradient(projected), scale, factor, others)
        return tf.cast(quantized, inputs.dtype)

    def _where_soft(
        self, beta: tf.Tensor, project: Any, dual: tf.Tensor, codes: tf.Tensor
    ) -> tf.Tensor:
        sharpness = beta if self.stable else tf.ones_like(beta)
        return tf.where(beta > HARD, project(dual, sharpness, self.levels), codes)

    def after_step(self, step: KernelStep) -> tf.Tensor:
        """Update the duals, and sharpen the projection."""
        beta = tf.convert_to_tensor(step.variables["beta"])
        kernel = step.kernel
        if self.form == SOFTMAX:
            kernel = self._follow(step, beta)
        elif not self.stable:
            faster = step.before + beta * (step.kernel - step.before)
            kernel = tf.where(beta > HARD, faster, step.kernel)
        step.variables["beta"].assign(self.beta_at(step.progress))
        return kernel

    def beta_at(self, progress: Any) -> tf.Tensor:
        """The sharpness at a point of the training, float32, ()."""
        if self.hard_from == 0.0:
            return tf.constant(HARD)
        part = progress / self.hard_from
        soft = self.first_beta * (self.last_beta / self.first_beta) ** part
        return tf.where(progress >= self.hard_from, HARD, soft)

    def _follow(self, step: KernelStep, beta: tf.Tensor) -> tf.Tensor:
        """The kernel that the duals represent."""
        dual = tf.convert_to_tensor(step.variables["dual"])
        if not self.stable:
            before = step.variables["before"]
            dual = tf.where(beta > HARD, before + beta * (dual - before), dual)
            dual -= tf.reduce_logsumexp(dual, axis=0)  # shares add up to 1
            step.variables["dual"].assign(dual)
            before.assign(dual)
        codes = tf.gather(tf.constant(self.levels, tf.float32), tf.argmax(dual, axis=0))
        level = codes * step.grid.broadcast_scale(len(codes.shape))
        # A factor of 0 hides the kernel: any number will do.
        return tf.math.divide_no_nan(level, step.factor)

    def get_config(self) -> dict[str, Any]:
        names = ("form", "stable", "scaling", "first_beta", "last_beta", "hard_from")
        own = {name: getattr(self, name) for name in names}
        return {"bits": self.bits, "axis": self.axis, **own}


def _signs(ratio: tf.Tensor) -> tf.Tensor:
    return lsq_functions.nearest_levels(ratio, LEVELS[1])
