"""What the converted file of a model does on real images."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tfbinreg
import tflite_tools
from ai_edge_litert.interpreter import Interpreter


@dataclasses.dataclass(frozen=True)
class Deployment:
    """A quantized model and its file on the same images.

    Attributes:
        accuracy: of the Keras model.
        file_accuracy: of the file under LiteRT.
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
    """The int8 outputs of a file for float images, one image at a time, under LiteRT."""
    interpreter = Interpreter(model_content=content, num_threads=2)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero_point = source["quantization"]
    codes = np.clip(np.floor(images / scale + 0.5) + zero_point, -128, 127).astype(np.int8)
    outputs = []
    for image in codes:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"])[0])
    return np.stack(outputs)
