"""LAPQ's changes to a model: it sets steps, corrects biases, and keeps the best state."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfbinreg.core.lp_steps import lp_steps
from tfbinreg.methods.solver_view import SolverGrid, SolverKernel, SolverView

_VALUES = 2**15  # of each activation, for its Lp step
_NAMED = 5  # tensors in a message


def weight_errors(kernel: SolverKernel) -> np.ndarray:
    """Q(w) - w of the weights that are quantized, float64, (groups, inputs, outputs)."""
    latent = kernel.latent()
    quantized = kernel.quantizer(tf.constant(latent), False, weights=dict(kernel.variables))
    return kernel.to_rows(np.asarray(quantized, np.float64) - latent)


def bias_changes(errors: np.ndarray, mean_inputs: np.ndarray) -> np.ndarray:
    """What to add to the outputs so that their means are those of the float kernel.

    Args:
        errors: Q(w) - w, (groups, inputs, outputs).
        mean_inputs: (groups, inputs).

    Returns:
        -sum over the inputs of mean * error, (groups * outputs,).
    """
    return -np.einsum("gi,gio->go", mean_inputs, errors).ravel()


def correct_biases(view: SolverView) -> None:
    """Give each layer, one after the other, the mean outputs that its float kernel has.

    The inputs are those that the model gives it, with the layers before it corrected. Layers whose
    means a normalization sets are left alone, and those that have no bias.
    """
    for kernel in corrected_kernels(view):
        kernel.shift(bias_changes(weight_errors(kernel), kernel.mean_inputs()))  # type: ignore[misc]


def corrected_kernels(view: SolverView) -> list[SolverKernel]:
    """Kernels whose mean outputs are set by a bias, and not by a normalization."""
    return [k for k in view.kernels if k.shift is not None and not k.is_normalized]


class Search:
    """A model whose steps are moved, and the best of its measured states.

    Args:
        view: of the model.
        bias_correction: whether biases follow the steps.
        everything: whether first and last kernels, inputs and outputs take part.

    Attributes:
        tensors: whose steps are moved: kernels, then activation grids.
        scales: their steps in the best state.
        loss: the least loss that was measured.

    Raises:
        ValueError: if a tensor has no step that can be set freely, naming it; if there are no
            tensors, or the loss is not finite.
    """

    def __init__(self, view: SolverView, bias_correction: bool, everything: bool) -> None:
        self._view = view
        whole: list[SolverKernel | SolverGrid] = [*view.kernels, *view.grids]
        self.tensors = [tensor for tensor in whole if everything or not tensor.is_edge]
        self.scales = [tensor.scale() for tensor in self.tensors]
        self._restore = view.snapshot()
        self._check_steps()
        self._means = {}
        if bias_correction:
            self._means = {kernel.name: kernel.mean_inputs() for kernel in corrected_kernels(view)}
        self._values = view.grid_values(_VALUES)
        self.loss = view.loss()
        if not math.isfinite(self.loss):
            raise ValueError(
                f"LAPQ cannot compare losses: that of the calibrated model is {self.loss}."
            )
        self._best = self._restore

    def _check_steps(self) -> None:
        if not self.tensors:
            raise ValueError(
                "LAPQ has no steps to move: all kernels are first or last ones, which take part "
                "with LapqOptions.first_last."
            )
        try:
            bad = [tensor.name for tensor in self.tensors if not _has_free_step(tensor)]
        finally:
            self._restore()
        if bad:
            more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            raise ValueError(
                f"LAPQ moves steps freely, and those of {', '.join(bad[:_NAMED])}{more} are "
                "statistics, powers of two or of a codebook: choose a method like 'lsq' for them."
            )

    def lp_scales(self, powers: Sequence[float]) -> list[list[np.ndarray]]:
        """The Lp steps of all tensors, for each p; tensors of zeros keep their step."""
        by_tensor = []
        for tensor, present in zip(self.tensors, self.scales, strict=True):
            grid = tensor.quantizer.settle(tensor.variables, tensor.name)
            if isinstance(tensor, SolverKernel):
                numbers = tensor.latent()
            else:
                numbers = self._values[tensor.name]
                if (limit := getattr(tensor.quantizer, "upper_limit", None)) is not None:
                    numbers = np.minimum(numbers, limit)
            steps = lp_steps(numbers, grid.qmin, grid.qmax, powers, grid.axis)
            by_tensor.append(np.where(steps > 0.0, steps, present))
        return [[steps[index] for steps in by_tensor] for index in range(len(powers))]

    def place(self, scales: Sequence[np.ndarray]) -> None:
        """Set the steps of the model as it came, and its biases to them."""
        self._restore()
        for tensor, scale in zip(self.tensors, scales, strict=True):
            tensor.set_scale(np.asarray(scale, np.float32))
        for kernel in self._view.kernels:
            if kernel.name in self._means:
                change = bias_changes(weight_errors(kernel), self._means[kernel.name])
                kernel.shift(change)  # type: ignore[misc]

    def measure(self, scales: Sequence[np.ndarray]) -> float:
        """The loss at these steps; kept if it is the best."""
        self.place(scales)
        self._view.settle_norms()
        return self.keep(scales)

    def keep(self, scales: Sequence[np.ndarray]) -> float:
        """The loss of the model as it is; its state is kept if that is the best."""
        loss = self._view.loss()
        if loss < self.loss:
            self.loss, self.scales = loss, list(scales)
            self._best = self._view.snapshot()
        return loss

    def choose_biases(self) -> None:
        """If the model as it came is still the best, see whether corrected biases make it better;
        if not, they do not follow the steps any more: a search would start from a higher loss."""
        if self._best is self._restore and self._means:
            self.measure(self.scales)
            if self._best is self._restore:
                self._means = {}

    def correct(self) -> None:
        """Correct the biases again, from the layers' inputs at the best steps."""
        scales = self.scales
        self._means = {}
        self.place(scales)
        correct_biases(self._view)
        self._view.settle_norms()
        self.keep(scales)

    def end(self) -> None:
        """Set the best state."""
        self._best()


def _has_free_step(tensor: SolverKernel | SolverGrid) -> bool:
    """Whether a tensor's evenly spaced levels move with a step that is set and learned."""
    grid = tensor.quantizer.settle(tensor.variables, tensor.name)
    if grid.levels is not None or grid.widths is not None:
        return False
    fixed = getattr(tensor.quantizer, "fixed", False)  # that of an input, which is not learned
    if not fixed and not any(variable.trainable for variable in tensor.variables.values()):
        return False
    wanted = np.float32(1.1) * tensor.scale()
    tensor.set_scale(wanted)
    return np.allclose(tensor.scale(), wanted, rtol=1e-3, atol=0.0)
