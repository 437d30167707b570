"""The parts of a method.

A method is a value that consists of functions, in one file of this room, listed in `roster`. Adding
one changes nothing else in the package.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from tfbinreg.core.grid import MAX_BITS, MIN_BITS, WeightBits, widest
from tfbinreg.methods.lsq_functions import nearest_codes
from tfbinreg.methods.solver_view import Solved, SolverView

_ROUNDING = 1e-4  # of a logarithm
# Of a default, of the values an option may have then, and their name; bool comes before int.
_OPTION_TYPES: tuple[tuple[type, Any, str], ...] = (
    (bool, bool, "True or False"),
    (int, int, "a whole number"),
    (float, (int, float), "a number"),
    (str, str, "a string"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class GridTensors:
    """A grid as learned so far, inside a graph: levels are code * scale.

    Attributes:
        scale: float32, positive, () or (channels,).
        qmin: smallest code that any channel may get; an int for weights, otherwise it can be a
            scalar tensor. Where training finds the bits, the smallest code that can result.
        qmax: largest code.
        axis: channel axis of the tensor for a scale per channel; None for one scale.
        nearest: tensor / scale -> nearest codes, both float32, if the codes are not all from `qmin`
            to `qmax`: for a codebook (`lsq_functions.nearest_levels`) or for channels with their
            own bits.
        bits: bits of the codes as learned so far, if `qmin` and `qmax` do not determine them: one
            number, or one for each channel along `axis`, 0 for a pruned channel.
    """

    scale: tf.Tensor
    qmin: Any
    qmax: Any
    axis: int | None = None
    nearest: Callable[[tf.Tensor], tf.Tensor] | None = None
    bits: Any = None

    def broadcast_scale(self, rank: int) -> tf.Tensor:
        """The scale, shaped to broadcast to a tensor of `rank` dimensions."""
        return self._broadcast(self.scale, rank)

    def broadcast_bits(self, rank: int) -> tf.Tensor:
        """The bits of the codes, in the same shape, float32: 0 where channels are pruned."""
        return self._broadcast(self._own_bits(), rank)

    def share(self, most_bits: int = MAX_BITS) -> tf.Tensor:
        """The share of weights that are not pruned and have at most `most_bits`, float32, ()."""
        return tf.reduce_mean(_counts(self._own_bits(), most_bits))

    def mean(self, values: tf.Tensor, most_bits: int = MAX_BITS) -> tf.Tensor:
        """The mean over the weights that `share` counts, float32, (); 0 if there are none.

        Args:
            values: one for each weight, float32, or broadcastable to that shape.
            most_bits: see `share`.
        """
        counts = _counts(self.broadcast_bits(len(values.shape)), most_bits)
        if self._own_bits().shape.rank:
            return tf.math.divide_no_nan(tf.reduce_mean(values * counts), self.share(most_bits))
        return tf.where(counts > 0.0, tf.reduce_mean(values), 0.0)

    def _own_bits(self) -> tf.Tensor:
        if self.bits is not None:
            return tf.cast(self.bits, tf.float32)
        levels = tf.cast(self.qmax - self.qmin + 1, tf.float32)
        return tf.math.ceil(tf.math.log(levels) / math.log(2.0) - _ROUNDING)

    def _broadcast(self, own: tf.Tensor, rank: int) -> tf.Tensor:
        if self.axis is None or not own.shape.rank:
            return own
        shape = [1] * rank
        shape[self.axis] = -1
        return tf.reshape(own, shape)

    def codes(self, latent: tf.Tensor) -> tf.Tensor:
        """Codes of latent weights, whole numbers in float32."""
        return self.rounded(latent / self.broadcast_scale(len(latent.shape)))

    def rounded(self, ratio: tf.Tensor) -> tf.Tensor:
        """The codes nearest to latent / scale, whole numbers in float32."""
        if self.nearest is not None:
            return self.nearest(ratio)
        return nearest_codes(ratio, self.qmin, self.qmax)


def _counts(bits: tf.Tensor, most_bits: int) -> tf.Tensor:
    return tf.cast(tf.logical_and(bits > 0.0, bits <= most_bits), tf.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class KernelView:
    """A quantized kernel as a penalty sees it.

    Attributes:
        name: name of its layer.
        latent: the float numbers that are quantized, float32: the kernel, or the kernel with the
            normalizations after it folded in.
        grid: the grid that they are quantized on.
        reach: learning rate times strength, times the largest square of d latent / d kernel,
            float32, (): how far a gradient of 1 moves a latent weight in one step of plain gradient
            descent. 0 if that is not known, because the model is not compiled.
        channels: output channels of the layer; for a depthwise layer, channels times multiplier.
        kernels: number of kernels that the penalty is summed over: those with a penalty weight.
        weights: number of weights in these kernels.
        parameters: the trained variables of its quantizer, by name, as tensors to differentiate
            with respect to. Only a penalty that comes with its quantizers has them
            (`Method.strength`).
    """

    name: str
    latent: tf.Tensor
    grid: GridTensors
    reach: Any = 0.0
    channels: int = 1
    kernels: int = 1
    weights: int = 1
    parameters: Mapping[str, tf.Tensor] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class KernelStep:
    """The effect of an optimizer step on a quantized kernel, as an update sees it.

    Attributes:
        name: name of its layer.
        before: the kernel before the step, float32.
        kernel: the kernel after it.
        factor: the factor that multiplies a kernel before it is quantized, broadcastable: that of
            folded normalizations, 1.0 without any, 0.0 in pruned channels.
        codes_before: codes of the kernel before the step, whole numbers in float32.
        grid: the grid after the step.
        rate: the learning rate of the step, float32, ().
        progress: the fraction of the training that is done, from 0 to 1, float32, ().
        variables: the quantizer's variables, which a quantizer may set.
        curvature: returns the square root of the gradients' mean squares as the optimizer keeps
            them, which Adam divides by, float32, in the kernel's shape: a diagonal estimate of the
            curvature of the loss. Raises ValueError for an optimizer that keeps none.
        quantized: latent weights -> their codes, whole numbers in float32, as the quantizer
            computes them; None if they are the nearest levels of the grid.
    """

    name: str
    before: tf.Tensor
    kernel: tf.Tensor
    factor: Any
    codes_before: tf.Tensor
    grid: GridTensors
    rate: tf.Tensor
    progress: tf.Tensor
    variables: Mapping[str, tf.Variable] = dataclasses.field(default_factory=dict)
    curvature: Callable[[], tf.Tensor] | None = None
    quantized: Callable[[tf.Tensor], tf.Tensor] | None = None

    @property
    def codes(self) -> tf.Tensor:
        """Codes of the kernel after the step."""
        return self.codes_of(self.kernel)

    @property
    def bits(self) -> tf.Tensor:
        """The bits of the codes, float32, broadcastable: 0 in pruned channels."""
        return self.grid.broadcast_bits(len(self.kernel.shape))

    def codes_of(self, kernel: tf.Tensor) -> tf.Tensor:
        """Codes of another kernel on the grid after the step."""
        return (self.quantized or self.grid.codes)(kernel * self.factor)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class KernelBetweenEpochs:
    """A kernel between two epochs, when a method may change it.

    Attributes:
        name: name of its layer.
        quantizer: the quantizer that the method made.
        variables: the quantizer's variables.
        kernel: the trained variable.
        latent: the float numbers that are quantized, float32, in the kernel's shape.
        curvature: as in `KernelStep`, for the last step.
        restart: resets to zero what the optimizer keeps for the kernel and for the quantizer's
            variables, for when they have been set to something else. With mean_squares=False, what
            Adam divides by is kept: Adam corrects averages by its count of all steps, and from zero
            the next steps would be several times too long.
        progress: the fraction of `fit` that is done, from 0 to 1.
    """

    name: str
    quantizer: Any
    variables: Mapping[str, tf.Variable]
    kernel: tf.Variable
    latent: np.ndarray
    curvature: Callable[[], np.ndarray]
    restart: Callable[..., None]
    progress: float = 0.0


State: TypeAlias = Mapping[str, Any]  # numbers by name: arrays to start from, tensors in a graph


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class KernelSpec:
    """What a plan requires of a kernel's quantizer.

    Attributes:
        bits: 1 to 8, the most among its channels. A method whose grids have a codebook or learned
            bits may settle on others.
        channel_bits: the bits of each channel along `axis`, 0 to 8, 0 for a pruned channel; None if
            all have `bits`.
        axis: channel axis of the kernel for a scale per channel; None for one scale.
        channel_axis: channel axis of the kernel in either case, for methods that group channels.
        channels: number of channels along it.
        start: the float kernel, for quantizers that tfmot builds, because tfmot passes only the
            shape; None if the kernel is passed to `initialize` later.
    """

    bits: int
    channel_bits: tuple[int, ...] | None = None
    axis: int | None = None
    channel_axis: int | None = None
    channels: int = 1
    start: Any = None

    @classmethod
    def of(
        cls,
        bits: WeightBits,
        *,
        per_channel: bool,
        channel_axis: int | None,
        channels: int,
        start: Any = None,
    ) -> KernelSpec:
        """The spec of a kernel with these bits, in the form of `core.recipe.Rule`: 0 becomes that
        number for each channel, and one number shared by all channels becomes their `bits`.
        """
        own = (0,) * channels if bits == 0 else bits
        if own == (widest(own),) * channels:
            own, per_channel = widest(own), True
        channel_bits = own if isinstance(own, tuple) else None
        return cls(
            bits=widest(own),
            channel_bits=channel_bits,
            axis=channel_axis if per_channel or channel_bits is not None else None,
            channel_axis=channel_axis,
            channels=channels,
            start=start,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridSpec:
    """What a plan requires of an activation's quantizer.

    Attributes:
        bits: 2 to 8.
        signed: whether there are negative codes.
        offset: whether the tensor extends far on the positive side only, and may have an offset.
        upper_limit: the largest level at the start, 6.0 after a ReLU6; None without a limit.
        from_range: whether to start from max|v|.
        fixed: whether the grid then stays fixed, as for model inputs.
        unnormalized: name of the first layer whose numbers have other means and variances than 0
            and 1: anything but a BatchNormalization, or one with gamma or beta. None if all numbers
            come from BatchNormalizations without gamma and beta.
    """

    bits: int
    signed: bool = False
    offset: bool = False
    upper_limit: float | None = None
    from_range: bool = False
    fixed: bool = False
    unnormalized: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """A method's row in the table of methods.

    Attributes:
        what: what the method is, in one line.
        trains: what it trains or moves.
        bits: bits of the kernels it is made for.
        granularity: granularity of the scales it produces, or of what it looks at.
        paper: authors and year.
    """

    what: str
    trains: str
    bits: str
    granularity: str
    paper: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A published algorithm.

    Attributes:
        name: the name that recipes use for it.
        options: frozen dataclass of its options, each with a default; JSON numbers, strings and
            bools.
        weights: (spec, options) -> quantizer of a kernel, a `UniformWeightQuantizer` or an object
            with its methods. None if it quantizes no weights.
        kernel_bits: the kernel bits that `weights` supports, from 1 to 8.
        channel_bits: the bits, from 0 to 8, that different channels of one kernel can have; empty
            if all channels have the same. If 0 is among them, the method prunes channels: their
            quantized weights are 0, and no gradient passes through them.
        kernel_problem: (spec, options) -> why a kernel cannot be quantized for a reason other than
            its bits, or None. None if all kernels can be.
        activations: (spec, options) -> quantizer of an activation. None if it quantizes no
            activations.
        grid_problem: (spec, options) -> why an activation cannot be quantized, or None. None if all
            activations can be.
        penalty: (view, options) -> float32 scalar, differentiable with respect to the latent
            weights and the scale: a kernel's part in the loss, before the strength. None if it adds
            none.
        strength: options -> the factor of the penalty until a schedule sets another. Such a penalty
            comes with the method's `weights`: recipes need not name it, and it applies to the
            kernels that the method quantizes. None for a penalty on any kernels, whose strength is
            0 until then.
        trains_norms: options -> whether the penalty's gradient also reaches normalizations that are
            folded into a kernel, where it sums the pulls of a whole channel. None for never.
        update: (step, state, options) -> the kernel after a step of the optimizer, and the new
            state: the same names, shapes and dtypes. None if the method leaves this to the
            optimizer.
        state: (shape of a kernel, options) -> the arrays that an update's state starts from, by
            name. They are saved with the model. None for no state.
        holds_steps: options -> whether an update keeps the kernels' steps fixed. None for no.
        between_epochs: (kernels, epoch, options) changes the kernels that the method quantizes
            before each epoch of `fit`; epochs are counted from 0. None for no change.
        folds: whether its kernels can be trained with normalizations folded in.
        fit: (view, options) -> what it did: a solver, which `tfbinreg.solve` runs on a calibrated
            model between `quantize_apply` and training. It sees a few hundred samples through the
            view, and changes the model through it. None if the method has no solver.
        needs_labels: whether `fit` needs the loss, and therefore labels and a compiled model.
        pulls_to_levels: whether the penalty moves weights towards their levels, so that its pull
            can be measured (`PenaltySchedule`, strength "auto").
        about: its row in the table of methods; None leaves it out.
    """

    name: str
    options: type
    weights: Callable[[KernelSpec, Any], Any] | None = None
    activations: Callable[[GridSpec, Any], Any] | None = None
    kernel_bits: Collection[int] = range(MIN_BITS, MAX_BITS + 1)
    channel_bits: Collection[int] = ()
    kernel_problem: Callable[[KernelSpec, Any], str | None] | None = None
    grid_problem: Callable[[GridSpec, Any], str | None] | None = None
    penalty: Callable[[KernelView, Any], tf.Tensor] | None = None
    strength: Callable[[Any], float] | None = None
    trains_norms: Callable[[Any], bool] | None = None
    update: Callable[[KernelStep, State, Any], tuple[tf.Tensor, State]] | None = None
    state: Callable[[tuple[int, ...], Any], State] | None = None
    holds_steps: Callable[[Any], bool] | None = None
    between_epochs: Callable[[Sequence[KernelBetweenEpochs], int, Any], None] | None = None
    folds: bool = True
    fit: Callable[[SolverView, Any], Sequence[Solved]] | None = None
    needs_labels: bool = False
    pulls_to_levels: bool = True
    about: About | None = None

    def read_options(self, given: Mapping[str, Any]) -> Any:
        """The options with the `given` fields set.

        Raises:
            ValueError: naming the given fields that do not exist, whose values have a different
                type from their defaults, or whose values are rejected.
        """
        kinds = _option_kinds(self.options)
        known = list(kinds)
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ValueError(
                f"Method {self.name!r} has no option {', '.join(map(repr, unknown))}; it has "
                f"{', '.join(known) or 'none'}."
            )
        wrong = [
            f"{name} must be {what}, got {given[name]!r}"
            for name in given
            if (what := _expected(kinds[name], given[name])) is not None
        ]
        if wrong:
            raise ValueError(f"Options of method {self.name!r}: {'; '.join(wrong)}.")
        return self.options(**given)


def _option_kinds(options: Any) -> dict[str, tuple[type, bool]]:
    """For each option the type of its default and whether it may be None; where the default is
    None, the other type in its annotation if there is exactly one, else `object`.
    """
    kinds = {field.name: (type(field.default), False) for field in dataclasses.fields(options)}
    for name in [field.name for field in dataclasses.fields(options) if field.default is None]:
        named = typing.get_args(typing.get_type_hints(options)[name])
        others = [kind for kind in named if kind is not type(None)]
        one = others[0] if len(others) == 1 and isinstance(others[0], type) else object
        kinds[name] = one, True
    return kinds


def _expected(kind: tuple[type, bool], value: Any) -> str | None:
    """What an option of this kind should be, if `value` does not match."""
    own, may_be_none = kind
    if may_be_none and value is None:
        return None
    for known, accepted, what in _OPTION_TYPES:
        if issubclass(own, known):
            is_right = isinstance(value, accepted) and isinstance(value, bool) == (known is bool)
            return None if is_right else what + (" or None" if may_be_none else "")
    return None
