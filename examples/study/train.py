"""One run: from a row of a study to its result."""

from __future__ import annotations

import datetime
import json
import math
import time
from typing import Any

import tensorflow as tf
import tf_keras as keras

import tfbinreg
from examples.study import machine
from examples.study.arm import Arm
from examples.study.checkpoint import Checkpoint
from examples.study.data import Data, as_input, batches
from examples.study.files import load_arrays, save_arrays
from examples.study.folders import Folders, read_result, write_result
from examples.study.measures import (
    Measures,
    accuracies,
    code_shares,
    final_accuracies,
    flash_bytes,
    quantization,
    statistics_batches,
    weights_digest,
)
from examples.study.nets import NETS
from examples.study.optimizers import make_optimizer
from examples.study.table import Row

CALIBRATION_ROWS = 512
DIGITS = 5


class DivergedError(Exception):
    """The loss is not a number any more."""


def use_one_thread() -> None:
    """Make TensorFlow compute the same in every process; before anything else is done with it."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()


def run(row: Row, folders: Folders, data: Data) -> dict[str, Any]:
    """Train, measure, and write the result and the final weights; goes on where a run was killed.

    Raises:
        ValueError: if there is no such net, or the float net it starts from is not there, or is
            another one.
    """
    keras.utils.set_random_seed(row.seed)
    if row.net not in NETS:
        raise ValueError(f"net must be one of {', '.join(NETS)}, got {row.net!r}.")
    model = NETS[row.net]() if row.start is None else _quantized(row, row.start, folders, data)
    checkpoint = Checkpoint(folders.checkpoint(row), machine.commit())
    card, diverged = _card(row, folders), False
    try:
        _fit(model, row, data, checkpoint)
    except DivergedError:
        diverged = True
    final: dict[str, Any] = {}
    card["weights"] = weights_digest(model.get_weights())
    if not diverged:
        save_arrays(folders.weights(row), model.get_weights())
        codes = {} if row.bits is None else {"codes": code_shares(model)}
        arm = row.arm
        as_trained = statistics_batches(data.train, row.seed, arm.epochs, arm.augment)
        final = {**final_accuracies(model, data, row.report, as_trained), **codes}
        if row.start is not None:
            final["float"] = accuracies(_float_net(row.start, folders), data, row.report)
            card["quantization"] = quantization(model, _notes(row, card))
            card["c_bytes"] = flash_bytes(model)
    checkpoint.count_time()
    result = {
        "card": {
            **card,
            "commits": checkpoint.commits,
            "cpu_seconds": round(checkpoint.seconds),
            "diverged": diverged,
        },
        "final": _rounded(final),
        "curves": _rounded(checkpoint.curves),
    }
    write_result(folders, row, result)
    checkpoint.remove()
    return result


def _float_net(start: Row, folders: Folders) -> Any:
    path = folders.weights(start)
    if not path.exists():
        raise ValueError(f"The float net is missing: run {start.study} trains {start.key} first.")
    weights, result = load_arrays(path), read_result(folders, start)
    if result is not None and result["card"]["weights"] != weights_digest(weights):
        raise ValueError(f"{str(path)!r} holds other weights than the result beside it says.")
    model = NETS[start.net]()
    model.set_weights(weights)
    return model


def _quantized(row: Row, start: Row, folders: Folders, data: Data) -> Any:
    assert row.bits is not None
    model = _float_net(start, folders)
    bits = {"weight_bits": row.bits[0], "activation_bits": row.bits[1]}
    fields = {**bits, "step_rate": row.arm.step_rate, **row.arm.recipe}
    recipe = tfbinreg.Recipe.from_data(fields)
    samples = as_input(data.train[0][:CALIBRATION_ROWS])
    if row.arm.flash is not None:
        options = {**row.arm.flash, "recipe": recipe, "verbose": 0}
        recipe = tfbinreg.fit_flash_budget(model, calibration_data=samples, **options).recipe
    return tfbinreg.quantize_apply(model, recipe, calibration_data=samples, **row.arm.quantize)


def _fit(model: Any, row: Row, data: Data, checkpoint: Checkpoint) -> None:
    arm = row.arm
    steps = len(data.train[0]) // arm.batch
    optimizer = make_optimizer(arm, steps * arm.epochs)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    if arm.distill is not None:
        tfbinreg.distill(model, **arm.distill)
    first = checkpoint.restore(model)
    if arm.solve and first == 0:
        images, labels = data.train
        samples = as_input(images[:CALIBRATION_ROWS]), labels[:CALIBRATION_ROWS]
        tfbinreg.solve(model, samples, verbose=0)
    own = [_StopAtNaN(), *_callbacks(arm), Measures(data.choice), checkpoint]
    if first < arm.epochs:
        model.fit(
            batches(data.train, arm.batch, row.seed, first, arm.augment),
            steps_per_epoch=steps,
            epochs=arm.epochs,
            initial_epoch=first,
            callbacks=[*own, _Progress(row.key, arm.epochs)],
            verbose=0,
        )


def _callbacks(arm: Arm) -> list[Any]:
    """Those of the arm.

    Raises:
        ValueError: for a name that is no callback of tfbinreg.
    """
    found = []
    for fields in arm.callbacks:
        options = dict(fields)
        name = options.pop("name")
        kind = getattr(tfbinreg, name, None)
        if not (isinstance(kind, type) and issubclass(kind, keras.callbacks.Callback)):
            raise ValueError(f"tfbinreg has no callback {name!r}.")
        found.append(kind(**options))
    return found


class _StopAtNaN(keras.callbacks.Callback):
    """Raises DivergedError."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not math.isfinite(logs["loss"]):
            raise DivergedError


class _Progress(keras.callbacks.Callback):
    """A line per epoch, with the time left of the run."""

    def __init__(self, key: str, epochs: int) -> None:
        super().__init__()
        self._key, self._epochs = key, epochs

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begin, self._clock = time.monotonic(), time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds, own = time.monotonic() - self._begin, time.process_time() - self._clock
        left = seconds * (self._epochs - epoch - 1) / 60
        print(
            f"{self._key}: epoch {epoch + 1} of {self._epochs}, loss {logs['loss']:.4f}, "
            f"choice {logs['choice']:.2f}, {seconds:.0f} s, {own:.0f} s of processor, "
            f"{left:.0f} min left",
            flush=True,
        )


def _card(row: Row, folders: Folders) -> dict[str, Any]:
    """Who made this result, with what."""
    card = {
        "key": row.key,
        "study": row.study,
        "arm": row.name,
        "net": row.net,
        "bits": row.bits,
        "seed": row.seed,
        "settings": row.settings(),
        "versions": machine.versions(),
        "machine": machine.machine(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
    if row.start is not None:
        card["start"] = weights_digest(load_arrays(folders.weights(row.start)))
    return card


def _notes(row: Row, card: dict[str, Any]) -> dict[str, str]:
    """What only the study knows of a net, for its quantization card."""
    arm = row.arm
    return {
        "data": f"CIFAR-10's training set, rows 0 to {row.rows[0] - 1}",
        "labels": "real",
        "checkpoint": f"sha256 {card['start']}",
        "epochs": str(arm.epochs),
        "training": json.dumps(arm.settings()),
    }


def _rounded(value: Any) -> Any:
    """Floats in any structure to five digits; what is not finite becomes None."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
