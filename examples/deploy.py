"""How the converted file of a model performs on real images."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import tfbinreg
import tflite_tools
from tflite_tools.running import runtime, samples
from tflite_tools.schema import contents as models


@dataclasses.dataclass(frozen=True)
class Deployment:
    """A quantized model and its file on the same images.

    Attributes:
        accuracy: of the Keras model.
        file_accuracy: of the file in the runtime that the model follows.
        agreement: share of images on which both name the same class.
        wrong_codes: codes in the file that differ from the model's.
        file_bytes: size of the file.
    """

    accuracy: float
    file_accuracy: float
    agreement: float
    wrong_codes: int
    file_bytes: int


def deploy(model: Any, images: np.ndarray, labels: np.ndarray) -> Deployment:
    """Convert `model` and run model and file on `images` (float32, as the model takes them)."""
    content = tfbinreg.to_tflite(model)
    stored = tflite_tools.read_codes(content)
    wrong = sum(
        int(np.count_nonzero(stored[name] != tensor.codes))
        for name, tensor in tfbinreg.integer_codes(model).items()
    )
    expected = model.predict(images, batch_size=256, verbose=0).argmax(axis=-1)
    classes = run_file(content, images).argmax(axis=-1)
    return Deployment(
        accuracy=float(np.mean(expected == labels)),
        file_accuracy=float(np.mean(classes == labels)),
        agreement=float(np.mean(classes == expected)),
        wrong_codes=wrong,
        file_bytes=len(content),
    )


def run_file(content: bytes, images: np.ndarray) -> np.ndarray:
    """The int8 outputs of a file for float images, one image at a time, in the runtime whose
    integers its model follows; in LiteRT if TFLM is not installed."""
    model = models.load(content)
    follows_tflm = model.require_manifest().target == "tflm" and runtime.available(runtime.TFLM)
    name = runtime.TFLM if follows_tflm else runtime.LITERT
    stored = samples.stored(model, {"images": images})
    return runtime.run(model, stored, runtime=name).outputs[0]
