"""What happens to the kernels after each step of the optimizer: updates, and counts of changes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.layers.sites import Site
from tfbinreg.methods.contract import KernelStep, State
from tfbinreg.training.step_holding import hold
from tfbinreg.training.weight_statistics import share_of_few_bits


@dataclasses.dataclass(frozen=True, eq=False)
class Update:
    """One method's update of the kernels of a model.

    Attributes:
        apply: (step, state) -> the kernel and the state after it (`Method.update`).
        holds_steps: whether the kernels' steps stay fixed.
        states: name of a kernel it acts on -> its state's variables by their names.
        name: name of the method; None if each kernel's own method acts on it.
    """

    apply: Callable[[KernelStep, State], tuple[tf.Tensor, State]]
    holds_steps: bool
    states: Mapping[str, Mapping[str, tf.Variable]]
    name: str | None = None


class WeightUpdates:
    """Applies updates around a step of the optimizer, and counts the codes that change.

    Args:
        sites: the kernels.
        updates: applied in this order.
        rate: the learning rate of the next step.
        curvature: (kernel, name of a method) -> what the optimizer knows about the kernel's
            curvature (`KernelStep`), which the method needs.
        progress: the fraction of the training that is done, float32, ().
        changes: float32, (kernels,), to which the `share_of_few_bits` with changed codes is added;
            None counts nothing.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        updates: Sequence[Update],
        *,
        rate: Callable[[], tf.Tensor],
        curvature: Callable[[Site, str], tf.Tensor],
        progress: tf.Variable,
        changes: tf.Variable | None,
    ) -> None:
        self._sites, self._updates = sites, updates
        self._rate, self._curvature = rate, curvature
        self._progress, self._changes = progress, changes
        self._holds_steps = any(update.holds_steps for update in updates)

    def begin(self) -> Callable[[], None]:
        """Call it before a step of the optimizer, and call what it returns after the step."""
        with _compat.float32_variables():
            rate = self._rate()
            kernels = [tf.identity(site.kernel) for site in self._sites]
            codes = [
                site.quantizer.codes_now(kernel * site.layer.latent_factor(), site.variables)
                for site, kernel in zip(self._sites, kernels, strict=True)
            ]
            steps = [step for site in self._sites for step in site.learned]
            release = hold(steps, tf.constant(1)) if self._holds_steps else None

        def end() -> None:
            with _compat.float32_variables():
                if release is not None:
                    release()
                shares = [
                    self._end_of(site, kernel, own_codes, rate)
                    for site, kernel, own_codes in zip(self._sites, kernels, codes, strict=True)
                ]
                if self._changes is not None:
                    self._changes.assign_add(tf.stack(shares))

        return end

    def _end_of(
        self, site: Site, before: tf.Tensor, codes: tf.Tensor, rate: tf.Tensor
    ) -> tf.Tensor | None:
        """Update one kernel; returns the `share_of_few_bits` with changed codes, or None."""
        step = KernelStep(
            name=site.name,
            before=before,
            kernel=tf.convert_to_tensor(site.kernel),
            factor=site.layer.latent_factor(),
            codes_before=codes,
            grid=site.quantizer.grid_now(site.variables),
            rate=rate,
            progress=tf.convert_to_tensor(self._progress),
            variables=site.variables,
            quantized=lambda latent: site.quantizer.codes_now(latent, site.variables),
        )
        for update in self._updates:
            state = update.states.get(site.name)
            if state is None or not site.layer.trainable:
                continue  # of a frozen layer the optimizer knows nothing
            now = {name: tf.convert_to_tensor(variable) for name, variable in state.items()}
            who = update.name or site.method
            step = dataclasses.replace(
                step, curvature=functools.partial(self._curvature, site, who)
            )
            kernel, after = update.apply(step, now)
            for name, variable in state.items():
                variable.assign(after[name])
            step = dataclasses.replace(step, kernel=kernel)
        if self._updates:
            _compat.assign(site.kernel, step.kernel)
        if self._changes is None:
            return None
        return share_of_few_bits(step.grid, tf.not_equal(step.codes, codes))
