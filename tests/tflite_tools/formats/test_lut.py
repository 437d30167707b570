"""Indices into tables of values, for TFLM."""

import dataclasses

import numpy as np
import pytest
from quick import combinations

from tflite_tools.checks import derived_file
from tflite_tools.checks.verdict import Verdict
from tflite_tools.formats import lut, split
from tflite_tools.reports.describe import describe
from tflite_tools.running import runtime, samples
from tflite_tools.schema import codes, flatbuffer, lut_decode
from tflite_tools.schema.contents import load

pytest.importorskip("tflite_micro")


@combinations(
    lambda bits, per_channel: per_channel == (bits in (2, 5)),
    bits=[2, 3, 4, 5],
    per_channel=[False, True],
)
def test_outputs_are_bit_for_bit_the_canonical_ones(canonical, bits, per_channel):
    file = canonical(bits, per_channel)
    made = lut.convert(file)
    assert made.report["tflm"].verdict is Verdict.PASSED
    assert "bit for bit the canonical file's" in made.report["tflm"].detail
    widths = {entry.bits for entry in made.model.main.encoded}
    assert widths and max(widths) <= bits
    assert len(made.model.data) < len(file.data)
    expected = codes.codes_of(file)
    for name, found in codes.codes_of(made.model).items():
        np.testing.assert_array_equal(found, expected[name])
    assert made.figures["arena_bytes"] > made.figures["canonical_arena_bytes"]
    assert made.figures["largest_decoded_bytes"] == 32 * 9 * 64


def test_what_would_expand_is_left_alone(canonical):
    made = lut.convert(canonical(5, True))
    kinds = {weight.layer: weight.dtype for weight in describe(made.model).weights}
    assert kinds["conv"].startswith("LUT")
    assert kinds["depthwise"] == kinds["hidden"] == "INT8"
    told = "depthwise: left int8, tables and their operator would take"
    assert any(text.startswith(told) for text in made.warnings)


def test_eight_bits_are_refused(canonical):
    with pytest.raises(ValueError, match="No layer becomes smaller with tables"):
        lut.convert(canonical(8, True))


def test_one_table_on_several_scales_is_silently_wrong_and_is_found(two_bits):
    """The library's own trap: it accepts the mode, TFLM runs the file, the numbers are wrong."""
    from tflite_micro.tensorflow.lite.micro.compression import spec as library

    wrong = lut.spec(two_bits, [p for p in lut.plan(two_bits) if p.layer == "conv"])
    assert [method.mode for method in wrong[0].compression] == [library.PerChannel(axis=0)]
    wrong[0].compression[0].mode = library.PerTensor()
    made = lut.compress(two_bits.data, wrong)
    inputs = samples.stored(two_bits, samples.seeded(two_bits, samples=8, seed=0))
    found, expected = (
        runtime.run(file, inputs, runtime=runtime.TFLM).outputs[0]
        for file in (dataclasses.replace(two_bits, data=made), two_bits)
    )
    assert np.any(found != expected)
    with pytest.raises(ValueError, match=r"conv/kernel_decoded: index .* is out of bounds"):
        load(made)


def test_wrong_values_in_a_table_are_found(two_bits, edit):
    def turn(container):
        tensor = _tables(container)
        values = flatbuffer.constant(container, tensor).copy()
        values[lut_decode.HEADER_BYTES :] = values[lut_decode.HEADER_BYTES :][::-1]
        flatbuffer.set_constant(container, tensor, values)

    report = derived_file.verify_variant(
        edit(lut.convert(two_bits).model, turn), two_bits, samples_count=8
    )
    assert report["codes"].verdict is Verdict.FAILED
    assert report["codes"].layers == ("pointwise",)
    assert report["tflm"].verdict is Verdict.FAILED


def test_the_mode_follows_from_the_scales_alone(canonical, edit, tensor_of):
    def level(container):
        scales = flatbuffer.scales(tensor_of(container, "conv/kernel"))
        for name in ("conv/kernel", "conv/bias"):
            flatbuffer.set_quantization(tensor_of(container, name), scales[:1], 0)

    one = edit(canonical(2, True), level)
    axes = {plan.layer: plan.axis for plan in lut.plan(one)}
    assert axes["conv"] is None
    assert axes["pointwise"] == 0
    assert axes["depthwise"] == 3
    made = lut.convert(edit(canonical(2, True), level))
    assert made.report.passed


@pytest.mark.parametrize("bound", [5000, 9300])
def test_split_convolutions_compute_the_same(two_bits, bound):
    made = lut.convert(two_bits, split_convs=bound)
    assert made.report["tflm"].verdict is Verdict.PASSED
    assert "split: conv" in made.report["structure"].detail
    assert made.figures["largest_decoded_bytes"] <= bound
    assert made.figures["arena_bytes"] < made.figures["unsplit_arena_bytes"]
    model = made.model
    used = {index for op in model.main.ops for index in (*op.inputs, *op.outputs)}
    assert used == set(range(len(model.main.tensors)))  # none is left over to take arena
    expected = codes.codes_of(two_bits)
    np.testing.assert_array_equal(codes.codes_of(made.model)["conv"], expected["conv"])


def test_other_operators_are_not_split(two_bits):
    container = flatbuffer.read(two_bits.data)
    (note,) = split.split_convolutions(container, ["depthwise/kernel"], most_bytes=1000)
    assert "1600 bytes are decoded at once, only CONV_2D without groups can be split" in note
    assert flatbuffer.write(container) == two_bits.data


@pytest.mark.parametrize(("bound", "least"), [(500, 2304), (1152, 2304)])
def test_bounds_that_are_too_low_are_refused(two_bits, bound, least):
    with pytest.raises(ValueError, match=f"conv/kernel: .*--split_convs {least} or more"):
        lut.convert(two_bits, split_convs=bound)
    assert lut.convert(two_bits, split_convs=least).report.passed


@pytest.mark.parametrize("target", ["litert", "ethos-u"])
def test_other_targets_are_refused(two_bits, target):
    with pytest.raises(ValueError, match=f"do not run on {target}"):
        lut.convert(two_bits, target=target)


def test_a_missing_library_is_said_so(two_bits, monkeypatch):
    monkeypatch.setattr(runtime, "available", lambda name: False)
    with pytest.raises(RuntimeError, match=r"pip install tflite-micro, or 'tfbinreg\[micro\]'"):
        lut.convert(two_bits)


def test_errors_of_the_library_are_said(two_bits):
    with pytest.raises(ValueError, match=r"tflite-micro cannot compress the file: .*empty"):
        lut.compress(two_bits.data, [])


def test_files_that_are_packed_already_are_refused(two_bits):
    with pytest.raises(ValueError, match="pointwise: the file has no int8 weights"):
        lut.convert(lut.convert(two_bits).model)


def test_too_many_values_are_left_and_told(two_bits, edit, tensor_of):

    def widen(container):
        tensor = tensor_of(container, "conv/kernel")
        values = np.resize(np.arange(-128, 128, dtype=np.int8), (32, 3, 3, 64))
        flatbuffer.set_constant(container, tensor, values)

    _, notes = lut.encode(edit(two_bits, widen))
    assert "conv: left int8, its values need indices of more than 7 bits" in notes


def _tables(container):
    """The ancillary tensor of the first decoded one."""
    graph = container.subgraphs[0]
    return graph.tensors[lut_decode.decoded(container, graph)[0].ancillary]


def test_damaged_tables_are_named(two_bits, edit):
    made = lut.convert(two_bits).model

    def shorten(container):
        tensor = _tables(container)
        values = flatbuffer.constant(container, tensor)[:20]
        tensor.shape = [20]
        flatbuffer.set_constant(container, tensor, values)

    def cut(container):
        tensor = _tables(container)
        tensor.shape = [4]
        flatbuffer.set_constant(container, tensor, np.zeros(4, np.uint8))

    def strip(container):
        _tables(container).buffer = 0

    def retype(container):
        graph = container.subgraphs[0]
        output = graph.tensors[lut_decode.decoded(container, graph)[0].output]
        flatbuffer.set_type(output, "INT16")

    def unpair(container):
        graph = container.subgraphs[0]
        operator = graph.operators[1]
        assert flatbuffer.op_name(container, operator) == lut_decode.DECODE_OP
        operator.inputs = operator.inputs[:1]

    for damage, message in (
        (shorten, "pointwise/kernel_decoded: index"),
        (cut, "only tables of values can be decoded"),
        (strip, "its indices or tables are missing"),
        (retype, "only int8 values can be decoded"),
        (unpair, "does not read pairs"),
    ):
        with pytest.raises(ValueError, match=message):
            edit(made, damage)


def test_a_missing_part_is_found(two_bits, edit):
    made = lut.convert(two_bits, split_convs=9300).model

    def lose(container):
        for tensor in container.subgraphs[0].tensors:
            if flatbuffer.text(tensor.name) == "conv/kernel/part1":
                tensor.name = "lost"

    with pytest.raises(ValueError, match="conv: the weights do not fit the manifest"):
        codes.codes_of(edit(made, lose))


@pytest.mark.parametrize("axis", [-1, 4])
def test_scales_along_no_axis_are_refused(two_bits, edit, tensor_of, axis):
    def turn(container):
        tensor_of(container, "conv/kernel").quantization.quantizedDimension = axis

    with pytest.raises(ValueError, match=f"conv: the weights have no axis {axis} for their scales"):
        lut.encode(edit(two_bits, turn))
