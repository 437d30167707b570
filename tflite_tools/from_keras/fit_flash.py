"""`convert --flash_budget`: a float model -> bits that fit, a recipe and a first file.

Like `convert` it imports tfbinreg, and only when it is called.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tflite_tools.from_keras.convert import is_tflite, needs_tensorflow
from tflite_tools.from_keras.model_samples import model_samples
from tflite_tools.reports import flash
from tflite_tools.reports.flash import Flash
from tflite_tools.schema import contents
from tflite_tools.schema.contents import Model
from tflite_tools.system.progress import Advance, quietly

_MOST_TRIES = 6  # files that are made to come close to the limit, once one fits
_UNITS = {"": 1, "B": 1, "K": 1024, "KB": 1024, "KIB": 1024, "M": 2**20, "MB": 2**20, "MIB": 2**20}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Squeezed:
    """The result for a float model.

    Attributes:
        file: the .tflite file, quantized and calibrated but not trained.
        recipe: JSON text to train with.
        table: the choices, layer by layer, as text.
        flash: the flash that the network takes at the chosen bits.
        squeezed: the layers with fewer than 8 bits, at least in some channels.
        before: accuracy of the float model; without labels, 1.
        after: the same for the file's model before any training; without labels, the share of
            samples with the same best class as the float model.
        labelled: whether there were labels.
    """

    file: Model
    recipe: str
    table: str
    flash: Flash
    squeezed: tuple[str, ...]
    before: float
    after: float
    labelled: bool


class _Choice(NamedTuple):
    """A tried choice of bits: the budget, the quantized model, its file and its size."""

    budget: Any
    quantized: Any
    file: Model
    flash: Flash


def byte_count(text: str) -> int:
    """Bytes of a size such as 65536, 64KB or 0.5MB (1 KB is 1024 bytes).

    Raises:
        ValueError: if it is not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    unit = None if match is None else _UNITS.get(match[2].upper())
    if match is None or unit is None or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is no size: write 65536, 64KB or 1MB.")
    return int(float(match[1]) * unit)


def squeeze(
    path: str | os.PathLike[str],
    limit: int,
    arrays: Mapping[str, np.ndarray],
    *,
    granularity: str = "layer",
    widths: Sequence[int] | None = None,
    advance: Advance = quietly,
) -> Squeezed:
    """Choose bits of layers or channels for a float model, and convert it as it is.

    The bits are chosen from an estimate. The flash that the network then takes is counted
    (`flash.count`), and the choice is corrected with that count until it fits.

    Args:
        path: a float Keras model.
        limit: bytes for packed weights and constants.
        arrays: calibration samples: one unnamed array, or arrays by input name; integer classes as
            `labels` are optional.
        granularity: as for `tfbinreg.fit_flash_budget`.
        widths: the same.
        advance: is called with what is being done.

    Raises:
        ValueError: if the model or the samples cannot be used, or the fewest bits do not fit.
        RuntimeError: if TensorFlow is missing.
    """
    if is_tflite(path):
        raise ValueError(
            f"--flash_budget needs a float Keras model: {os.fspath(path)!r} is TFLite."
        )
    advance(None, "starting TensorFlow")
    with needs_tensorflow():
        from tfbinreg.budget import flash_budget
        from tfbinreg.training.saving import load_float_model
    model = load_float_model(path)
    inputs, labels = model_samples(model, arrays)
    way = flash_budget.way(granularity, widths)
    found = _fitting(model, way, inputs, limit, advance)
    given = inputs if len(inputs) > 1 else inputs[0]
    best = [_best(net.predict(given, verbose=0)) for net in (model, found.quantized)]
    truth = best[0] if labels is None else labels.reshape(-1)
    before, after = (float(np.mean(found == truth)) for found in best)
    return Squeezed(
        file=found.file,
        recipe=found.budget.recipe.to_json(),
        table=found.budget.table(),
        flash=found.flash,
        squeezed=found.budget.squeezed,
        before=before,
        after=after,
        labelled=labels is not None,
    )


def _fitting(
    model: Any, way: Any, inputs: list[np.ndarray], limit: int, advance: Advance
) -> _Choice:
    """The choice with the lowest cost within `limit` bytes.

    The estimate is corrected by its last error until this gives no new choice.
    """
    from tfbinreg import quantize_apply, to_tflite
    from tfbinreg.budget.flash_budget import largest
    from tfbinreg.training.finalize import finalize

    layers = way.measure(model, inputs, advance=advance)
    least, off = way.least_bytes(layers), 0
    best: _Choice | None = None
    tried: list[tuple[Any, ...]] = []
    while best is None or len(tried) < _MOST_TRIES:
        budget = way.choose(layers, max(limit - off, least))
        bits = tuple(choice.bits for choice in budget.layers)
        if bits in tried:
            break
        tried.append(bits)
        advance(None, f"counting the bytes of choice {len(tried)}")
        quantized = quantize_apply(model, budget.recipe, calibration_data=inputs)
        finalize(quantized, verbose=0)
        file = contents.load(
            to_tflite(quantized, input_shape=[array.shape[1:] for array in inputs])
        )
        used = flash.count(file)
        off = used.total - budget.bytes
        if used.total <= limit and (best is None or budget.moved < best.budget.moved):
            best = _Choice(budget, quantized, file, used)
        elif used.total > limit and budget.bytes <= least:
            raise ValueError(
                f"{limit} bytes are not enough: with the fewest bits the network takes "
                f"{used.total} ({used.text()}). {largest(layers)}"
            )
    assert best is not None  # as long as nothing fits, the next choice is smaller
    return best


def _best(outputs: Any) -> np.ndarray:
    """The best class of each sample at the first output."""
    from tensorflow import nest

    first = nest.flatten(outputs)[0]
    return np.argmax(np.asarray(first).reshape(len(first), -1), axis=1)
