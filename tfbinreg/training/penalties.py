"""Penalties on the quantized kernels of a model, as one loss each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.layers.sites import Site
from tfbinreg.methods.contract import GridTensors, KernelView, Method


class Penalty:
    """One method's penalty on the kernels of a model.

    Args:
        method: has a `penalty`.
        options: the method's.
        sites: the kernels.
        factors: of each kernel's part, a float32 variable (kernels,) that a schedule sets; None for
            ones.
    """

    def __init__(
        self, method: Method, options: Any, sites: Sequence[Site], factors: Any = None
    ) -> None:
        if method.penalty is None:
            raise ValueError(f"Method {method.name!r} has no penalty.")
        self._name, self._function, self.options = method.name, method.penalty, options
        self._trains_norms = method.trains_norms is not None and method.trains_norms(options)
        self._sites = list(sites)
        self._count = sum(weight > 0.0 for weight in self.weights)
        self._factors = factors

    @property
    def weights(self) -> list[float]:
        """The penalty weight of each kernel."""
        return [self._weight(site) for site in self._sites]

    def value(self) -> tf.Tensor:
        """The sum over the kernels, as the method defines it, without strength and factors;
        float32, ()."""
        latents, grids = self._tensors()
        return self._sum(latents, grids, [0.0] * len(latents), [1.0] * len(latents))

    def loss(self, strength: tf.Tensor, rate: Any) -> tf.Tensor:
        """strength * value, the kernels' parts multiplied by their factors; 0, and nothing is
        computed, while the strength is 0.

        Args:
            strength: float32, ().
            rate: the learning rate; None if it is not known (`KernelView.reach`).
        """
        factors = self._factors_now()
        reaches = self._reaches(strength, rate, factors)
        latents, grids = self._tensors()

        @tf.custom_gradient
        def loss(latents: list[tf.Tensor], scales: list[tf.Tensor]) -> Any:
            given = [*latents, *scales]
            now = [
                dataclasses.replace(grid, scale=scale)
                for grid, scale in zip(grids, scales, strict=True)
            ]

            # The gradients are taken inside the branch: those of a conditional would be a second
            # conditional.
            def acting() -> tuple[tf.Tensor, list[tf.Tensor]]:
                with tf.GradientTape() as tape:
                    tape.watch(given)
                    value = self._sum(latents, now, reaches, factors)
                zero = tf.UnconnectedGradients.ZERO
                return value, tape.gradient(value, given, unconnected_gradients=zero)

            def resting() -> tuple[tf.Tensor, list[tf.Tensor]]:
                return tf.constant(0.0), [tf.zeros(tensor.shape) for tensor in given]

            value, gradients = tf.cond(strength > 0.0, acting, resting)

            def gradient(upstream: tf.Tensor) -> Any:
                factor = strength * upstream
                pulled = [factor * part for part in gradients]
                return pulled[: len(latents)], pulled[len(latents) :]

            return strength * value, gradient

        return loss(latents, [grid.scale for grid in grids])

    def curvatures(self, strength: float = 0.0, rate: Any = None) -> list[tf.Tensor]:
        """How hard each kernel's weights are pulled to their levels t, float32 scalars.

        sum(m (w - t)) / sum((w - t)^2) over the latent weights w that are pulled, where m is how
        far w moves back when each number of the kernel moves by its gradient, of the kernel's part
        alone: without strength, penalty weight and factor. It is the mean curvature, weighted by
        squared errors: for the bin regularization about 2 over the weights of a bin. 0 where no
        weight is pulled.

        Args:
            strength, rate: as for `loss`, for penalties that are bounded by them.
        """
        factors = self._factors_now()
        reaches = self._reaches(tf.constant(strength), rate, factors)
        return [
            self._curvature(site, reach) for site, reach in zip(self._sites, reaches, strict=True)
        ]

    def _curvature(self, site: Site, reach: Any) -> tf.Tensor:
        with _compat.float32_variables():
            kernel = tf.convert_to_tensor(site.kernel)
            # A replicated variable cannot be watched here.
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(kernel)
                latent = site.layer.latent(kernel)
                grid = site.quantizer.grid_now(site.variables)
                part = self._part(site, latent, grid, reach)
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
        return site.layer.quantize_config.settings.penalty_weight(self._name)

    def _part(self, site: Site, latent: tf.Tensor, grid: GridTensors, reach: Any) -> tf.Tensor:
        view = KernelView(site.name, latent, grid, reach, site.layer.channels, self._count)
        return self._function(view, self.options)

    def _sum(
        self,
        latents: list[tf.Tensor],
        grids: list[GridTensors],
        reaches: list[Any],
        factors: list[Any],
    ) -> tf.Tensor:
        given = zip(self._sites, latents, grids, reaches, strict=True)
        parts = [self._part(*kernel) for kernel in given]
        return tf.add_n([
            part * (weight * factor)
            for part, weight, factor in zip(parts, self.weights, factors, strict=True)
        ])  # fmt: skip
