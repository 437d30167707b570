"""Kernels in steps, as TensorBoard histograms."""

from __future__ import annotations

import importlib
import os
from typing import Any

import tensorflow as tf

from tfbinreg.layers.sites import kernel_sites
from tfbinreg.training.weight_statistics import scaled_weights


class Histograms:
    """Writes each kernel, in steps, as a histogram `bins/<layer>`.

    Args:
        folder: where TensorBoard looks for them.
        every: epochs between histograms.

    Raises:
        ImportError: if TensorBoard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], every: int) -> None:
        try:
            importlib.import_module("tensorboard")
        except ImportError:
            raise ImportError("histogram_dir needs TensorBoard: pip install tensorboard") from None
        self._folder, self._every = os.fspath(folder), every
        self._writer: tf.summary.SummaryWriter | None = None

    def write(self, model: Any, epoch: int) -> None:
        """Write those of an epoch, if it is one of those that are written."""
        if epoch % self._every:
            return
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._folder)
        with self._writer.as_default(step=epoch):
            write_bins(model)
        self._writer.flush()

    def close(self) -> None:
        """End the file; `write` begins another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def write_bins(model: Any) -> None:
    """Write the kernels of a model, in steps, with the default writer and step."""
    for site in kernel_sites(model):
        tf.summary.histogram(f"bins/{site.name}", scaled_weights(site), buckets=120)
