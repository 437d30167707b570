"""Output for TensorBoard: a log folder, and histograms of kernels in units of their steps."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfbinreg.layers.sites import kernel_sites
from tfbinreg.training.weight_statistics import scaled_weights


class Board:
    """A TensorBoard log folder, written to at the end of epochs.

    Args:
        folder: its path.
        every: epochs between two writes.
        who: name of the feature that needs TensorBoard, for the error message.

    Raises:
        ImportError: if TensorBoard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], every: int, *, who: str) -> None:
        try:
            importlib.import_module("tensorboard")
        except ImportError:
            raise ImportError(f"{who} needs TensorBoard: pip install tensorboard") from None
        self._folder, self._every = os.fspath(folder), every
        self._writer: tf.summary.SummaryWriter | None = None

    def write(self, epoch: int, write: Callable[[], None]) -> None:
        """Call `write` with the default writer and step set, if this epoch is to be written."""
        if epoch % self._every:
            return
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._folder)
        with self._writer.as_default(step=epoch):
            write()
        self._writer.flush()

    def close(self) -> None:
        """Close the file; `write` starts a new one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def write_bins(model: Any) -> None:
    """Write the kernels of a model, in units of their steps, as histograms `bins/<layer>`."""
    for site in kernel_sites(model):
        tf.summary.histogram(f"bins/{site.name}", scaled_weights(site), buckets=120)
