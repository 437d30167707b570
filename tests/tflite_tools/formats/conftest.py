"""Runs a file as C and in TFLM."""

import numpy as np
import pytest
from file_maker import samples

from tflite_tools import runtime
from tflite_tools.formats import c_check, c_source
from tflite_tools.model import load

PATHS = {"portable": c_check.SANITIZERS, "dsp": (c_check.EMULATE_DSP, *c_check.SANITIZERS)}


@pytest.fixture(scope="session")
def needs_compiler():
    """Skips where there is no C compiler."""
    if c_check.compiler() is None:
        pytest.skip("no C compiler")


@pytest.fixture(scope="session")
def c_is_tflm(needs_compiler):
    """Asserts that the C of a file computes what TFLM computes, on both paths."""
    if not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")

    def check(data, count=8, paths=tuple(PATHS)):
        model, inputs, sources = load(data), samples(data, count), c_source.generate(data)
        expected = runtime.run(data, model, inputs, runtime=runtime.TFLM).outputs
        for path in paths:
            outputs = c_check.run(sources.files, model, inputs, flags=PATHS[path])
            for index, made, wanted in zip(model.main.outputs, outputs, expected, strict=True):
                name = getattr(model.main.producer(index), "name", "an input")
                wrong = np.count_nonzero(made != wanted)
                assert wrong == 0, f"{path}: {wrong} of {wanted.size} values of {name} differ"
        return sources, expected

    return check
