"""Constant channels hold the number that TFLM computes for every input."""

import numpy as np
import pytest
from file_maker import Maker, samples
from pruned_nets import pruned_net
from quick import slow

from tflite_tools.pruning import constants
from tflite_tools.pruning.kernels import VARIES
from tflite_tools.running import runtime
from tflite_tools.schema import flatbuffer
from tflite_tools.schema.contents import written

NONE, RELU = 0, 1


def with_all_outputs(model):
    """The file with every activation as an output."""
    container = flatbuffer.read(model.data)
    made = [op.outputs[0] for op in model.main.ops]
    container.subgraphs[0].outputs = made
    container.signatureDefs = None
    return made, written(container)


@pytest.mark.parametrize("seed", [*range(8), *slow(*range(8, 60))])
def test_random_nets(seed):
    if not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")
    model = pruned_net(seed)
    values = constants.of_graph(model.main)
    made, opened = with_all_outputs(model)
    outputs = runtime.run(opened, samples(opened, 4, seed), runtime=runtime.TFLM).outputs
    found = 0
    for tensor, output in zip(made, outputs, strict=True):
        rows = output.reshape(-1, output.shape[-1])
        known = values[tensor] != VARIES
        found += np.count_nonzero(known)
        np.testing.assert_array_equal(
            rows[:, known], np.tile(values[tensor][known], (len(rows), 1))
        )
    assert found or seed not in range(4)


def pair(name, kind, second, out, **options):
    """A pruned convolution of two channels, and an operator of it and a constant."""
    maker = Maker()
    source = maker.input((1, 4, 4, 2), (0.05, 3))
    weights = maker.weights(np.zeros((2, 1, 1, 2), np.int64), 4, 8, np.float32([0.01]))
    bias = maker.tensor((2,), (np.float32([0.0005]), 0), data=np.array([4000, -9000], np.int32))
    options_of = {"strideH": 1, "strideW": 1, "padding": 0}
    conv = maker.op(
        "CONV_2D", [source, weights, bias], (1, 4, 4, 2), (0.05, -20), options_of,
        kind="Conv2DOptions", output=False,
    )  # fmt: skip
    held = maker.tensor((1, 1, 1, 2), (0.03, 5), data=np.int8(second).reshape(1, 1, 1, 2))
    return maker, maker.op(name, [conv, held], (1, 4, 4, 2), out, options, kind=kind)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ADD", "AddOptions"), ("SUB", "SubOptions"), ("MUL", "MulOptions"), ("PRELU", None)],
)
@pytest.mark.parametrize("activation", [NONE, RELU])
def test_functions_of_two_values(name, kind, activation):
    if not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")
    options = {"fusedActivationFunction": activation} if kind else {}
    for second in ([100, -77], [-128, 6]):
        maker, output = pair(name, kind, second, (0.07, -20), **options)
        model = maker.file()
        values = constants.of_graph(model.main)[output]
        assert VARIES not in values
        (expected,) = runtime.run(model, samples(model, 2), runtime=runtime.TFLM).outputs
        np.testing.assert_array_equal(expected, np.broadcast_to(values, expected.shape))


def test_what_tflm_does_not_compute_is_not_constant():
    maker, output = pair("ADD", "AddOptions", [1, 2], (1e-9, 0))
    assert (constants.of_graph(maker.file().main)[output] == VARIES).all()
    maker, output = pair("MAXIMUM", "MaximumMinimumOptions", [1, 2], (0.05, -20))  # two grids
    assert (constants.of_graph(maker.file().main)[output] == VARIES).all()
