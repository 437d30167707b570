"""C of nets with every kind of operation, as they come from Keras."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")
from operation_nets import NETS, converted, fresh

from tflite_tools.c import generate
from tflite_tools.checks import isolate
from tflite_tools.running import runtime
from tflite_tools.schema.contents import load


@pytest.fixture(scope="module", params=NETS)
def file(request, images):
    return load(converted(fresh(NETS[request.param]), images)[1])


def test_nets_of_every_kind(file, c_is_tflm):
    alone = isolate.isolate(file).model
    c_is_tflm(alone)  # every operator by itself, with any input
    sources, _ = c_is_tflm(file, paths=["optimized"])
    assert sources.arena_bytes > 0


def test_the_arena_is_no_larger_than_tflms(file):
    if not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")
    edges = sum(
        np.prod(file.main.tensors[i].shape) for i in (*file.main.inputs, *file.main.outputs)
    )
    theirs = runtime.least_arena(file)  # in processes, for too little can crash it
    assert generate.generate(file).arena_bytes + edges <= theirs + 4096
