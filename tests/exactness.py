"""A model's outputs as integers, and what has to compute the same: the runtimes and the C."""

from __future__ import annotations

from typing import Any

import numpy as np

import tfbinreg
from tflite_tools.c import generate, host_run
from tflite_tools.running import runtime, samples
from tflite_tools.schema import contents as models

RUNTIMES = {"litert": runtime.LITERT, "tflm": runtime.TFLM}


def one(arrays: list[np.ndarray]) -> Any:
    """As Keras takes inputs: no list of one."""
    return arrays[0] if len(arrays) == 1 else arrays


def levels(outputs: Any, file: models.Model) -> list[np.ndarray]:
    """A model's outputs as the integers of its file."""
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    grids = [file.main.tensors[index].quantization for index in file.main.outputs]
    return [
        np.rint(output / grid.scale[0]) + grid.zero_point[0]
        for output, grid in zip(outputs, grids, strict=True)
    ]


def equal(ours: Any, theirs: Any, what: str) -> None:
    """Assert that all outputs are the same integers."""
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_array_equal(a, b, f"{what}, output {index}")


def check_c(file: models.Model, stored: Any, expected: Any) -> None:
    """The C computes TFLM's integers."""
    files = generate.generate(file).files
    flags = host_run.sanitizers()
    equal(host_run.run(files, file, stored, flags=flags), expected, "C")


def assert_exact(model: Any, inputs: list[np.ndarray], *, with_c: bool = True) -> models.Model:
    """0 differences between a quantized model and its file, in both runtimes and C; the file."""
    tfbinreg.finalize(model)
    file = models.load(tfbinreg.to_tflite(model))
    stored = samples.stored(file, dict(zip(samples.input_names(file), inputs, strict=True)))
    for target, name in RUNTIMES.items():
        tfbinreg.finalize(model, target=target)
        expected = levels(model(one(inputs)), file)
        equal(runtime.run(file, stored, runtime=name).outputs, expected, name)
        if with_c and target == "tflm":
            check_c(file, stored, expected)
    return file
