"""A run's state on disk after each epoch, so that a killed run continues to the same result."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras

from examples.study.files import load_arrays, save_arrays


class Checkpoint(keras.callbacks.Callback):
    """Keeps weights, optimizer, curves and costs of a run after each epoch.

    The order of the images and their augmentation follow from seed and epoch, so nothing else is
    needed to go on. Comes last among the callbacks, for it keeps their logs.

    Args:
        path: its file.
        commit: of the code; a run that goes on with other code keeps both.

    Attributes:
        curves: each log as a list over the epochs.
        commits: the code's, in order.
        seconds: of processor time so far.
    """

    def __init__(self, path: Path, commit: str) -> None:
        super().__init__()
        self.curves: dict[str, list[float]] = {}
        self.commits = [commit]
        self.seconds = 0.0
        self._path, self._clock = path, time.process_time()

    def restore(self, model: Any) -> int:
        """Set a compiled model to the state that is kept, if any.

        Returns:
            the number of epochs done.
        """
        model.optimizer.build(model.trainable_variables)
        if not self._path.exists():
            return 0
        arrays = load_arrays(self._path)
        meta = json.loads(str(arrays.pop()))
        self.curves, self.seconds = meta["curves"], meta["seconds"]
        self.commits = list(dict.fromkeys([*meta["commits"], *self.commits]))
        count = len(model.weights)
        model.set_weights(arrays[:count])
        variables = model.optimizer.variables
        for variable, value in zip(variables, arrays[count:], strict=True):
            variable.assign(value)
        return meta["epochs"]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for name, value in (logs or {}).items():
            self.curves.setdefault(name, []).append(float(value))
        self.count_time()
        meta = {
            "epochs": epoch + 1,
            "curves": self.curves,
            "commits": self.commits,
            "seconds": self.seconds,
        }
        optimizer = [variable.numpy() for variable in self.model.optimizer.variables]
        save_arrays(
            self._path, [*self.model.get_weights(), *optimizer, np.asarray(json.dumps(meta))]
        )

    def count_time(self) -> None:
        """Add the processor time since the last count to `seconds`."""
        now = time.process_time()
        self.seconds, self._clock = self.seconds + now - self._clock, now

    def remove(self) -> None:
        """The run is done."""
        self._path.unlink(missing_ok=True)
