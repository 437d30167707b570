"""What TensorBoard shows of a quantized model's training."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.layers.sites import activation_sites, kernel_sites, require_quantized
from tfbinreg.training.histograms import Board, write_bins
from tfbinreg.training.quantizer_log import step_of
from tfbinreg.training.weight_statistics import shares_near_edges

keras = _compat.keras


class QuantizationBoard(keras.callbacks.Callback):
    """Writes bins, steps, flips, penalties and sizes for TensorBoard, at the end of epochs.

    - `bins/<layer>`: each kernel in units of its step, as a histogram;
    - `step/<layer>`: the step of kernels and of activations; the mean where channels have their own
      steps;
    - `flips/<layer>`: the share of codes that differ from those at the last write; at the first
      write, from those before training;
    - `near_edge/<layer>`: the share of weights within 5 % of a step of the edge between two bins;
      in this and in `flips`, weights of pruned channels do not count;
    - `weight_bits/<layer>`: the bits of the codes per weight;
    - `penalty/<name>` and `strength/<name>`: each penalty without its strength, and the strength;
    - `size/packed_weight_bytes`: the bytes of all codes at their bits.

    Loss and metrics are left to `tf_keras.callbacks.TensorBoard`, which may write to the same
    folder. `TransitionLog` counts every code change between two optimizer steps, which takes
    longer.

    Args:
        log_dir: the folder that TensorBoard reads.
        every: epochs between two writes.

    Raises:
        ValueError: if `every` is below 1, or the model is not quantized.
        ImportError: if TensorBoard is not installed.
    """

    def __init__(self, log_dir: str | os.PathLike[str], *, every: int = 1) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}.")
        self._board = Board(log_dir, every, who="QuantizationBoard")
        self._codes: dict[str, np.ndarray] = {}

    def set_model(self, model: Any) -> None:
        require_quantized(model)
        super().set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        self._codes = self._codes_now()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._board.write(epoch, self._write)

    def on_train_end(self, logs: Any = None) -> None:
        self._board.close()

    def _write(self) -> None:
        write_bins(self.model)
        for name, value in self._scalars().items():
            tf.summary.scalar(name, value)

    def _codes_now(self) -> dict[str, np.ndarray]:
        return {site.name: site.codes() for site in kernel_sites(self.model)}

    def _scalars(self) -> dict[str, float]:
        found, size, codes = {}, 0.0, self._codes_now()
        near = shares_near_edges(self.model)
        for site in kernel_sites(self.model):
            bits = site.grid().code_bits(site.size)
            size += bits / 8
            found[f"step/{site.name}"] = step_of(site)
            flips = tf.constant(codes[site.name] != self._codes[site.name])
            grid = site.quantizer.grid_now(site.variables)
            found[f"flips/{site.name}"] = float(grid.mean(tf.cast(flips, tf.float32)))
            found[f"near_edge/{site.name}"] = near[site.name]
            found[f"weight_bits/{site.name}"] = bits / site.size
        for site in activation_sites(self.model):
            found[f"step/{site.name}"] = step_of(site)
        for name, strength in self.model.strengths.items():
            found[f"penalty/{name}"] = float(self.model.penalty(name))
            found[f"strength/{name}"] = float(strength.numpy())
        self._codes = codes
        return {**found, "size/packed_weight_bytes": size}
