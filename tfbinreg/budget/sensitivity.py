"""How far a model's outputs move when one kernel at a time has fewer bits."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.core.grid import widest
from tfbinreg.core.recipe import Recipe, RecipeData
from tfbinreg.layers.sites import Site, kernel_sites
from tfbinreg.training.calibrate import sample_batches
from tfbinreg.training.quantize import quantize_apply
from tflite_tools.system.progress import Advance, quietly

WIDTHS = (2, 3, 4, 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """The effect of fewer bits for one kernel.

    Attributes:
        layer: name of the layer.
        parameters: size of its kernel.
        channels: its output channels.
        moved: by width, how far the outputs move when this kernel alone has that width: mean
            squared difference over the variance of the outputs. For a fixed kernel, its width only;
            where channels differ, the widest one's.
        fixed: whether a rule of the recipe decides the width.
        code_bits: by width, the bits that all codes of the kernel take, if a method's grids have
            their own bits; other widths take `parameters` times the width.
    """

    layer: str
    parameters: int
    channels: int
    moved: Mapping[int, float]
    fixed: bool = False
    code_bits: Mapping[int, int] = dataclasses.field(default_factory=dict)


def sensitivities(
    model: Any,
    calibration_data: Any,
    *,
    recipe: RecipeData = None,
    widths: Sequence[int] = WIDTHS,
    advance: Advance = quietly,
) -> tuple[Sensitivity, ...]:
    """Measure every kernel of a model at each of some widths.

    Each kernel in turn is set to each width, with the step of least squared error (one for each
    channel where the recipe says so) and everything else at 8 bits. The model's outputs are
    compared with those at 8 bits throughout. A kernel that is folded in training is measured
    folded.

    Args:
        model: as for `quantize_apply`; it is not changed.
        calibration_data: as for `quantize_apply`; more data gives better measurements.
        recipe: everything except the weight bits, in any form that `quantize_apply` accepts; layers
            whose weight bits a rule sets keep them.
        widths: bits to measure, from 1 to 8.
        advance: is called for each kernel.

    Raises:
        ValueError: as for `quantize_apply`.
    """
    recipe = Recipe.from_data(recipe)
    eight = dataclasses.replace(recipe, weight_bits=max(WIDTHS), first_last_bits=None)
    batches = sample_batches(calibration_data)
    quantized = quantize_apply(model, eight, calibration_data=batches)
    sites = kernel_sites(quantized)
    for site in sites:
        _start_best(site, site.quantizer)
    expected = _outputs(quantized, batches)
    found = []
    for index, site in enumerate(sites):
        advance(index / len(sites), f"measuring fewer bits in {site.name}")
        bits = recipe.settings((site.name, type(site.layer.layer).__name__)).weight_bits
        parameters = int(np.prod(site.shape))
        moved, code_bits = {}, {}
        for width in widths if bits is None else (widest(bits),):
            # A rule's bits it has already.
            own = at_width(site, width) if bits is None else contextlib.nullcontext(site.quantizer)
            with own as quantizer:
                if bits is None and width < max(WIDTHS):
                    moved[width] = _moved(quantized, batches, expected)
                grid = quantizer.settle(site.variables, site.name)
            moved.setdefault(width, 0.0)
            if (size := grid.code_bits(parameters)) != width * parameters:
                code_bits[width] = size
        found.append(
            Sensitivity(
                layer=site.name,
                parameters=parameters,
                channels=int(site.layer.output_shape[-1]),
                moved=moved,
                fixed=bits is not None,
                code_bits=code_bits,
            )
        )
    return tuple(found)


def _outputs(model: Any, batches: Sequence[Any]) -> np.ndarray:
    """All outputs of the model, (samples, numbers)."""
    rows = []
    for batch in batches:
        outputs = model(tf.nest.map_structure(tf.convert_to_tensor, batch), training=False)
        flat = [np.asarray(part, np.float64) for part in tf.nest.flatten(outputs)]
        rows.append(np.concatenate([part.reshape(len(part), -1) for part in flat], axis=1))
    return np.concatenate(rows)


def _moved(model: Any, batches: Sequence[Any], expected: np.ndarray) -> float:
    """How far the outputs have moved."""
    outputs = _outputs(model, batches)
    spread = float(np.var(expected - expected.mean(axis=0))) or 1.0
    return float(np.mean(np.square(outputs - expected))) / spread


@contextlib.contextmanager
def at_width(site: Site, bits: int) -> Iterator[Any]:
    """Scope in which a kernel has these bits and the best step for them; yields the quantizer. No
    weight changes.
    """
    kernels = site.layer.kernels
    (own,) = kernels
    before = {name: variable.numpy() for name, variable in own.variables.items()}
    try:
        config = {**own.quantizer.get_config(), "bits": bits}
        other = type(own.quantizer).from_config(config)
        kernels[0] = own._replace(quantizer=other)
        _start_best(site, other)
        yield other
    finally:
        kernels[0] = own
        for name, value in before.items():
            own.variables[name].assign(value)


def _start_best(site: Site, quantizer: Any) -> None:
    """Start a kernel's grid at the least squared error; a kernel of zeros is right as it is."""
    latent = np.asarray(site.latent)
    if np.any(latent):
        quantizer.initialize(site.variables, latent, "mse")
