"""What is measured: accuracies with several statistics, and where the weights are in their bins."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tf_keras as keras

import tfbinreg
from examples.study.data import Data, Part, as_input, epoch_batches
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.training.weight_statistics import bin_statistics, scaled_weights
from tflite_tools import c_bytes
from tflite_tools.schema.contents import load

BATCH = 500
STATISTICS_BATCH, STATISTICS_BATCHES = 100, 50


def accuracy(model: Any, part: Part) -> float:
    """Share of images named right, in percent."""
    images, labels = part
    right = 0
    for begin in range(0, len(images), BATCH):
        rows = slice(begin, begin + BATCH)
        classes = model.predict_on_batch(as_input(images[rows])).argmax(-1)
        right += int(np.sum(classes == labels[rows]))
    return 100 * right / len(images)


def accuracies(model: Any, data: Data, report: bool) -> dict[str, float]:
    """Of a model as it is, by part; that of the test rows only with `report`."""
    parts = {"choice": data.choice, **({"test": data.test} if report else {})}
    return {name: accuracy(model, part) for name, part in parts.items()}


def final_accuracies(
    model: Any, data: Data, report: bool, as_trained: Sequence[Part]
) -> dict[str, dict[str, float]]:
    """Accuracies of a trained model in percent, by the statistics it normalizes with and by part.

    "moving": the moving averages of training; "reestimated": averages over batches as in training;
    "reestimated_plain": over the first 5,000 training images as they are; "deployed", of a
    quantized model: after `finalize`, which keeps that of the first two with which the integer
    model names more of the augmented training images right. The test rows appear only with
    `report`. The model is finalized afterwards.

    Args:
        model: trained.
        data: whose parts are measured.
        report: whether the test rows may be looked at.
        as_trained: (inputs, classes) batches, augmented if training was.
    """
    found = {"moving": accuracies(model, data, report)}
    before = model.get_weights()
    ways = {"reestimated": as_trained, "reestimated_plain": list(_plain(data.train))}
    for name, batches in ways.items():
        inputs = [inputs for inputs, _ in batches]
        tfbinreg.reestimate_batch_norm(model, iter(inputs), batches=len(inputs))
        found[name] = accuracies(model, data, report)
        model.set_weights(before)
    if isinstance(model, tfbinreg.QuantizedModel):
        tfbinreg.finalize(model, list(as_trained), batches=len(as_trained))
        found["deployed"] = accuracies(model, data, report)
    return found


def statistics_batches(part: Part, seed: int, epoch: int, augment: bool) -> list[Part]:
    """What normalizations are re-estimated with: the first batches of an epoch, as in training."""
    size = min(STATISTICS_BATCH, len(part[0]))
    return list(
        itertools.islice(epoch_batches(part, size, seed, epoch, augment), STATISTICS_BATCHES)
    )


def _plain(part: Part) -> Iterator[Part]:
    """Its first images in batches, not augmented."""
    size = min(STATISTICS_BATCH, len(part[0]))
    for begin in range(0, min(size * STATISTICS_BATCHES, len(part[0])), size):
        rows = slice(begin, begin + size)
        yield as_input(part[0][rows]), part[1][rows]


def low_bit_codes(model: Any) -> np.ndarray:
    """The codes of all kernels of fewer than 8 bits, flat."""
    sites = [site for site in kernel_sites(model) if site.quantizer.bits < 8]
    codes = [
        np.floor(np.clip(scaled_weights(site), site.quantizer.qmin, site.quantizer.qmax) + 0.5)
        for site in sites
    ]
    return np.concatenate(codes).astype(np.int8) if codes else np.zeros(0, np.int8)


def code_shares(model: Any) -> dict[str, float]:
    """Which share of the low-bit weights has which code."""
    codes, counts = np.unique(low_bit_codes(model), return_counts=True)
    return {str(code): count / counts.sum() for code, count in zip(codes, counts, strict=True)}


def quantization(model: Any, notes: Mapping[str, str]) -> dict[str, Any]:
    """The quantization card of the model's file, or why there is none under "refused"."""
    try:
        return dict(load(tfbinreg.to_tflite(model, notes=notes)).card or {})
    except ValueError as error:  # as of float activations, which no file has
        return {"refused": str(error)}


def flash_bytes(model: Any) -> int | None:
    """Bytes of packed weights and constants in the model's C; None where there can be none, and
    `quantization` tells why."""
    try:
        return c_bytes(model)
    except ValueError:
        return None


def weights_digest(weights: Sequence[np.ndarray]) -> str:
    """Equal where all weights are, bit for bit."""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


class Measures(keras.callbacks.Callback):
    """Adds to the logs of each epoch: `choice`, the accuracy on the choice rows with the moving
    statistics, and for a quantized model `near_level` and `error` (`BinStatistics`) and `flips`,
    the share of low-bit codes that are not what they were an epoch before."""

    def __init__(self, choice: Part) -> None:
        super().__init__()
        self._choice = choice

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if isinstance(self.model, tfbinreg.QuantizedModel):
            self._codes = low_bit_codes(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        logs["choice"] = accuracy(self.model, self._choice)
        if isinstance(self.model, tfbinreg.QuantizedModel):
            statistics = bin_statistics(self.model)
            logs["near_level"], logs["error"] = statistics.near, statistics.error
            logs["flips"] = float(np.mean(low_bit_codes(self.model) != self._codes))
