"""Callbacks that control when a penalty acts, and how strongly."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.recipe import BIN_REGULARIZATION
from tfbinreg.core.warning import QuantizationWarning, warn_never_acts
from tfbinreg.layers.sites import check_finite, kernel_sites
from tfbinreg.training.histograms import Board, write_bins
from tfbinreg.training.model import QuantizedModel
from tfbinreg.training.pulls import Pulls, check_measurable, rates_of_epochs
from tfbinreg.training.weight_statistics import bin_statistics

keras = _compat.keras

STRATEGIES = ("joint", "two_stage", "alternating", "ramp", "cosine")
STAGE_RESTS, STAGE_ACTS = 1, 2
AUTO = "auto"


class PenaltySchedule(keras.callbacks.Callback):
    """Controls when a penalty acts, and how strongly.

    Strategies; the first three are those of Han et al. (ICCV 2021, section 3.4 and Table 6) for the
    bin regularization:

    - "joint" (S1): the penalty acts from the first epoch.
    - "two_stage" (S2, the paper's choice): the penalty is off before `switch_epoch` and on from
      then on.
    - "alternating" (S3): for `period` epochs the steps learn and the penalty is off; for the next
      `period` epochs the penalty acts and the steps are held; and so on.
    - "ramp": the penalty is off before `switch_epoch`; the strength then rises linearly, epoch by
      epoch, and reaches its full value in the last one.
    - "cosine": the same with (1 - cos) / 2, slowly at the beginning and the end (Nagel et al., ICML
      2022).

    The stage is a function of the epoch number that Keras reports. So `initial_epoch` and
    `BackupAndRestore` resume in the right stage, and a second `fit` that starts at epoch 0 starts
    over, as with `LearningRateScheduler`. Switching only sets variables, so nothing is retraced.
    When training ends the strength is back at 0. If training is too short for the penalty ever to
    act, a `QuantizationWarning` is issued.

    At the end of each epoch, `<penalty>_strength` and `<penalty>_loss` (the penalty without its
    strength) are added to `logs`, for the callbacks that come later in the list; History and the
    progress bar always do. If a step or a weight is no longer finite, training ends with an error
    that names the layer.

    With strength "auto", each kernel has its own strength, chosen so that the penalty's pull on the
    kernel equals `pull`. Acting alone, and in small steps, such a pull would leave e^-pull of the
    distances to the levels when training ends. The effect of a strength depends on the learning
    rates, the steps and the sizes of kernels and bins; the effect of a pull does not (`Pulls`). The
    strengths are computed at the start of each epoch, from the weights and the rates of all epochs
    in which the penalty acts, distributed as the strategy says. Learning-rate schedules are summed
    exactly. A rate that a callback sets is assumed to stay constant: list that callback before this
    one. SGD, Adam and AdamW are supported. Adam divides by the gradients of previous steps, so
    there must have been some.

    Args:
        penalty: name of the penalty, one of `Recipe.penalties`.
        strategy: one of the five strategies.
        switch_epoch: first epoch, counted from 0, of the second stage of "two_stage", "ramp" and
            "cosine". For the last two, None means a quarter of the epochs, as in Nagel et al., but
            with strength "auto" not before the second epoch.
        strength: the factor of the penalty in the loss; a function epoch -> factor, which is called
            for the epochs in which the penalty acts; or "auto". "ramp" and "cosine" multiply it by
            their share.
        period: epochs per half cycle of "alternating".
        pull: the pull on a kernel with strength "auto"; the `penalty_weights` of rules multiply it.
        log_pull: whether to measure the pull of each epoch when it begins, as "auto" always does:
            `<penalty>_pull` in the logs is the mean over the kernels with a penalty weight. The
            History that `fit` returns also has `<penalty>_pull/<layer>`, which would clutter the
            progress bar.

    Raises:
        ValueError: for an unknown strategy, a missing or unused option, or a number that is
            negative or not finite; when training begins, for a pull that cannot be measured.
    """

    def __init__(
        self,
        penalty: str,
        strategy: str = "two_stage",
        switch_epoch: int | None = None,
        strength: float | str | Callable[[int], float] = 0.5,
        *,
        period: int = 1,
        pull: float = 1.0,
        log_pull: bool = False,
    ) -> None:
        super().__init__()
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}.")
        if switch_epoch is None and strategy == "two_stage":
            raise ValueError("strategy 'two_stage' needs a switch_epoch.")
        if switch_epoch is not None and strategy in ("joint", "alternating"):
            raise ValueError(f"strategy {strategy!r} has no switch_epoch.")
        if switch_epoch is not None and switch_epoch < 0:
            raise ValueError(f"switch_epoch must not be negative, got {switch_epoch}.")
        if period < 1:
            raise ValueError(f"period must be at least 1, got {period}.")
        if isinstance(strength, str):
            if strength != AUTO:
                raise ValueError(f'strength must be a number, a function or "auto": {strength!r}.')
        elif not callable(strength) and not 0.0 <= strength < math.inf:
            raise ValueError(f"strength must be finite and not negative, got {strength}.")
        if not 0.0 < pull < math.inf:
            raise ValueError(f"pull must be a positive number, got {pull}.")
        if pull != 1.0 and strength != AUTO:
            raise ValueError(f'pull is for strength="auto", got strength={strength!r}.')
        self.penalty, self.strategy, self.strength = penalty, strategy, strength
        self.switch_epoch, self.period, self.pull = switch_epoch, period, pull
        self.log_pull = log_pull or strength == AUTO
        self._rates: np.ndarray | None = None
        self._pulls: dict[str, float] = {}

    def stage(self, epoch: int) -> int:
        """1 while steps and weights learn from the task alone, 2 while the penalty acts."""
        return STAGE_ACTS if self._share(epoch) > 0.0 else STAGE_RESTS

    def _share(self, epoch: int) -> float:
        """The share of the strength that acts in an epoch, 0 to 1."""
        if self.strategy == "joint":
            return 1.0
        if self.strategy == "alternating":
            return float(epoch // self.period % 2)
        first, epochs = self.switch_epoch, self._epochs
        if first is None:
            first = epochs // 4
            if self.strength == AUTO:  # which needs to have seen Adam's steps
                first = max(first, min(1, epochs - 1))
        if epoch < first:
            return 0.0
        if self.strategy == "two_stage":
            return 1.0
        part = min(1.0, (epoch - first + 1) / max(1, epochs - first))
        return part if self.strategy == "ramp" else (1.0 - math.cos(math.pi * part)) / 2.0

    def set_model(self, model: Any) -> None:
        if not isinstance(model, QuantizedModel):
            name = type(self).__name__
            raise ValueError(f"{name} needs a model from tfbinreg.quantize_apply.")
        model.penalty(self.penalty)  # says so if the model has none of this name
        super().set_model(model)
        if self.strategy == "alternating":
            model.enable_step_holding()

    def on_train_begin(self, logs: Any = None) -> None:
        epochs = self._epochs
        if not any(self.stage(epoch) == STAGE_ACTS for epoch in range(epochs)):
            option = "period" if self.strategy == "alternating" else "switch_epoch"
            what = f"The {self.penalty.replace('_', ' ')}"
            warn_never_acts(what, option, getattr(self, option), epochs)
        if self.log_pull:
            check_measurable(self.model, self.penalty, self.params.get("steps"))
        self._rates, self._pulls = None, {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        acts = self.stage(epoch) == STAGE_ACTS
        strength = self._strength_of(epoch) if acts else 0.0
        self._strength.assign(strength)
        self.model.steps_held.assign(int(acts and self.strategy == "alternating"))
        if self.log_pull:
            self._tell_pulls()
            self._measure(epoch, strength)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        check_finite(self.model)
        if logs is not None:
            logs.update(self.logged(epoch))
            if self.log_pull:
                logs[f"{self.penalty}_pull"] = self._mean_pull()

    def logged(self, epoch: int) -> dict[str, float]:
        """What is added to the logs of an epoch."""
        return {
            f"{self.penalty}_strength": float(self._strength.numpy()),
            f"{self.penalty}_loss": float(self.model.penalty(self.penalty).numpy()),
        }

    def on_train_end(self, logs: Any = None) -> None:
        self._tell_pulls()
        self._strength.assign(0.0)
        self._factors.assign(tf.ones_like(self._factors))
        self.model.steps_held.assign(0)

    @property
    def _epochs(self) -> int:
        return (getattr(self, "params", None) or {}).get("epochs", 0)

    @property
    def _strength(self) -> tf.Variable:
        return self.model.strengths[self.penalty]

    @property
    def _factors(self) -> tf.Variable:
        return self.model.strength_factors[self.penalty]

    def _strength_of(self, epoch: int) -> float:
        if isinstance(self.strength, str):  # "auto"
            return self._share(epoch)
        strength = self.strength(epoch) if callable(self.strength) else self.strength
        if not 0.0 <= strength < math.inf:
            what = f"The strength of epoch {epoch}"
            raise ValueError(f"{what} is negative or not finite: {strength}.")
        return strength * self._share(epoch)

    def _measure(self, epoch: int, strength: float) -> None:
        """Set the factors of strength "auto", and record the pull of this epoch."""
        sites = kernel_sites(self.model)
        if strength == 0.0:
            self._pulls = {site.name: 0.0 for site in sites}
            return
        optimizer, rates = self.model.optimizer, self._rates
        is_first = rates is None
        if rates is None or not _compat.has_rate_schedule(optimizer):
            steps = self.params["steps"]
            rates = self._rates = rates_of_epochs(optimizer, epoch, self._epochs, steps)
        pulls = Pulls(self.model, self.penalty, rates)
        if self.strength == AUTO:
            shares = [self._share(each) for each in range(self._epochs)]
            if is_first:
                pulls.warn_of_short_ways(self.pull, shares)
            self._factors.assign(pulls.factors(self.pull, shares))
        found = pulls.of_epoch(epoch, strength)
        self._pulls = {site.name: float(p) for site, p in zip(sites, found, strict=True)}

    def _mean_pull(self) -> float:
        weights = self.model.penalty_of(self.penalty).weights
        counted = [p for p, weight in zip(self._pulls.values(), weights, strict=True) if weight > 0]
        return sum(counted) / max(1, len(counted))

    def _tell_pulls(self) -> None:
        """Add the pulls of the finished epoch to the History directly: the progress bar shows
        everything that is in the logs.
        """
        history: dict[str, list[float]] = getattr(self.model.history, "history", {})
        for name, pull in self._pulls.items():
            history.setdefault(f"{self.penalty}_pull/{name}", []).append(pull)
        self._pulls = {}


class BinRegularization(PenaltySchedule):
    """The schedule of the bin regularization (Han et al., ICCV 2021), with its statistics.

    Like `PenaltySchedule`, with different names in the logs: `br_stage` (1 LSQ, 2 BR),
    `br_strength` and `br_loss`. It also logs `quantization_error` (mean squared distance from the
    level, in steps squared) and `near_level` (share of weights within 0.1 step of it).

    With `scale_free`, a `QuantizationWarning` names kernels whose step has become so small, while
    the penalty acts, that their weights lie far beyond the grid. The cause is a strength that is
    too large for the task: the steps follow the task's loss, and momentum carries them through
    zero. The weights stay bounded; `br_loss`, which is then in steps squared, does not.

    Args:
        strategy: as for `PenaltySchedule`, like all arguments but the last two.
        switch_epoch: the first epoch of the second stage of "two_stage", "ramp" and "cosine".
        strength: lambda, or a function epoch -> lambda, or "auto". It acts through the learning
            rate: with x = lr * 2 * strength, each step moves a weight towards its level by the
            fraction x / (size of its bin + x) of the distance, or x / (size of its bin) without
            `BinOptions.bounded_pull`, as in the paper.
        period: epochs per half cycle of "alternating".
        pull: the pull with strength "auto".
        log_pull: whether to measure the pull: `bin_regularization_pull` in the logs.
        histogram_dir: folder for TensorBoard histograms of each kernel in units of its step; None
            for none.
        histogram_freq: epochs between histograms.

    Raises:
        ValueError: as for `PenaltySchedule`.
        ImportError: if `histogram_dir` is given and TensorBoard is not installed.
    """

    def __init__(
        self,
        strategy: str = "two_stage",
        switch_epoch: int | None = None,
        strength: float | str | Callable[[int], float] = 0.5,
        *,
        period: int = 1,
        pull: float = 1.0,
        log_pull: bool = False,
        histogram_dir: str | os.PathLike[str] | None = None,
        histogram_freq: int = 1,
    ) -> None:
        super().__init__(
            BIN_REGULARIZATION,
            strategy,
            switch_epoch,
            strength,
            period=period,
            pull=pull,
            log_pull=log_pull,
        )
        if histogram_freq < 1:
            raise ValueError(f"histogram_freq must be at least 1, got {histogram_freq}.")
        self._histograms = None
        if histogram_dir is not None:
            self._histograms = Board(histogram_dir, histogram_freq, who="histogram_dir")
        self._told: set[str] = set()

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self._told = set()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self._histograms is not None:
            self._histograms.write(epoch, lambda: write_bins(self.model))

    def logged(self, epoch: int) -> dict[str, float]:
        """What is added to the logs of an epoch; warns about steps that have become too small."""
        statistics = bin_statistics(self.model)
        options = self.model.recipe.options.get(self.penalty, {})
        if options.get("scale_free") and float(self._strength.numpy()) > 0.0:
            self._warn_of_small_steps(statistics.beyond)
        return {
            "br_stage": self.stage(epoch),
            "br_strength": float(self._strength.numpy()),
            "br_loss": float(self.model.penalty(self.penalty).numpy()),
            "quantization_error": statistics.error,
            "near_level": statistics.near,
        }

    def _warn_of_small_steps(self, names: tuple[str, ...]) -> None:
        """Warn about each kernel once per training."""
        new = [name for name in names if name not in self._told]
        self._told.update(new)
        if new:
            warnings.warn(
                f"The steps of {', '.join(new)} have become so small that the weights lie more "
                "than ten steps beyond the outermost level, which br_loss counts squared. Lower "
                "the strength of the bin regularization, or the learning rate.",
                QuantizationWarning,
                stacklevel=2,
            )

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        if self._histograms is not None:
            self._histograms.close()
