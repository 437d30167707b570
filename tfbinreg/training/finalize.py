"""The last step of training: afterwards the model computes what its file will compute."""

from __future__ import annotations

import collections
import warnings
from typing import Any

import numpy as np

from tfbinreg.core.grid import Grid
from tfbinreg.core.target import FOR_SHORT_C, STATES, TFLM, check_target
from tfbinreg.core.warning import QuantizationWarning
from tfbinreg.deploy.finest_grids import too_fine
from tfbinreg.deploy.freeze import Frozen, freeze, freeze_with_offsets
from tfbinreg.deploy.frozen import FrozenKernel
from tfbinreg.deploy.integer_model import ARITHMETICS, IntegerModel
from tfbinreg.deploy.operations import Offsets
from tfbinreg.layers.sites import require_quantized, sites
from tfbinreg.network.added_layers import ChannelAffine
from tfbinreg.network.normalizations import ARRAYS, affine_of
from tfbinreg.training.best_statistics import channels_on_thresholds, choose_statistics, rewindable
from tfbinreg.training.finalize_report import FinalizeReport
from tflite_tools.system.progress import Advance, progress


def finalize(
    model: Any,
    data: Any = None,
    *,
    batches: int = 50,
    target: str | None = None,
    short_constants: bool = False,
    verbose: int = 1,
    advance: Advance | None = None,
) -> FinalizeReport:
    """Make a trained quantized model ready to be evaluated, saved and converted.

    From then on, in inference mode, the model computes what the target computes with its file, bit
    for bit (see `IntegerModel`), until `fit` trains it again. In this form it has no gradients. A
    `tf.function` of your own keeps the weights that it was traced with.

    If `data` is given, batch normalization is re-estimated, and the better of the new and the old
    statistics is kept. With labels, the better ones give the higher accuracy or, if the labels are
    not classes, the smaller loss. Without labels, their outputs are closer to those with the
    statistics of each batch. The integer models are compared, on the given data only.

    Steps that are too small for LiteRT (`too_fine`) are made larger, with a warning.

    Then every bias is rounded to the int32 grid it is deployed on (input scale * weight scale /
    pre-scale), a change of less than half a unit of that grid. At low bits this matters: if a bias
    is rounded after the model was evaluated, an occasional activation moves by a whole level, and
    the difference grows from layer to layer.

    Args:
        model: a trained model from `quantize_apply`; biases, betas and moving statistics change.
        data: training inputs in batches, as for `reestimate_batch_norm`, preferably with labels: a
            tuple (inputs, labels) of arrays, or a tf.data.Dataset or iterable of such batches;
            augmented if training was. None leaves batch normalization as it is.
        batches: how many batches to use.
        target: "tflm" (TFLM, CMSIS-NN and the generated C, which round a sum twice) or "litert"
            (LiteRT with XNNPACK, which rounds it once); None for the recipe's target, which is
            "litert" by default. For a microcontroller use "tflm".
        short_constants: whether to choose scales and biases so that generated C stores those of a
            channel in three bytes instead of six or seven. In each layer a scale changes by a few
            thousandths, a bias by at most an eighth of an output level. Requires the target "tflm".
        verbose: 1 shows a progress bar on a terminal; 0 nothing.
        advance: called with None and what is being done, for a progress bar of your own.

    Returns:
        What was kept and why, the channels that lie on a rounding threshold, and the layers whose
        constants stay long. `print` shows it as text.

    Raises:
        ValueError: if the target is unknown or does not support short constants, or the model has
            no exact integer form (see `freeze` and `IntegerModel`).
    """
    require_quantized(model)
    target = finalize_target(model, target, short_constants)
    with progress(enabled=bool(verbose) and advance is None) as bar:
        return _finalized(model, data, batches, target, short_constants, advance or bar)


def _finalized(
    model: Any, data: Any, batches: int, target: str, short_constants: bool, advance: Advance
) -> FinalizeReport:
    advance(None, "putting the constants on their grids")
    frozen = _coarsen(model, target, short_constants)
    arithmetic, choice = ARITHMETICS[target], None
    if data is not None:
        data = rewindable(data, batches)
        choice = choose_statistics(
            model,
            data,
            batches,
            lambda: IntegerModel(freeze(model, short_constants=short_constants), arithmetic),
            advance=advance,
        )
        frozen = _coarsen(model, target, short_constants)
    IntegerModel(frozen.graph, arithmetic)  # refuses what has no exact form there
    used = collections.Counter(id(offsets.last) for offsets in frozen.offsets.values())
    for index, offsets in frozen.offsets.items():
        op = frozen.graph.ops[index]
        # What is used several times stays: it would have to be rounded to the grids of all places.
        if op.kernel is not None and used[id(offsets.last)] == 1:
            _round_bias(offsets, op.kernel, frozen.graph.source_grid(op))
    on_threshold = (
        () if data is None else channels_on_thresholds(model, data, batches, advance=advance)
    )
    _show_steps_as_used(model)
    model.finalized.assign(FOR_SHORT_C if short_constants else STATES[target])
    long = _long_constants(model, frozen) if short_constants else None
    return FinalizeReport(statistics=choice, on_threshold=on_threshold, long_constants=long)


def finalize_target(model: Any, target: str | None, short_constants: bool) -> str:
    """The target that `finalize` will follow.

    Raises:
        ValueError: if it is unknown, or does not support short constants.
    """
    target = check_target(model.recipe.target if target is None else target)
    if short_constants and target != TFLM:
        raise ValueError(
            f"Short constants are for generated C, which rounds as {TFLM!r}: that has to be the "
            f"target, not {target!r}."
        )
    return target


def _long_constants(model: Any, short: Frozen) -> tuple[str, ...]:
    """The per-channel layers whose scales are the same as without `short_constants`."""
    pairs = zip(short.graph.ops, freeze(model, short_constants=False).ops, strict=True)
    return tuple(
        op.name
        for op, plain in pairs
        if op.kernel is not None and plain.kernel is not None
        if op.kernel.scale.ndim and np.array_equal(op.kernel.scale, plain.kernel.scale)
    )


def _coarsen(model: Any, target: str, short_constants: bool) -> Frozen:
    """Enlarge steps that LiteRT could not compute, with a warning; returns the model's graph."""
    coarse: dict[str, None] = {}
    frozen = freeze_with_offsets(model, short_constants=short_constants)
    for _ in frozen.graph.ops:  # each has coarser inputs once those before it are done
        factors = too_fine(frozen.graph, target)
        if not factors:
            break
        for index, factor in factors.items():
            frozen.grid_layers[index].coarsen(factor)
            coarse[frozen.graph.ops[index].name] = None
        frozen = freeze_with_offsets(model, short_constants=short_constants)
    if coarse:
        warnings.warn(
            f"The steps of the outputs of {', '.join(coarse)} were too small for what they are "
            "computed from: no runtime would take the file. They are larger now.",
            QuantizationWarning,
            stacklevel=3,
        )
    return frozen


def _show_steps_as_used(model: Any) -> None:
    """Training may end with a negative step, which acts by its absolute value: show that value."""
    for site in sites(model):
        site.quantizer.show_as_used(site.variables)


def _round_bias(offsets: Offsets, kernel: FrozenKernel, source: Grid) -> None:
    """Move the bias, or an offset of the last normalization, by the integer bias's rounding."""
    unit = float(source.scale) * np.asarray(kernel.scale, np.float64) / kernel.prescale
    change = kernel.bias * unit - offsets.folded(kernel.bias.size).offset
    if not offsets.norms:
        if offsets.bias is not None:
            _shift(offsets.bias, change)
        return
    last = offsets.norms[-1]
    if isinstance(last, ChannelAffine):
        _shift(last.offset, change)
    elif last.center:
        _shift(last.beta, change)
    else:
        factor = affine_of(last, ARRAYS).factor
        live = factor != 0
        _shift(last.moving_mean, -np.divide(change, factor, out=np.zeros_like(change), where=live))


def _shift(variable: Any, change: np.ndarray) -> None:
    variable.assign((variable.numpy().astype(np.float64) + change).astype(np.float32))
