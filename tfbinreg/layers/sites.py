"""The one door into a quantized model: its quantized tensors as `Site` objects."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg.core.grid import Grid
from tfbinreg.core.recipe import LSQ
from tfbinreg.layers.kernel import QuantizeActivation, QuantizedKernel

_LISTED = 20  # names in one error


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """One quantized tensor inside a model.

    Attributes:
        name: name of the float layer whose kernel it is, or of the activation grid's layer.
        layer: the Keras layer that holds the variables.
        quantizer: the tfmot quantizer that a method made (`methods.contract`).
        variables: the quantizer's variables.
        kernel: the trained kernel, None for an activation.
    """

    name: str
    layer: Any
    quantizer: Any
    variables: dict[str, tf.Variable]
    kernel: tf.Variable | None = None

    @property
    def latent(self) -> Any:
        """The numbers that are quantized: the kernel, with the normalizations after it if they are
        folded during training. None for an activation.
        """
        return None if self.kernel is None else self.layer.latent(self.kernel)

    @property
    def shape(self) -> tuple[int, ...]:
        """The kernel's shape; () for an activation."""
        return () if self.kernel is None else tuple(self.kernel.shape)

    @property
    def size(self) -> int:
        """How many weights the kernel has."""
        return int(np.prod(self.shape))

    @property
    def step(self) -> tf.Variable:
        """LSQ's step variable; the quantizers use its absolute value."""
        return self.variables["step"]

    @property
    def method(self) -> str:
        """Name of the method that quantizes the kernel."""
        return self.layer.quantize_config.settings.method or LSQ

    @property
    def learned(self) -> list[tf.Variable]:
        """The quantizer's trained variables, such as LSQ's step."""
        return [variable for variable in self.variables.values() if variable.trainable]

    def grid(self) -> Grid:
        """The grid as trained so far; raises ValueError, with the name, if there is none."""
        return self.quantizer.settle(self.variables, self.name)

    def codes(self) -> np.ndarray:
        """The kernel's trained codes, int32, in the kernel's shape.

        Raises:
            ValueError: if the kernel or its step is not finite, this is an activation, or the
                quantizer produces codes that its grid does not have.
        """
        latent = self.latent
        if latent is None:
            raise ValueError(f"{self.name!r} is an activation: it has no codes.")
        kernel = latent.numpy()
        if not np.all(np.isfinite(kernel)):
            raise ValueError(f"The kernel of {self.name!r} has NaN or infinite values.")
        grid = self.grid()  # reports a broken step by name
        codes = self.quantizer.codes(kernel, self.variables)
        if not np.array_equal(grid.codes(grid.values(codes)), codes):
            raise ValueError(f"The quantizer of {self.name!r} makes codes that its grid has not.")
        return codes


def sites_of(layer: QuantizedKernel) -> list[Site]:
    """The quantized kernels of a layer."""
    return [
        Site(layer.layer.name, layer, own.quantizer, own.variables, own.weight)
        for own in layer.kernels
    ]


def kernel_sites(model: Any) -> list[Site]:
    """The quantized kernels of `model`, in layer order."""
    layers = [layer for layer in model.layers if isinstance(layer, QuantizedKernel)]
    return [site for layer in layers for site in sites_of(layer)]


def activation_sites(model: Any) -> list[Site]:
    """The activation grids of `model` that are not prescribed, in layer order."""
    return [
        Site(layer.name, layer, layer.quantizer, layer.grid_variables)
        for layer in model.layers
        if isinstance(layer, QuantizeActivation) and layer.grid_variables
    ]


def sites(model: Any) -> list[Site]:
    """All quantized tensors of `model`: kernels, then activations."""
    return kernel_sites(model) + activation_sites(model)


def require_quantized(model: Any) -> None:
    """Raise ValueError unless `model` comes from `quantize_apply`."""
    if not hasattr(model, "_flatten_layers"):  # of either Keras
        raise ValueError(f"It takes a model from quantize_apply, not {model!r}.")
    if hasattr(model, "recipe") and kernel_sites(model):
        return
    inner = [part.name for part in model._flatten_layers(False) if hasattr(part, "recipe")]
    if inner:
        raise ValueError(
            f"Model {model.name!r} is not quantized as a whole, but holds {', '.join(inner)}, "
            "which is: take that one, or put what is around it into the float model and quantize "
            "that."
        )
    if kernel_sites(model):
        raise ValueError(
            f"Model {model.name!r} is made of layers of a quantized model and has no recipe of its "
            "own: take the whole model, or quantize the same part of the float model."
        )
    raise ValueError(f"Model {model.name!r} is not quantized: call quantize_apply first.")


def check_finite(model: Any) -> None:
    """Raise ValueError naming every layer whose step or kernel is not finite."""
    broken = []
    for site in sites(model):
        for what, variable in site.variables.items():
            if not np.all(np.isfinite(variable.numpy())):
                broken.append(f"{site.name} ({what.replace('_', ' ')})")
        latent = site.latent
        if latent is not None and not np.all(np.isfinite(latent.numpy())):
            broken.append(f"{site.name} (kernel)")
    if broken:
        more = f" and {len(broken) - _LISTED} more" if len(broken) > _LISTED else ""
        names = ", ".join(broken[:_LISTED])
        raise ValueError(f"Not finite, training diverged: {names}{more}.")
