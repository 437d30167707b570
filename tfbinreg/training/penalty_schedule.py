"""Callbacks that say when a penalty acts, and how hard."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.recipe import BIN_REGULARIZATION
from tfbinreg.core.warning import QuantizationWarning, warn_never_acts
from tfbinreg.layers.sites import check_finite
from tfbinreg.training.histograms import Histograms
from tfbinreg.training.model import QuantizedModel
from tfbinreg.training.weight_statistics import bin_statistics

keras = _compat.keras

STRATEGIES = ("joint", "two_stage", "alternating")
STAGE_RESTS, STAGE_ACTS = 1, 2


class PenaltySchedule(keras.callbacks.Callback):
    """Says when a penalty acts, and how hard.

    Strategies (Han et al., ICCV 2021, section 3.4 and Table 6, for the bin regularization):

    - "joint" (S1): the penalty acts from the first epoch.
    - "two_stage" (S2, the paper's choice): it rests before `switch_epoch` and acts from it on.
    - "alternating" (S3): for `period` epochs the steps learn and the penalty rests, for the next
      `period` epochs the penalty acts and the steps rest, and so on.

    The stage is a function of the epoch number Keras reports, so `initial_epoch` and
    `BackupAndRestore` resume in the right stage, and a second `fit` that starts at epoch 0 starts
    over, as with `LearningRateScheduler`. Switching only sets variables: nothing is traced again.
    When training ends the strength is back at 0. A penalty that would never act, because training
    is too short for it, is told with a `QuantizationWarning`.

    At the end of each epoch `<penalty>_strength` and `<penalty>_loss` (the penalty without its
    strength) are added to `logs`, for the callbacks that come later in the list; History and the
    progress bar always do. A step or a weight that is no longer finite ends training with an error
    that names the layer.

    Args:
        penalty: its name, one of `Recipe.penalties`.
        strategy: "joint", "two_stage" or "alternating".
        switch_epoch: first epoch, counted from 0, of the second stage of "two_stage".
        strength: the factor of the penalty in the loss, or a function epoch -> factor, which is
            asked for the epochs in which the penalty acts.
        period: epochs per half cycle of "alternating".

    Raises:
        ValueError: for an unknown strategy, a missing or unused option, or a negative number.
    """

    def __init__(
        self,
        penalty: str,
        strategy: str = "two_stage",
        switch_epoch: int | None = None,
        strength: float | Callable[[int], float] = 0.5,
        *,
        period: int = 1,
    ) -> None:
        super().__init__()
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}.")
        if (switch_epoch is None) == (strategy == "two_stage"):
            raise ValueError("switch_epoch goes with strategy 'two_stage', and is needed there.")
        if switch_epoch is not None and switch_epoch < 0:
            raise ValueError(f"switch_epoch must not be negative, got {switch_epoch}.")
        if period < 1:
            raise ValueError(f"period must be at least 1, got {period}.")
        if not callable(strength) and strength < 0:
            raise ValueError(f"strength must not be negative, got {strength}.")
        self.penalty, self.strategy, self.strength = penalty, strategy, strength
        self.switch_epoch, self.period = switch_epoch, period

    def stage(self, epoch: int) -> int:
        """1 while steps and weights learn from the task only, 2 while the penalty acts."""
        if self.strategy == "joint":
            return STAGE_ACTS
        if self.strategy == "two_stage":
            return STAGE_ACTS if epoch >= (self.switch_epoch or 0) else STAGE_RESTS
        return STAGE_ACTS if (epoch // self.period) % 2 else STAGE_RESTS

    def set_model(self, model: Any) -> None:
        if not isinstance(model, QuantizedModel):
            name = type(self).__name__
            raise ValueError(f"{name} needs a model from tfbinreg.quantize_apply.")
        model.penalty(self.penalty)  # says so if the model has none of this name
        super().set_model(model)
        if self.strategy == "alternating":
            model.enable_step_holding()

    def on_train_begin(self, logs: Any = None) -> None:
        epochs = self.params.get("epochs", 0)
        if not any(self.stage(epoch) == STAGE_ACTS for epoch in range(epochs)):
            option = "switch_epoch" if self.strategy == "two_stage" else "period"
            what = f"The {self.penalty.replace('_', ' ')}"
            warn_never_acts(what, option, getattr(self, option), epochs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        acts = self.stage(epoch) == STAGE_ACTS
        self._strength.assign(self._strength_of(epoch) if acts else 0.0)
        self.model.steps_held.assign(int(acts and self.strategy == "alternating"))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        check_finite(self.model)
        if logs is not None:
            logs.update(self.logged(epoch))

    def logged(self, epoch: int) -> dict[str, float]:
        """What is added to the logs of an epoch."""
        return {
            f"{self.penalty}_strength": float(self._strength.numpy()),
            f"{self.penalty}_loss": float(self.model.penalty(self.penalty).numpy()),
        }

    def on_train_end(self, logs: Any = None) -> None:
        self._strength.assign(0.0)
        self.model.steps_held.assign(0)

    @property
    def _strength(self) -> tf.Variable:
        return self.model.strengths[self.penalty]

    def _strength_of(self, epoch: int) -> float:
        strength = self.strength(epoch) if callable(self.strength) else self.strength
        if strength < 0:
            raise ValueError(f"The strength of epoch {epoch} is negative: {strength}.")
        return strength


class BinRegularization(PenaltySchedule):
    """The schedule of the bin regularization (Han et al., ICCV 2021), with its statistics.

    As `PenaltySchedule`, with other names in the logs: `br_stage` (1 LSQ, 2 BR), `br_strength`,
    `br_loss`, and besides them `quantization_error` (mean squared distance from the level, in steps
    squared) and `near_level` (share of weights within 0.1 step of it).

    With `scale_free`, kernels whose step has become so small while the penalty acts that their
    weights lie far beyond the grid are told with a `QuantizationWarning`. A strength that is too
    large for the task does that: the steps follow the task's loss, with momentum through zero. The
    weights stay bounded; `br_loss`, then in steps squared, does not.

    Args:
        strategy: as for `PenaltySchedule`, like the following three.
        switch_epoch: the first epoch of the second stage of "two_stage".
        strength: lambda, or a function epoch -> lambda. It acts through the learning rate: with
            x = lr * 2 * strength, a weight goes the part x / (size of its bin + x) of its way to
            its level per step, or the part x / (size of its bin), as in the paper, without
            `BinOptions.bounded_pull`.
        period: epochs per half cycle of "alternating".
        histogram_dir: folder for TensorBoard histograms of each kernel in steps, None for none.
        histogram_freq: epochs between histograms.

    Raises:
        ValueError: as for `PenaltySchedule`.
        ImportError: if histograms are wanted and TensorBoard is not installed.
    """

    def __init__(
        self,
        strategy: str = "two_stage",
        switch_epoch: int | None = None,
        strength: float | Callable[[int], float] = 0.5,
        *,
        period: int = 1,
        histogram_dir: str | os.PathLike[str] | None = None,
        histogram_freq: int = 1,
    ) -> None:
        super().__init__(BIN_REGULARIZATION, strategy, switch_epoch, strength, period=period)
        if histogram_freq < 1:
            raise ValueError(f"histogram_freq must be at least 1, got {histogram_freq}.")
        self._histograms = None
        if histogram_dir is not None:
            self._histograms = Histograms(histogram_dir, histogram_freq)
        self._told: set[str] = set()

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self._told = set()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self._histograms is not None:
            self._histograms.write(self.model, epoch)

    def logged(self, epoch: int) -> dict[str, float]:
        """What is added to the logs of an epoch; warns of steps that have become too small."""
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
        """Warn once in a training of each kernel."""
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
