"""Two files side by side."""

import numpy as np
import pytest

from tflite_tools.checks import compare as comparison
from tflite_tools.checks.compare import compare
from tflite_tools.formats import int4, lut, slim
from tflite_tools.running import runtime
from tflite_tools.schema import flatbuffer


def test_a_file_and_itself(two_bits):
    found = compare(two_bits, two_bits)
    assert found.sizes == (len(two_bits.data), len(two_bits.data))
    assert found.runtime == runtime.TFLM
    assert {row.layer for row in found.weights} >= {"conv", "hidden"}
    assert all(row.different == 0 for row in found.weights)
    assert all(row.max_lsb == row.different == 0 for row in found.tensors)
    assert found.within(max_lsb=0, min_top1=1)


@pytest.mark.parametrize("turned", [False, True])
def test_split_tables_without_names(two_bits, turned):
    other = slim.encode(lut.encode(two_bits, split_convs=9300)[0])[0]
    pair = (other, two_bits) if turned else (two_bits, other)
    found = compare(*pair, samples_count=4)
    assert not found.by_name
    assert found.within(max_lsb=0, min_top1=1)
    kinds = {(row.first, row.second) for row in found.weights}
    assert kinds == {("INT8", "INT8"), ("LUT2", "INT8") if turned else ("INT8", "LUT2")}
    assert {row.tensor for row in found.tensors} >= {"conv", "mean"}


def test_int4_differs_by_rounding(two_bits):
    found = compare(two_bits, int4.encode(two_bits)[0])
    assert all(row.different == 0 for row in found.weights)
    rows = {row.tensor: row for row in found.tensors}
    assert rows["first"].different == 0
    assert 0 < rows["pointwise"].max_lsb <= 1
    assert not found.within(max_lsb=0, min_top1=0)
    assert found.within(max_lsb=255, min_top1=0)
    assert not found.within(max_lsb=255, min_top1=1.1)


def test_other_codes_are_counted(two_bits, edit, tensor_of):
    def damage(container):
        tensor = tensor_of(container, "conv/kernel")
        values = flatbuffer.constant(container, tensor).copy()
        values.flat[:7] += 1
        flatbuffer.set_constant(container, tensor, values)

    found = compare(two_bits, edit(two_bits, damage), samples_count=2)
    assert {row.layer: row.different for row in found.weights}["conv"] == 7
    assert not found.within(max_lsb=255, min_top1=0)


def test_other_grids_are_compared_as_numbers(canonical):
    found = compare(canonical(2, True), canonical(4, True), samples_count=4)
    assert any(row.max_lsb != round(row.max_lsb) for row in found.tensors)


def test_other_operators_are_compared_by_name(two_bits, edit):
    def shorten(container):
        graph = container.subgraphs[0]
        graph.outputs = [int(graph.operators[-2].outputs[0])]
        graph.operators = graph.operators[:-1]

    found = compare(two_bits, edit(two_bits, shorten), samples_count=2)
    assert found.by_name
    assert len(found.weights) == 6
    assert all(row.max_lsb == 0 for row in found.tensors)


def test_float_outputs_are_in_steps_of_their_grid(canonical):
    data = canonical(2, True, "float32")
    found = compare(data, int4.encode(data)[0], samples_count=4)
    (difference,) = found.outputs.values()
    assert difference.max_lsb == pytest.approx(round(difference.max_lsb), abs=1e-3)


def test_without_tflm(two_bits, monkeypatch):
    monkeypatch.setattr(runtime, "available", lambda name: name != runtime.TFLM)
    found = compare(two_bits, int4.encode(two_bits)[0], samples_count=2)
    assert found.runtime == runtime.LITERT


def test_files_that_do_not_fit_are_refused(two_bits, int8_file, edit, canonical):
    with pytest.raises(ValueError, match="another shape or type"):
        compare(two_bits, int8_file, samples_count=2)
    with pytest.raises(ValueError, match=r"take other inputs. Of the second: .* got int8"):
        compare(two_bits, canonical(2, True, "float32"), samples_count=2)

    def double(container):
        graph = container.subgraphs[0]
        graph.outputs = [*graph.outputs, int(graph.operators[-2].outputs[0])]

    with pytest.raises(ValueError, match="other numbers of outputs"):
        compare(two_bits, edit(two_bits, double), samples_count=2)


def test_few_inputs(two_bits):
    inputs = [np.zeros((1, 8, 8, 3), np.int8)]
    assert comparison.compare(two_bits, two_bits, inputs=inputs).samples == 1
