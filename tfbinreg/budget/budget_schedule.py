"""`FlashBudgetSchedule`: a Keras callback that makes learned bits fit into flash."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Callable
from typing import Any

from tfbinreg import _compat
from tfbinreg.budget.packed_bytes import packed_bytes
from tfbinreg.core.warning import QuantizationWarning
from tfbinreg.layers.sites import activation_sites
from tfbinreg.training.model import QuantizedModel

keras = _compat.keras

_FASTEST, _FIFTHS = 100.0, 5.0  # by which the strength changes at most in a fifth of the training
_LEAST = 1e-4  # of the strength at the beginning: from 0 there would be no way back


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


class FlashBudgetSchedule(keras.callbacks.Callback):
    """Controls the penalty of a method that learns bits so that the packed weights fit a budget.

    Several times in each epoch, the packed bytes B are compared with a target T. T falls at equal
    ratios from the bytes at the start of training to `limit` at `until`, and stays there:

        strength <- strength * (B / T)^(gain / looks)

    by at most a factor of 100 in a fifth of the training. So bytes above the target raise the
    strength, and bytes below the limit lower it, so that no accuracy is lost needlessly. In between
    the strength does not change: bits that fall early usually stop falling early, and with a
    strength that was lowered in the meantime the rest would not fall. From `until` on, while the
    bytes are above the limit by any amount, the strength grows as fast as it may: bits fall by
    whole layers. `packed_bytes` and `<penalty>_strength` are in the logs. If training ends above
    the limit, a `QuantizationWarning` reports by how much.

    B is an estimate plus the difference that `count` has found: `count` is called when training
    begins and after each epoch. `tflite_tools.c_bytes` counts the actual bytes of the C code; for a
    model with open sizes use `lambda model: c_bytes(model, input_shape=...)`.

    The bytes at the start are not saved with the model: if a training is resumed, its target falls
    from the bytes at that point.

    Args:
        penalty: name of the method whose penalty takes bits away.
        limit: bytes for packed weights and the constants of their channels.
        until: the fraction of the epochs after which the limit has to be met.
        gain: how fast the strength responds.
        looks: how many times per epoch the bytes are checked. Where Keras does not know the number
            of steps before an epoch ends, they are checked only at its end.
        count: bytes of the quantized model in its current state; None for the estimate alone.

    Raises:
        ValueError: for an argument outside its range; when training begins, for a model that does
            not have the penalty, whose penalty has no strength to start from, or that is not
            calibrated although `count` is given.
    """

    def __init__(
        self,
        penalty: str,
        limit: int,
        *,
        until: float = 0.5,
        gain: float = 4.0,
        looks: int = 10,
        count: Callable[[Any], int] | None = None,
    ) -> None:
        super().__init__()
        if not (_is_whole(limit) and limit >= 1):
            raise ValueError(f"limit must be a whole number of bytes from 1 on, got {limit!r}.")
        if not (_is_number(until) and 0.0 < until <= 1.0):
            raise ValueError(f"until must be above 0 and at most 1, got {until!r}.")
        if not (_is_number(gain) and 0.0 < gain < math.inf):
            raise ValueError(f"gain must be a positive number, got {gain!r}.")
        if not (_is_whole(looks) and looks >= 1):
            raise ValueError(f"looks must be a whole number from 1 on, got {looks!r}.")
        if not (count is None or callable(count)):
            raise ValueError(
                f"count must be a function that takes the model, such as tflite_tools.c_bytes, got "
                f"{count!r}."
            )
        self.penalty, self.limit, self.until, self.gain = penalty, limit, until, gain
        self.looks, self.count = looks, count
        self._first_bytes = 0
        self._first_strength = 0.0
        self._beyond = 0  # what `count` finds more than the estimate
        self._epoch = 0
        self._looked = 0  # how often in this epoch

    def set_model(self, model: Any) -> None:
        if not isinstance(model, QuantizedModel):
            raise ValueError("FlashBudgetSchedule needs a model from tfbinreg.quantize_apply.")
        model.penalty(self.penalty)  # says so if the model has none of this name
        super().set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        if self.count is not None and not all(
            s.layer.is_ready for s in activation_sites(self.model)
        ):
            raise ValueError(
                "FlashBudgetSchedule counts what the model takes when training begins, and not all "
                "of its grids have started: pass calibration_data to quantize_apply."
            )
        self._first_bytes = self._counted()
        self._first_strength = float(self.model.strengths[self.penalty].numpy())
        if self._first_strength <= 0.0:
            raise ValueError(
                f"The strength of {self.penalty!r} is 0: give the method one in the recipe's "
                "options, which the schedule then steers."
            )

    @property
    def _epochs(self) -> int:
        return max(1, (self.params or {}).get("epochs", 1))

    def target(self, epoch: float) -> float:
        """The target in bytes after this many epochs, which may be fractional."""
        part = epoch / (self.until * self._epochs)
        if part >= 1.0:
            return self.limit  # exactly: a product may differ in its last digit
        first = max(self._first_bytes, self.limit)
        return first * (self.limit / first) ** part

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch, self._looked = epoch, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        steps = (self.params or {}).get("steps")
        due = (batch + 1) * self.looks // steps if steps else 0
        if self._looked < due < self.looks:  # the last look is at the epoch's end
            self._steer(packed_bytes(self.model) + self._beyond, due)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        now = self._counted()
        if logs is not None:
            logs["packed_bytes"] = now
            logs[f"{self.penalty}_strength"] = float(self.model.strengths[self.penalty].numpy())
        self._steer(now, self.looks)

    def on_train_end(self, logs: Any = None) -> None:
        now = packed_bytes(self.model) + self._beyond
        if now > self.limit:
            warnings.warn(
                f"The packed weights take {now} bytes, {now - self.limit} more than the budget: "
                "train longer, start with a larger strength, or raise the limit.",
                QuantizationWarning,
                stacklevel=2,
            )

    def _counted(self) -> int:
        estimate = packed_bytes(self.model)
        if self.count is not None:
            counted = self.count(self.model)
            if not (_is_whole(counted) and counted >= 1):
                raise ValueError(f"count must give a whole number from 1 on, got {counted!r}.")
            self._beyond = counted - estimate
        return estimate + self._beyond

    def _steer(self, now: int, looked: int) -> None:
        """Change the strength according to the bytes, after `looked` of an epoch's looks."""
        part = (looked - self._looked) / self.looks  # of an epoch since the last one
        self._looked = looked
        target = self.target(self._epoch + looked / self.looks)
        change = self.gain * math.log(now / target)
        most = math.log(_FASTEST) * _FIFTHS / self._epochs
        if now > self.limit:
            change = most if target == self.limit else max(change, 0.0)
        strength = self.model.strengths[self.penalty]
        new = float(strength.numpy()) * math.exp(min(max(change, -most), most) * part)
        strength.assign(max(new, _LEAST * self._first_strength))
