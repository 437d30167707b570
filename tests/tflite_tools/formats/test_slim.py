"""Fewer bytes around the same network."""

import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils
from file_maker import Maker
from pruned_nets import pruned_net

from tflite_tools.checks import derived_file
from tflite_tools.checks.verdict import Verdict
from tflite_tools.formats import int4, lut, slim
from tflite_tools.formats.result import checked
from tflite_tools.pruning import removal, smaller
from tflite_tools.running import runtime
from tflite_tools.running.runtime import LITERT, TFLM
from tflite_tools.schema import flatbuffer
from tflite_tools.schema.contents import load


@pytest.mark.parametrize("target", ["any", "litert", "tflm"])
def test_int8(two_bits, target):
    made = slim.convert(two_bits, target=target)
    assert made.accepted == (LITERT, TFLM)
    assert made.result.report.passed
    saved = [step.saved for step in made.passes]
    assert all(size > 0 for size in saved)
    assert sum(saved) == len(two_bits.data) - len(made.result.model.data)
    assert len(saved) == (3 if target == "tflm" else 2)
    model = made.result.model
    assert model.manifest is None
    assert {tensor.name for tensor in model.main.tensors} == {""}


def test_a_large_multiplier_keeps_the_scale_of_its_bias():
    """TFLM allows the scales of FULLY_CONNECTED to differ by 0.02 output steps."""
    maker = Maker()
    image = maker.input((1, 8), (0.5, 3))
    weights = maker.weights(np.eye(8, dtype=np.int8), 8, 1, (0.25,))
    bias = maker.tensor((8,), (0.125, 0), data=np.arange(8, dtype=np.int32))
    maker.op(
        "FULLY_CONNECTED", [image, weights, bias], (1, 8), (1.0, 0), kind="FullyConnectedOptions"
    )
    made = slim.convert(maker.file(), target="tflm")
    assert made.accepted == (LITERT, TFLM)


@pytest.mark.slow
def test_int4_and_tables(two_bits):
    for file, accepted in (
        (int4.convert(two_bits).model, (LITERT, TFLM)),
        (lut.convert(two_bits).model, (TFLM,)),
        (lut.convert(two_bits, split_convs=9300).model, (TFLM,)),
    ):
        made = slim.convert(file)
        assert made.accepted == accepted
        assert made.result.report.passed
        assert len(made.result.model.data) < len(file.data) - 2000


LEFT_OUT = "channels that are not needed left out"


def test_channels_that_are_not_needed_are_left_out_for_tflm():
    if not runtime.available(TFLM):
        pytest.skip("tflite_micro is not installed")
    model = pruned_net(11)
    made = slim.convert(model, target="tflm")
    saved = {step.name: step.saved for step in made.passes}
    assert saved[LEFT_OUT] > 0
    assert sum(saved.values()) == len(model.data) - len(made.result.model.data)
    assert "channels that are not needed are left out" in made.result.report["structure"].detail
    assert made.result.report["tflm"].verdict is Verdict.PASSED
    report = derived_file.verify_variant(made.result.model, model, samples_count=4)
    assert report.passed
    assert "litert" not in {check.name for check in report.checks}
    # LiteRT may round what constant channels hold to another level.
    assert LEFT_OUT not in {step.name for step in slim.encode(model)[1]}


def test_a_wrong_channel_is_refused(monkeypatch):
    model, right = pruned_net(11), smaller.of_model

    def wrong(graph):
        found = of_graph(graph)
        tensor = next(index for index, kept in found.kept.items() if kept.sum() > 1)
        found.kept[tensor][:] = np.roll(found.kept[tensor], 1)
        return found

    of_graph = removal.of_graph
    with monkeypatch.context() as patch:
        patch.setattr(removal, "of_graph", wrong)
        broken = right(model)
    monkeypatch.setattr(slim, "_needed", lambda model: broken.model)
    with pytest.raises(ValueError, match="not written: codes"):
        slim.convert(model, target="tflm")


def test_int4_keeps_its_channels(two_bits, monkeypatch):
    monkeypatch.setattr(smaller, "of_model", None)
    packed = int4.convert(two_bits).model
    assert slim.encode(packed, target="tflm")[1]


def test_ethos_is_refused(two_bits):
    with pytest.raises(ValueError, match="not meant for ethos-u"):
        slim.convert(two_bits, target="ethos-u")


def test_a_change_on_the_way_is_refused(two_bits, monkeypatch):
    """The comparison stands between the passes and the caller."""

    def lose_a_bias(container):
        tensor = container.subgraphs[0].tensors[int(container.subgraphs[0].operators[0].inputs[2])]
        bias = flatbuffer.constant(container, tensor)
        flatbuffer.set_constant(container, tensor, bias + np.int32(10_000))

    monkeypatch.setattr(slim, "_drop_names", lose_a_bias)
    with pytest.raises(ValueError, match="not the canonical network and is not written: biases"):
        slim.convert(two_bits)


def test_runtimes_that_refuse_are_not_listed(two_bits, monkeypatch):
    def refuse(model, inputs, *, runtime, **options):
        raise failed(f"{runtime} refuses")

    failed = runtime.RuntimeFailedError
    monkeypatch.setattr(slim.runtime, "run", refuse)
    assert slim._accepted(two_bits) == ()


def test_a_missing_runtime_is_a_warning(two_bits, monkeypatch):
    monkeypatch.setattr(runtime, "available", lambda name: name == LITERT)
    made = checked(two_bits, two_bits, runtimes=(LITERT, TFLM))
    assert any("not compared in tflm: TFLM is not installed" in text for text in made.warnings)


def test_files_of_other_writers_get_their_equal_things_shared(two_bits):
    theirs = bytes(flatbuffer_utils.convert_object_to_bytearray(flatbuffer.read(two_bits.data)))
    made = slim.convert(load(theirs))
    assert made.passes[0] == slim.Pass(
        "equal vectors and tables shared", len(theirs) - len(two_bits.data)
    )
    assert made.result.model.data == slim.convert(two_bits).result.model.data
