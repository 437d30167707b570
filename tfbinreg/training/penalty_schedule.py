"""`BinRegularization`: the callback that says when the bin regularization acts, and how hard."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.warning import QuantizationWarning, warn_never_acts
from tfbinreg.layers.sites import check_finite
from tfbinreg.training.model import QuantizedModel
from tfbinreg.training.weight_statistics import bin_statistics, write_histograms

keras = _compat.keras

STRATEGIES = ("joint", "two_stage", "alternating")
STAGE_LSQ, STAGE_BR = 1, 2


class BinRegularization(keras.callbacks.Callback):
    """Schedules bin regularization (Han et al., ICCV 2021, section 3.4 and Table 6).

    Strategies:

    - "joint" (S1): steps and bins are trained together from the first epoch.
    - "two_stage" (S2, the paper's choice): plain LSQ before `switch_epoch`, joint from it on.
    - "alternating" (S3): for `period` epochs the steps learn and the regularization rests, for the
      next `period` epochs the regularization acts and the steps rest, and so on.

    The stage is a function of the epoch number Keras reports, so `initial_epoch` and
    `BackupAndRestore` resume in the right stage, and a second `fit` that starts at epoch 0 starts
    over, as with `LearningRateScheduler`. Switching only sets variables: nothing is traced again.
    When training ends the strength is back at 0. A regularization that would never act, because
    training is too short for it, is told with a `QuantizationWarning`, and so are, with
    `scale_free`, kernels whose step has become so small while it acts that their weights lie far
    beyond the grid. A strength that is too large for the task does that: the steps follow the
    task's loss, with momentum through zero. The weights stay bounded; `br_loss`, then in steps
    squared, does not.

    At the end of each epoch these are added to `logs`, for the callbacks that come later in the
    list (History and the progress bar always do): `br_stage` (1 LSQ, 2 BR), `br_strength`,
    `br_loss` (the penalty without the strength), `quantization_error` (mean squared distance from
    the level, in steps squared) and `near_level` (share of weights within 0.1 step of it).

    Args:
        strategy: "joint", "two_stage" or "alternating".
        switch_epoch: first epoch, counted from 0, of the second stage of "two_stage".
        strength: lambda, or a function epoch -> lambda, which is asked for the epochs in which the
            regularization acts. It acts through the learning rate: with x = lr * 2 * strength, a
            weight goes the part x / (size of its bin + x) of its way to its level per step, or the
            part x / (size of its bin), as in the paper, without `BinOptions.bounded_pull`.
        period: epochs per half cycle of "alternating".
        histogram_dir: folder for TensorBoard histograms of each kernel in steps, None for none.
        histogram_freq: epochs between histograms.

    Raises:
        ValueError: for an unknown strategy, a missing or unused option, or a negative number.
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
        super().__init__()
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}.")
        if (switch_epoch is None) == (strategy == "two_stage"):
            raise ValueError("switch_epoch goes with strategy 'two_stage', and is needed there.")
        if switch_epoch is not None and switch_epoch < 0:
            raise ValueError(f"switch_epoch must not be negative, got {switch_epoch}.")
        if period < 1 or histogram_freq < 1:
            raise ValueError("period and histogram_freq must be at least 1.")
        if not callable(strength) and strength < 0:
            raise ValueError(f"strength must not be negative, got {strength}.")
        if histogram_dir is not None:
            _require_tensorboard()
        self.strategy, self.switch_epoch, self.period = strategy, switch_epoch, period
        self.strength = strength
        self._histogram_dir, self._histogram_freq = histogram_dir, histogram_freq
        self._writer: tf.summary.SummaryWriter | None = None
        self._told: set[str] = set()

    def stage(self, epoch: int) -> int:
        """1 while only the steps and weights learn from the task, 2 while bins are regularized."""
        if self.strategy == "joint":
            return STAGE_BR
        if self.strategy == "two_stage":
            return STAGE_BR if epoch >= (self.switch_epoch or 0) else STAGE_LSQ
        return STAGE_BR if (epoch // self.period) % 2 else STAGE_LSQ

    def set_model(self, model: Any) -> None:
        if not isinstance(model, QuantizedModel):
            raise ValueError("BinRegularization needs a model from tfbinreg.quantize_apply.")
        super().set_model(model)
        if self.strategy == "alternating":
            model.enable_step_holding()

    def on_train_begin(self, logs: Any = None) -> None:
        epochs = self.params.get("epochs", 0)
        self._told = set()
        if not any(self.stage(epoch) == STAGE_BR for epoch in range(epochs)):
            option = "switch_epoch" if self.strategy == "two_stage" else "period"
            warn_never_acts("The bin regularization", option, getattr(self, option), epochs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        acts = self.stage(epoch) == STAGE_BR
        self.model.bin_strength.assign(self._strength_of(epoch) if acts else 0.0)
        self.model.steps_held.assign(int(acts and self.strategy == "alternating"))

    def _strength_of(self, epoch: int) -> float:
        strength = self.strength(epoch) if callable(self.strength) else self.strength
        if strength < 0:
            raise ValueError(f"The strength of epoch {epoch} is negative: {strength}.")
        return strength

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        check_finite(self.model)
        statistics = bin_statistics(self.model)
        if self.model.bin_options.scale_free and float(self.model.bin_strength.numpy()) > 0.0:
            self._warn_of_small_steps(statistics.beyond)
        if logs is not None:
            logs["br_stage"] = self.stage(epoch)
            logs["br_strength"] = float(self.model.bin_strength.numpy())
            logs["br_loss"] = float(self.model.bin_penalty().numpy())
            logs["quantization_error"] = statistics.error
            logs["near_level"] = statistics.near
        if self._histogram_dir is not None and epoch % self._histogram_freq == 0:
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(os.fspath(self._histogram_dir))
            write_histograms(self.model, self._writer, epoch)

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
        self.model.bin_strength.assign(0.0)
        self.model.steps_held.assign(0)
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _require_tensorboard() -> None:
    try:
        importlib.import_module("tensorboard")
    except ImportError:
        raise ImportError("histogram_dir needs TensorBoard: pip install tensorboard") from None
