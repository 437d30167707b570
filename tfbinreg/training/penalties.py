"""Penalties on the quantized kernels of a model, as one loss each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.layers.sites import Site
from tfbinreg.methods.contract import GridTensors, KernelView, Method

Parameters: TypeAlias = Mapping[str, tf.Tensor]  # of a quantizer, by name


class Penalty:
    """One method's penalty on the kernels of a model.

    Args:
        method: has a `penalty`; a method with a `strength` applies to the kernels that it
            quantizes.
        options: options of the method.
        sites: the kernels.
        factors: factor of each kernel's part, a float32 variable (kernels,) that a schedule sets;
            None for ones.
    """

    def __init__(
        self, method: Method, options: Any, sites: Sequence[Site], factors: Any = None
    ) -> None:
        if method.penalty is None:
            raise ValueError(f"Method {method.name!r} has no penalty.")
        self._name, self._function, self.options = method.name, method.penalty, options
        self._has_kernels = method.strength is not None
        self._trains_norms = method.trains_norms is not None and method.trains_norms(options)
        self._sites = list(sites)
        acting = [site for site, own in zip(self._sites, self.weights, strict=True) if own > 0.0]
        self._count, self._weight_count = len(acting), sum(site.size for site in acting)
        self._factors = factors

    @property
    def weights(self) -> list[float]:
        """The penalty weight of each kernel."""
        return [self._weight(site) for site in self._sites]

    def value(self) -> tf.Tensor:
        """The sum over the kernels, as the method defines it, without strength and factors;
        float32, ()."""
        latents, grids = self._tensors()
        none, ones = [0.0] * len(latents), [1.0] * len(latents)
        return self._sum(latents, grids, none, ones, self._parameters())

    def loss(self, strength: tf.Tensor, rate: Any) -> tf.Tensor:
        """strength * value, the kernels' parts multiplied by their factors; at strength 0 it is 0
        and nothing is computed.

        Args:
            strength: float32, ().
            rate: the learning rate; None if it is not known (`KernelView.reach`).
        """
        factors = self._factors_now()
        reaches = self._reaches(strength, rate, factors)
        latents, grids = self._tensors()
        own_parameters = self._parameters()
        flat: list[tf.Tensor] = tf.nest.flatten(own_parameters)

        @tf.custom_gradient
        def loss(latents: list[tf.Tensor], scales: list[tf.Tensor], flat: list[tf.Tensor]) -> Any:
            given = [*latents, *scales, *flat]
            parameters = tf.nest.pack_sequence_as(own_parameters, flat)
            now = [
                dataclasses.replace(grid, scale=scale)
                for grid, scale in zip(grids, scales, strict=True)
            ]

            # The gradients are taken inside the branch: those of a conditional would be a second
            # conditional.
            def acting() -> tuple[tf.Tensor, list[tf.Tensor]]:
                with tf.GradientTape() as tape:
                    tape.watch(given)
                    value = self._sum(latents, now, reaches, factors, parameters)
                zero = tf.UnconnectedGradients.ZERO
                return value, tape.gradient(value, given, unconnected_gradients=zero)

            def resting() -> tuple[tf.Tensor, list[tf.Tensor]]:
                return tf.constant(0.0), [tf.zeros(tensor.shape) for tensor in given]

            value, gradients = tf.cond(strength > 0.0, acting, resting)

            def gradient(upstream: tf.Tensor) -> Any:
                factor = strength * upstream
                pulled = [factor * part for part in gradients]
                middle, end = len(latents), len(latents) + len(scales)
                return pulled[:middle], pulled[middle:end], pulled[end:]

            return strength * value, gradient

        return loss(latents, [grid.scale for grid in grids], flat)

    def curvatures(self, strength: float = 0.0, rate: Any = None) -> list[tf.Tensor]:
        """How strongly each kernel's weights are pulled to their levels t, float32 scalars.

        sum(m (w - t)) / sum((w - t)^2) over the latent weights w that are pulled. Here m is how far
        w moves back when each number of the kernel moves by its gradient, counting this kernel's
        part alone, without strength, penalty weight and factor. It is the mean curvature, weighted
        by squared errors: about 2 for the bin regularization over the weights of a bin. It is 0
        where no weight is pulled.

        Args:
            strength, rate: as for `loss`, for penalties that are bounded by them.
        """
        factors = self._factors_now()
        reaches = self._reaches(tf.constant(strength), rate, factors)
        return [
            self._curvature(site, reach, parameters)
            for site, reach, parameters in zip(
                self._sites, reaches, self._parameters(), strict=True
            )
        ]

    def _curvature(self, site: Site, reach: Any, parameters: Parameters) -> tf.Tensor:
        if not self._speaks_of(site):
            return tf.constant(0.0)
        with _compat.float32_variables():
            kernel = tf.convert_to_tensor(site.kernel)
            # A replicated variable cannot be watched here.
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(kernel)
                latent = site.layer.latent(kernel)
                grid = site.quantizer.grid_now(site.variables)
                part = self._part(site, latent, grid, reach, parameters)
            zero = tf.UnconnectedGradients.ZERO
            gradient = tape.gradient(part, kernel, unconnected_gradients=zero)
            moved = site.layer.latent(gradient)  # which is linear
        distance = latent - grid.codes(latent) * grid.broadcast_scale(len(latent.shape))
        distance = tf.where(moved == 0.0, 0.0, distance)
        squares = tf.reduce_sum(tf.square(distance))
        return tf.math.divide_no_nan(tf.reduce_sum(moved * distance), squares)

    def _tensors(self) -> tuple[list[tf.Tensor], list[GridTensors]]:
        """The latent kernels, float32, and their grids."""
        with _compat.float32_variables():
            found = [site.layer.latent(site.kernel, self._trains_norms) for site in self._sites]
            grids = [site.quantizer.grid_now(site.variables) for site in self._sites]
        return [tf.convert_to_tensor(latent) for latent in found], grids

    def _parameters(self) -> list[Parameters]:
        """Trained variables of the quantizers, as tensors, for a penalty that comes with them."""
        with _compat.float32_variables():
            return [
                {
                    name: tf.convert_to_tensor(variable)
                    for name, variable in site.variables.items()
                    if self._has_kernels and self._speaks_of(site) and variable.trainable
                }
                for site in self._sites
            ]

    def _speaks_of(self, site: Site) -> bool:
        return not self._has_kernels or site.method == self._name

    def _factors_now(self) -> list[Any]:
        # Read here, not inside a custom gradient, which could not be taken of a variable.
        if self._factors is None:
            return [1.0] * len(self._sites)
        return tf.unstack(tf.convert_to_tensor(self._factors))

    def _reaches(self, strength: tf.Tensor, rate: Any, factors: list[Any]) -> list[Any]:
        if rate is None:
            return [0.0] * len(self._sites)
        with _compat.float32_variables():
            return [
                strength * rate * (self._weight(site) * factor) * site.layer.largest_slope()
                for site, factor in zip(self._sites, factors, strict=True)
            ]

    def _weight(self, site: Site) -> float:
        if not self._speaks_of(site):
            return 0.0
        return site.layer.quantize_config.settings.penalty_weight(self._name)

    def _part(
        self, site: Site, latent: tf.Tensor, grid: GridTensors, reach: Any, parameters: Parameters
    ) -> tf.Tensor:
        if not self._speaks_of(site):
            return tf.constant(0.0)
        view = KernelView(
            name=site.name,
            latent=latent,
            grid=grid,
            reach=reach,
            channels=site.layer.channels,
            kernels=self._count,
            weights=self._weight_count,
            parameters=parameters,
        )
        return self._function(view, self.options)

    def _sum(
        self,
        latents: list[tf.Tensor],
        grids: list[GridTensors],
        reaches: list[Any],
        factors: list[Any],
        parameters: list[Parameters],
    ) -> tf.Tensor:
        given = zip(self._sites, latents, grids, reaches, parameters, strict=True)
        parts = [self._part(*kernel) for kernel in given]
        return tf.add_n([
            part * (weight * factor)
            for part, weight, factor in zip(parts, self.weights, factors, strict=True)
        ])  # fmt: skip
