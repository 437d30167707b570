"""What a solver sees of a quantized model, and how it changes it: values and callables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Behind:
    """What acts on the outputs of a kernel up to the next grid, channel by channel.

    With u the sum of products of a row of inputs and the latent kernel, the output on that grid is
    clip(factor u + offset, low, high), rounded to the grid.

    Attributes:
        factor: float64, (groups, outputs): factor of the normalizations that are not folded.
        offset: float64, (groups, outputs): bias and normalizations.
        low: smallest number on the grid, 0.0 for an unsigned grid; -inf if nothing clips.
        high: largest number on the grid.
    """

    factor: np.ndarray
    offset: np.ndarray
    low: float = -np.inf
    high: float = np.inf


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SolverKernel:
    """A quantized kernel.

    Rows express its layer as matrix products: at each place of each sample, a group of channels
    computes one row of inputs times its part of the kernel. A depthwise layer has a group for each
    input channel, a Conv2D has its groups, other layers have one.

    Attributes:
        name: name of its layer.
        quantizer: the quantizer that its method made.
        variables: the quantizer's variables.
        latent: the numbers that are quantized, float32, in the kernel's shape: the kernel, or the
            kernel with the normalizations after it folded in.
        set_latent: sets the kernel so that `latent` takes this value.
        scale: scale of its grid, float32, () or (channels,).
        set_scale: sets the step so that `scale` takes this value, or the nearest possible one.
        shift: adds a number to each output channel's sum of products with `latent`, (channels,),
            through the bias or the mean of the normalization after it; None if it has neither.
        to_rows: kernel -> (groups, inputs, outputs).
        from_rows: the inverse.
        inputs: the layer's input rows in the current model, at sampled places, float32, (groups,
            rows, inputs).
        mean_inputs: the mean of all rows, not only sampled ones, float64, (groups, inputs).
        behind: what currently follows it.
        is_edge: whether it is a first or last kernel: no kernel comes before it, or none after.
        is_normalized: whether `settle_norms` sets the mean of its outputs: it is followed by a
            normalization that is not folded.
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
        name: name of the grid's layer.
        quantizer: the quantizer that its method made.
        variables: the quantizer's variables.
        scale: float32, ().
        set_scale: sets the scale; an offset of the grid grows with it.
        is_edge: whether it is the grid of an input, or no kernel comes after it.
    """

    name: str
    quantizer: Any
    variables: Mapping[str, Any]
    scale: Callable[[], np.ndarray]
    set_scale: Callable[[Any], None]
    is_edge: bool


def unseen(share: float, text: str) -> None:
    """Ignores progress."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SolverView:
    """A calibrated model and its samples.

    Attributes:
        kernels: the quantized kernels, in the order in which data passes through them.
        grids: the activation grids, except those that a runtime prescribes.
        loss: mean loss of the current quantized model over the samples, without penalties. Only for
            methods that need labels.
        batch_loss: the same while normalizations that are not folded use the statistics of each
            batch: about what `loss` gives after `settle_norms`, in one pass.
        settle_norms: sets their moving statistics to those of the current model, as calibration
            does.
        snapshot: saves all of the model's variables; calling what it returns restores them.
        outputs: numbers on the grid after each kernel, by its name, (groups, rows, outputs), at the
            places that `SolverKernel.inputs` samples, in the current model.
        grid_values: (count) -> up to this many of the numbers that reach each grid before they are
            rounded, by its name, float32, flat.
        tell: prints a line of progress, if the user enabled it.
        recall: what `keep` saved for a part in an earlier run from the same start; None if nothing.
        keep: saves arrays of a finished part to the checkpoint, if there is one.
        advance: called with the share of the work that is done, 0 to 1, and what is being done, for
            a progress bar.
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
    """The effect of a solver on a part of a model.

    Attributes:
        name: name of the part, such as a layer.
        before: the minimized quantity, before.
        after: the same, after.
    """

    name: str
    before: float
    after: float

    def __str__(self) -> str:
        return f"{self.name}: {self.before:.4g} -> {self.after:.4g}"
