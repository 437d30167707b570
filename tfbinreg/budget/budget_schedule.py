"""`FlashBudgetSchedule`: a Keras callback that makes learned bits fit into flash."""

from __future__ import annotations

import math
import warnings
from typing import Any

from tfbinreg import _compat
from tfbinreg.budget.packed_bytes import packed_bytes
from tfbinreg.core.warning import QuantizationWarning
from tfbinreg.training.model import QuantizedModel

keras = _compat.keras

_FASTEST = 4.0  # by which the strength changes in an epoch at most
_LEAST = 1e-4  # of the strength at the beginning: from 0 there would be no way back


class FlashBudgetSchedule(keras.callbacks.Callback):
    """Steers the penalty of a method that learns bits so that the packed weights fit into a budget.

    At the end of each epoch the packed bytes B are compared with a target T, which falls at equal
    ratios from what they are when training begins to `limit` at `until`, and stays there:

        strength <- strength * (B / T)^gain        at most by a factor of 4 either way

    So bytes above the target raise the strength, and bytes below the limit lower it: accuracy is
    not given away for nothing. In between it stays: bits that fall early mostly stop early, and a
    strength that was lowered meanwhile would not bring the rest. `packed_bytes` and
    `<penalty>_strength` are in the logs. When training ends above the limit, a
    `QuantizationWarning` says by how much.

    Args:
        penalty: name of the method whose penalty takes bits away.
        limit: bytes for packed weights and the constants of their channels.
        until: the part of the epochs after which the limit is to be kept.
        gain: how fast the strength answers.

    Raises:
        ValueError: for a number outside its range; when training begins, for a model without the
            penalty or whose penalty has no strength to start from.
    """

    def __init__(self, penalty: str, limit: int, *, until: float = 0.7, gain: float = 4.0) -> None:
        super().__init__()
        if limit < 1:
            raise ValueError(f"limit must be at least 1 byte, got {limit!r}.")
        if not 0.0 < until <= 1.0:
            raise ValueError(f"until must be above 0 and at most 1, got {until!r}.")
        if not 0.0 < gain < math.inf:
            raise ValueError(f"gain must be a positive number, got {gain!r}.")
        self.penalty, self.limit, self.until, self.gain = penalty, limit, until, gain
        self._first_bytes = 0
        self._first_strength = 0.0

    def set_model(self, model: Any) -> None:
        if not isinstance(model, QuantizedModel):
            raise ValueError("FlashBudgetSchedule needs a model from tfbinreg.quantize_apply.")
        model.penalty(self.penalty)  # says so if the model has none of this name
        super().set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        self._first_bytes = packed_bytes(self.model)
        self._first_strength = float(self.model.strengths[self.penalty].numpy())
        if self._first_strength <= 0.0:
            raise ValueError(
                f"The strength of {self.penalty!r} is 0: give the method one in the recipe's "
                "options, which the schedule then steers."
            )

    def target(self, epoch: int) -> float:
        """Bytes that are wanted after an epoch, counted from 0."""
        epochs = max(1, (self.params or {}).get("epochs", 1))
        part = min(1.0, (epoch + 1) / (self.until * epochs))
        first = max(self._first_bytes, self.limit)
        return first * (self.limit / first) ** part

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        strength = self.model.strengths[self.penalty]
        now = packed_bytes(self.model)
        if logs is not None:
            logs["packed_bytes"] = now
            logs[f"{self.penalty}_strength"] = float(strength.numpy())
        change = (now / self.target(epoch)) ** self.gain
        least = 1.0 if now > self.limit else 1.0 / _FASTEST
        change = min(max(change, least), _FASTEST)
        strength.assign(max(float(strength.numpy()) * change, _LEAST * self._first_strength))

    def on_train_end(self, logs: Any = None) -> None:
        now = packed_bytes(self.model)
        if now > self.limit:
            warnings.warn(
                f"The packed weights take {now} bytes, {now - self.limit} more than the budget: "
                "train longer, start with a larger strength, or raise the limit.",
                QuantizationWarning,
                stacklevel=2,
            )
