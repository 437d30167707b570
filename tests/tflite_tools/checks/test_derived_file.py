"""Files in other formats against their canonical file: the right pass, the wrong fail."""

import dataclasses

import numpy as np
import pytest

from tflite_tools.checks import derived_file, pairing, same_weights
from tflite_tools.checks.agreement import Limits
from tflite_tools.checks.verdict import Verdict
from tflite_tools.formats import int4, lut, slim
from tflite_tools.running import runtime
from tflite_tools.schema import contents as models
from tflite_tools.schema import flatbuffer

FEW = 8


def verdicts(made, canonical, **options):
    """Check name -> verdict."""
    report = derived_file.verify_variant(made, canonical, samples_count=FEW, **options)
    return {check.name: check.verdict for check in report.checks}


def test_a_file_is_its_own_variant(two_bits):
    assert set(verdicts(two_bits, two_bits).values()) == {Verdict.PASSED}


@pytest.mark.slow
def test_chains_of_formats(two_bits):
    packed = int4.encode(two_bits)[0]
    for made in (slim.encode(packed)[0], packed):
        found = verdicts(made, two_bits)
        assert Verdict.FAILED not in found.values()
        assert "rounding" in found
    tables = slim.encode(lut.encode(two_bits, split_convs=9300)[0])[0]
    assert verdicts(tables, two_bits) == dict.fromkeys(
        ("structure", "codes", "biases", "tflm"), Verdict.PASSED
    )


def change_weight(container, tensor_of):
    tensor = tensor_of(container, "conv/kernel")
    values = flatbuffer.constant(container, tensor).copy()
    place = np.argmax(values != 0)
    values.flat[place] = -values.flat[place]
    flatbuffer.set_constant(container, tensor, values)


def change_bias(container, tensor_of):
    tensor = tensor_of(container, "conv/bias")
    values = flatbuffer.constant(container, tensor).copy()
    values[3] += 40
    flatbuffer.set_constant(container, tensor, values)


def change_scale(container, tensor_of):
    tensor = tensor_of(container, "conv/kernel")
    scale = np.array(tensor.quantization.scale)
    scale[2] *= 2
    flatbuffer.set_quantization(tensor, scale, 0, 0)


def change_grid(container, tensor_of):
    tensor_of(container, "conv").quantization.zeroPoint = np.array([100])


def change_axes(container, tensor_of):
    graph = container.subgraphs[0]
    (mean,) = [op for op in graph.operators if flatbuffer.op_name(container, op) == "MEAN"]
    tensor = graph.tensors[int(mean.inputs[1])]
    values = flatbuffer.constant(container, tensor)
    flatbuffer.set_constant(container, tensor, values[::-1].copy())


@pytest.mark.parametrize("factor", [2.0**20, 2.0**-20, 3.5])
def test_scales_without_a_ratio_that_weights_can_have_fail(two_bits, edit, tensor_of, factor):
    def rescale(container):
        tensor = tensor_of(container, "conv/kernel")
        scales = flatbuffer.scales(tensor) * np.float32(factor)
        flatbuffer.set_quantization(tensor, scales, 0, 0)

    whole, broken = two_bits, edit(two_bits, rescale)
    for first, second in ((whole, broken), (broken, whole)):
        pairs = pairing.pair(first, second)
        assert same_weights.check_codes(pairs).layers == ("conv",)
        same_weights.check_biases(pairs)  # with the ratio, which is none, nothing overflows


def test_operators_without_outputs_or_inputs_are_errors(two_bits, edit):
    def cut(field):
        def change(container):
            setattr(container.subgraphs[0].operators[3], field, [])

        return edit(two_bits, change)

    whole = two_bits
    for broken in (cut("outputs"), cut("inputs")):
        for pair in ((whole, broken), (broken, whole)):
            with pytest.raises(ValueError, match=r"CONV_2D 3: has no output|conv: "):
                pairing.pair(*pair)
    op = dataclasses.replace(whole.main.ops[0], inputs=())
    with pytest.raises(ValueError, match="has no output or no input"):
        pairing.kernel(whole.main, op)


@pytest.mark.parametrize(
    ("change", "check", "layer"),
    [
        (change_weight, "codes", "conv"),
        (change_bias, "biases", "conv"),
        (change_scale, "codes", "conv"),
        (change_grid, "structure", "conv"),
        (change_axes, "structure", "mean"),
    ],
)
@pytest.mark.parametrize(
    "make",
    [lambda file: file, pytest.param(lambda file: int4.encode(file)[0], marks=pytest.mark.slow)],
)
def test_broken_files_fail_by_the_layers_name(
    two_bits, edit, tensor_of, change, check, layer, make
):
    try:
        broken = edit(make(two_bits), lambda container: change(container, tensor_of))
    except ValueError:
        pytest.skip("the changed weight does not fit INT4")
    report = derived_file.verify_variant(broken, two_bits, samples_count=FEW)
    assert report[check].verdict is Verdict.FAILED
    assert layer in report[check].layers
    assert not report.passed


def test_operators_that_are_off_by_more_than_rounding_fail(two_bits, monkeypatch):
    packed = int4.encode(two_bits)[0]
    monkeypatch.setattr(same_weights, "most_levels", lambda *_: np.zeros(1))
    report = derived_file.verify_variant(packed, two_bits, samples_count=FEW)
    assert report["rounding"].verdict is Verdict.FAILED
    assert "0 at most" in report["rounding"].detail


def test_a_kernel_that_unpacks_wrongly_fails(two_bits, monkeypatch):
    """The INT4 file is compared with its own integers as int8, not with itself."""
    packed, original = int4.encode(two_bits)[0], derived_file.twin

    def swapped(model):
        container = flatbuffer.read(original(model).data)
        tensor = next(t for t in container.subgraphs[0].tensors if t.name == b"conv/kernel")
        values = flatbuffer.constant(container, tensor).copy().reshape(-1, 2)[:, ::-1]
        shape = flatbuffer.indices(tensor.shape)
        flatbuffer.set_constant(container, tensor, np.ascontiguousarray(values).reshape(shape))
        return models.written(container)

    monkeypatch.setattr(derived_file, "twin", swapped)
    found = verdicts(packed, two_bits)
    assert found["tflm"] is found["litert"] is Verdict.FAILED


@pytest.mark.slow
def test_limits_decide_about_rounding(two_bits):
    packed = int4.encode(two_bits)[0]
    strict, loose = Limits(1.0, 0.0), Limits(0.0, 1e9)
    assert verdicts(packed, two_bits, limits=strict)["tflm"] is Verdict.FAILED
    assert verdicts(packed, two_bits, limits=loose)["tflm"] is Verdict.PASSED


def test_runtimes_that_fail_or_are_missing(two_bits, monkeypatch):
    tables = lut.encode(two_bits)[0]
    assert verdicts(tables, two_bits, runtimes=("LiteRT",))["litert"] is Verdict.FAILED

    def miss(*_, **__):
        raise runtime.MissingOpError("TFLM has no operator X.")

    monkeypatch.setattr(runtime, "run", miss)
    assert verdicts(two_bits, two_bits)["tflm"] is Verdict.SKIPPED
    monkeypatch.setattr(runtime, "available", lambda name: False)
    assert verdicts(two_bits, two_bits)["tflm"] is Verdict.SKIPPED
    found = verdicts(tables, two_bits)
    assert (found["tflm"], found["proof"]) == (Verdict.SKIPPED, Verdict.FAILED)


def test_other_networks_fail_at_the_first_difference(two_bits, int8_file, edit):
    report = derived_file.verify_variant(two_bits, int8_file, samples_count=FEW)
    assert [check.name for check in report.checks] == ["structure"]
    assert not report.passed

    def shorten(container):
        graph = container.subgraphs[0]
        graph.outputs = [int(graph.operators[-2].outputs[0])]
        graph.operators = graph.operators[:-1]

    def lengthen(container):
        graph = container.subgraphs[0]
        graph.operators = [*graph.operators, graph.operators[-1]]

    def rewire(container):
        graph = container.subgraphs[0]
        graph.operators[1].inputs[0] = int(graph.inputs[0])

    def reroute(container):
        graph = container.subgraphs[0]
        graph.outputs = [int(graph.operators[-2].outputs[0])]

    def another_input(container):
        graph = container.subgraphs[0]
        graph.inputs = [*graph.inputs, graph.inputs[0]]

    def compute_weights(container):
        graph = container.subgraphs[0]
        graph.tensors[int(graph.operators[1].inputs[1])].buffer = 0

    def scale_once_more(container):
        graph = container.subgraphs[0]
        tensor = graph.tensors[int(graph.operators[1].inputs[1])]
        flatbuffer.set_quantization(tensor, np.ones(3, np.float32), 0, 0)

    def stride(container):
        container.subgraphs[0].operators[1].builtinOptions.strideW = 2

    for change, message in (
        (stride, "pointwise: strideW is 2, not 1"),
        (shorten, "SOFTMAX has no counterpart"),
        (lengthen, "not in the canonical file"),
        (rewire, "connected in another way"),
        (reroute, "the outputs: is connected in another way"),
        (another_input, "other numbers of inputs or outputs"),
        (compute_weights, "the weights are no constant with a scale"),
        (scale_once_more, "the scales do not fit the weights"),
    ):
        with pytest.raises(ValueError, match=message):
            pairing.pair(two_bits, edit(two_bits, change))


def test_split_convolutions_have_to_be_put_together_again(two_bits, edit):
    made = lut.encode(two_bits, split_convs=9300)[0]

    def turn(container):
        for op in container.subgraphs[0].operators:
            if flatbuffer.op_name(container, op) == "CONCATENATION":
                op.inputs = op.inputs[::-1]

    def lose(container):
        graph = container.subgraphs[0]
        names = [flatbuffer.op_name(container, op) for op in graph.operators]
        del graph.operators[names.index("CONCATENATION") - 1]

    for change, message in ((turn, "parts are not put together"), (lose, "has no counterpart")):
        with pytest.raises(ValueError, match=message):
            pairing.pair(two_bits, edit(made, change))


def test_bounds_by_hand():
    """Multipliers 0.5 and 4: a lost bias of 3 fine steps is 1.5 levels, plus 0.5 and 4."""
    kernel = pairing.Kernel(
        "x", "CONV_2D", np.zeros((2, 1, 1, 1), np.int8), np.full(2, 0.5, np.float32), 0,
        np.array([16, 19], np.int32), 1, 0, {}, "INT8",
    )  # fmt: skip
    other = dataclasses.replace(
        kernel, scale=np.full(2, 4.0, np.float32), bias=np.array([2, 2], np.int32)
    )
    grid = models.Quantization(np.ones(1, np.float32), np.zeros(1, np.int64), 0)
    assert same_weights.ratio(kernel, other) == 8
    assert same_weights.lost_bias(kernel, other).tolist() == [0, 3]
    assert same_weights.most_levels(kernel, other, grid, grid).tolist() == [5, 7]
    odd = dataclasses.replace(kernel, scale=np.array([0.5, 0.7], np.float32))
    assert same_weights.ratio(kernel, odd) == 0
