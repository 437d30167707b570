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
    """

    def __init__(self, method: Method, options: Any, sites: Sequence[Site]) -> None:
        if method.penalty is None:
            raise ValueError(f"Method {method.name!r} has no penalty.")
        self._name, self._function, self.options = method.name, method.penalty, options
        self._trains_norms = method.trains_norms is not None and method.trains_norms(options)
        self._sites = list(sites)

    def value(self) -> tf.Tensor:
        """The sum over the kernels, as the method defines it, without a strength; float32, ()."""
        latents, grids = self._tensors()
        return self._sum(latents, grids, [0.0] * len(latents))

    def loss(self, strength: tf.Tensor, rate: Any) -> tf.Tensor:
        """strength * value; 0, and nothing is computed, while the strength is 0.

        Args:
            strength: float32, ().
            rate: the learning rate; None if it is not known (`KernelView.reach`).
        """
        reaches = self._reaches(strength, rate)
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
                    value = self._sum(latents, now, reaches)
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

    def _tensors(self) -> tuple[list[tf.Tensor], list[GridTensors]]:
        """The latent kernels, float32, and their grids."""
        with _compat.float32_variables():
            found = [site.layer.latent(site.kernel, self._trains_norms) for site in self._sites]
            grids = [site.quantizer.grid_now(site.variables) for site in self._sites]
        return [tf.convert_to_tensor(latent) for latent in found], grids

    def _reaches(self, strength: tf.Tensor, rate: Any) -> list[Any]:
        if rate is None:
            return [0.0] * len(self._sites)
        with _compat.float32_variables():
            return [
                strength * rate * self._weight(site) * site.layer.largest_slope()
                for site in self._sites
            ]

    def _weight(self, site: Site) -> float:
        return site.layer.quantize_config.settings.penalty_weight(self._name)

    def _sum(
        self, latents: list[tf.Tensor], grids: list[GridTensors], reaches: list[Any]
    ) -> tf.Tensor:
        parts = []
        for site, latent, grid, reach in zip(self._sites, latents, grids, reaches, strict=True):
            part = self._function(KernelView(site.name, latent, grid, reach), self.options)
            weight = self._weight(site)
            parts.append(part if weight == 1.0 else weight * part)
        return tf.add_n(parts)
