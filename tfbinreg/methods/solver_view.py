"""What a solver sees of a quantized model, and how it changes it: values and callables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Behind:
    """What acts on the outputs of a kernel up to the grid behind it, channel by channel.

    With u the sum of products of a row of inputs and the latent kernel, the output there is
    clip(factor u + offset, low, high), rounded to the grid.

    Attributes:
        factor: float64, (groups, outputs): that of normalizations which are not folded.
        offset: float64, (groups, outputs): bias and normalizations.
        low: smallest number there, 0.0 of an unsigned grid; -inf if nothing clips.
        high: largest.
    """

    factor: np.ndarray
    offset: np.ndarray
    low: float = -np.inf
    high: float = np.inf


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SolverKernel:
    """A quantized kernel.

    Rows are its layer written as matrix products: a group of channels computes, at each place of
    each sample, one row of inputs times its part of the kernel. A depthwise layer has a group for
    each input channel, a Conv2D its groups, others one.

    Attributes:
        name: of its layer.
        quantizer: as its method made it.
        variables: the quantizer's.
        latent: what is quantized, float32, in the kernel's shape: the kernel, or the kernel with
            the normalizations behind it folded in.
        set_latent: sets the kernel so that `latent` becomes this.
        scale: of its grid, float32, () or (channels,).
        set_scale: sets the step so that `scale` becomes this, or what is nearest to it.
        shift: adds a number to each output channel's sum of products with `latent`, (channels,),
            through the bias or the mean of the normalization behind it; None if it has neither.
        to_rows: kernel -> (groups, inputs, outputs).
        from_rows: the other way.
        inputs: the rows of inputs that the model, as it is now, gives the layer at sampled places,
            float32, (groups, rows, inputs).
        mean_inputs: the mean of all rows, not of sampled ones, float64, (groups, inputs).
        behind: what follows, as it is now.
        is_edge: whether it is a first or last one: no kernel lies before it, or none behind.
        is_normalized: whether `settle_norms` sets the mean of its outputs: a normalization that is
            not folded lies behind.
    """

    name: str
    quantizer: Any
    variables: Mapping[str, Any]
    latent: Callable[[], np.ndarray]
    set_latent: Callable[[np.ndarray], None]
    scale: Callable[[], np.ndarray]
    set_scale: Callable[[np.ndarray], None]
    shift: Callable[[np.ndarray], None] | None
    to_rows: Callable[[np.ndarray], np.ndarray]
    from_rows: Callable[[np.ndarray], np.ndarray]
    inputs: Callable[[], np.ndarray]
    mean_inputs: Callable[[], np.ndarray]
    behind: Callable[[], Behind]
    is_edge: bool
    is_normalized: bool


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SolverGrid:
    """An activation grid.

    Attributes:
        name: of the grid's layer.
        quantizer: as its method made it.
        variables: the quantizer's.
        scale: float32, ().
        set_scale: sets the scale; an offset of the grid grows with it.
        is_edge: whether it is that of an input, or no kernel lies behind it.
    """

    name: str
    quantizer: Any
    variables: Mapping[str, Any]
    scale: Callable[[], np.ndarray]
    set_scale: Callable[[Any], None]
    is_edge: bool


def unseen(share: float, text: str) -> None:
    """Progress that nobody is to see."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SolverView:
    """A calibrated model and its samples.

    Attributes:
        kernels: the quantized kernels, in the order in which data passes them.
        grids: the activation grids, without those that a runtime prescribes.
        loss: mean loss over the samples of the quantized model as it is now, without penalties.
            Only of methods that need labels.
        batch_loss: the same while normalizations that are not folded take the statistics of each
            batch: about what `loss` gives after `settle_norms`, in one pass.
        settle_norms: sets their moving statistics to those of the model as it is now, as
            calibration does.
        snapshot: keeps all of the model's variables; what it returns sets them again.
        outputs: numbers on the grid behind each kernel, by its name, (groups, rows, outputs), at
            the places that `SolverKernel.inputs` samples, as the model is now.
        grid_values: (count) -> up to so many of the numbers that reach each grid before they are
            rounded, by its name, float32, flat.
        tell: prints a line of progress, if the user wants it.
        recall: what `keep` wrote of a part in an earlier run from the same start; None if nothing.
        keep: writes arrays of a finished part to the checkpoint, if there is one.
        advance: takes the share of the work that is done, 0 to 1, and what is being done, for a
            progress bar.
    """

    kernels: Sequence[SolverKernel]
    grids: Sequence[SolverGrid]
    loss: Callable[[], float]
    batch_loss: Callable[[], float]
    settle_norms: Callable[[], None]
    snapshot: Callable[[], Callable[[], None]]
    outputs: Callable[[], dict[str, np.ndarray]]
    grid_values: Callable[[int], dict[str, np.ndarray]]
    tell: Callable[[str], None]
    recall: Callable[[str], dict[str, np.ndarray] | None]
    keep: Callable[..., None]
    advance: Callable[[float, str], None]


@dataclasses.dataclass(frozen=True)
class Solved:
    """What a solver did to a part of a model.

    Attributes:
        name: of the part, such as a layer.
        before: what is minimized, before.
        after: the same afterwards.
    """

    name: str
    before: float
    after: float

    def __str__(self) -> str:
        return f"{self.name}: {self.before:.4g} -> {self.after:.4g}"
