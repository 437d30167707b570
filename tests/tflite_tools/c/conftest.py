"""Runs a file as C and in TFLM."""

import pathlib

import numpy as np
import pytest
from file_maker import samples

from tflite_tools.c import generate, host_run
from tflite_tools.running import runtime
from tflite_tools.schema.contents import load

# Compiling takes longest: with sanitizers, without optimization, half as long. "optimized" is what
# users compile, and has the warnings that need optimization.
STRICT = ("-Wpedantic", "-Wconversion")
CHECKED = (*STRICT, *host_run.SANITIZERS, "-O0")
PATHS = {"portable": CHECKED, "dsp": (host_run.EMULATE_DSP, *CHECKED), "optimized": STRICT}


KINDS = sorted((pathlib.Path(__file__).parents[1] / "files" / "kinds").iterdir())
# Of each kernel one; test_random_nets mixes them.
QUICK = (*("Concatenate", "Conv2DTranspose", "HardSwish", "Multiply", "PReLU", "Softmax"),)


@pytest.fixture(scope="module", params=[
    pytest.param(path, id=path.stem, marks=() if path.stem in QUICK else pytest.mark.slow)
    for path in KINDS
])  # fmt: skip
def every_kind(request):
    """The nets of `operation_nets` as files."""
    return load(request.param.read_bytes())


@pytest.fixture(scope="session")
def needs_compiler():
    """Skips where there is no C compiler."""
    if host_run.compiler() is None:
        pytest.skip("no C compiler")


@pytest.fixture(scope="session")
def c_is_tflm(needs_compiler):
    """Asserts that the C of a file, written with some options, computes what TFLM computes."""
    if not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")

    def check(model, count=8, paths=("portable", "dsp"), **options):
        inputs, sources = samples(model, count), generate.generate(model, **options)
        expected = runtime.run(model, inputs, runtime=runtime.TFLM).outputs
        for path in paths:
            outputs = host_run.run(sources.files, model, inputs, flags=PATHS[path])
            for index, made, wanted in zip(model.main.outputs, outputs, expected, strict=True):
                name = getattr(model.main.producer(index), "name", "an input")
                wrong = np.count_nonzero(made != wanted)
                assert wrong == 0, f"{path}: {wrong} of {wanted.size} values of {name} differ"
        return sources, expected

    return check
