"""Every check passes on an undamaged file and fails, by the layer's name, on a damaged one."""

import dataclasses

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tflite_tools.checks import operator_checks
from tflite_tools.checks.agreement import Limits, compare
from tflite_tools.checks.trained_model import Reference, verify
from tflite_tools.checks.verdict import Verdict
from tflite_tools.running import runtime, samples
from tflite_tools.schema import flatbuffer, manifest

SAMPLES = 24


@pytest.fixture(scope="module")
def inputs(int8_file):
    return samples.seeded(int8_file, samples=SAMPLES, seed=0)


def _header(change):
    """An edit that changes the manifest."""

    def edit(container):
        header = change(manifest.find(container))
        container.metadata = []
        flatbuffer.set_metadata(container, manifest.METADATA_NAME, header.to_json().encode())

    return edit


def _without_first(name):
    return _header(lambda header: dataclasses.replace(header, **{name: getattr(header, name)[1:]}))


@pytest.mark.parametrize("name", ["int8_file", "float_io_file"])
def test_an_undamaged_file_passes(name, request, inputs, reference):
    file = request.getfixturevalue(name)
    report = verify(file, reference=reference, inputs=inputs)
    assert report.passed
    assert [check.name for check in report.checks] == [
        "codes",
        "integer",
        "levels",
        "layers",
        "agreement",
        "tflm",
    ]
    assert all(check.verdict is Verdict.PASSED for check in report.checks[:5])
    assert report["agreement"].figures["samples"] == SAMPLES
    edges = 2 if name == "float_io_file" else 0
    assert report["integer"].figures["edge_operators"] == edges


def test_without_a_reference_nothing_is_compared_with_it(int8_file):
    report = verify(int8_file, samples_count=2)
    assert report.passed
    assert "SHA-256" in report["codes"].detail
    assert report["layers"].verdict is report["agreement"].verdict is Verdict.SKIPPED


@pytest.fixture
def one_code_off(int8_file, edit, tensor_of):
    def damage(container):
        tensor = tensor_of(container, "pointwise/kernel")
        weights = flatbuffer.constant(container, tensor).copy()
        weights.flat[5] = 0 if weights.flat[5] else 32
        flatbuffer.set_constant(container, tensor, weights)

    return edit(int8_file, damage)


def test_one_wrong_code_fails_by_its_layer(one_code_off, codes):
    for known in (None, codes):
        check = verify(one_code_off, reference=Reference(codes=known), samples_count=2)["codes"]
        assert check.verdict is Verdict.FAILED
        assert check.layers == ("pointwise",)
    assert "1 of 24 codes differ" in check.detail


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda codes: codes.pop("head"), "head: not in the reference"),
        (lambda codes: codes.update(extra=codes["head"]), "extra: missing from the file"),
        (lambda codes: codes.update(head=codes["head"].T), "head: shape"),
    ],
)
def test_the_reference_has_the_same_layers(int8_file, codes, change, message):
    changed = dict(codes)
    change(changed)
    check = verify(int8_file, reference=Reference(codes=changed), samples_count=2)["codes"]
    assert check.verdict is Verdict.FAILED
    assert message in check.detail


def test_a_layer_left_out_of_the_manifest_fails(int8_file, edit):
    check = verify(edit(int8_file, _without_first("layers")), samples_count=2)["codes"]
    assert check.verdict is Verdict.FAILED
    assert check.layers == ("conv/kernel",)


def test_two_tensors_of_one_name_fail(int8_file, edit, tensor_of):
    def damage(container):
        tensor_of(container, "head/bias").name = "head/kernel"

    check = verify(edit(int8_file, damage), samples_count=2)["codes"]
    assert "2 tensors are called 'head/kernel'" in check.detail


def test_a_float_operator_fails_by_its_layer(int8_file, edit, tensor_of):
    def damage(container):
        tensor_of(container, "pool").type = schema.TensorType.FLOAT32

    report = verify(edit(int8_file, damage), samples_count=2)
    check = report["integer"]
    assert check.verdict is Verdict.FAILED
    assert "pool" in check.layers
    assert "AVERAGE_POOL_2D uses FLOAT32 'pool'" in check.detail
    assert report["levels"].verdict is Verdict.FAILED  # the operator's types do not fit either


def test_quantizing_within_the_graph_fails(float_io_file, edit):
    def damage(container):
        graph = container.subgraphs[0]
        graph.inputs = np.array([graph.operators[0].outputs[0]], np.int32)

    check = verify(edit(float_io_file, damage), samples_count=2)["integer"]
    assert check.verdict is Verdict.FAILED
    assert "QUANTIZE uses FLOAT32" in check.detail


def test_a_moved_zero_point_fails_by_its_layer(int8_file, edit, tensor_of):
    def damage(container):
        tensor_of(container, "conv").quantization.zeroPoint = np.array([100])

    check = verify(edit(int8_file, damage), samples_count=8)["levels"]
    assert check.verdict is Verdict.FAILED
    assert "conv" in check.layers
    assert "zero point [100], in the manifest [112]" in check.detail


def test_values_off_the_grid_fail(int8_file, edit):
    def narrow(header):
        entries = tuple(
            dataclasses.replace(entry, bits=1, qmax=1) if entry.tensor == "conv" else entry
            for entry in header.activations
        )
        return dataclasses.replace(header, activations=entries)

    check = verify(edit(int8_file, _header(narrow)), samples_count=8)["levels"]
    assert check.verdict is Verdict.FAILED
    assert "conv" in check.layers
    assert "allowed 112..113" in check.detail
    assert "values, allowed 2" in check.detail


def test_a_missing_clamp_fails(int8_file, edit):
    """Without the fused ReLU nothing keeps a four-bit activation above its zero point."""

    def damage(container):
        container.subgraphs[0].operators[0].builtinOptions.fusedActivationFunction = 0

    check = verify(edit(int8_file, damage), samples_count=8)["levels"]
    assert check.verdict is Verdict.FAILED
    assert "conv" in check.layers


def test_an_activation_left_out_of_the_manifest_fails(int8_file, edit):
    check = verify(edit(int8_file, _without_first("activations")), samples_count=2)["levels"]
    assert check.verdict is Verdict.FAILED
    assert "is not in the manifest" in check.detail


def test_an_activation_missing_from_the_file_fails(int8_file, edit, tensor_of):
    def damage(container):
        tensor_of(container, "add").name = "lost"

    check = verify(edit(int8_file, damage), samples_count=2)["levels"]
    assert check.layers == ("add", "lost")


def test_a_wrong_scale_fails_by_its_layer(int8_file, edit, tensor_of, inputs, reference):
    def damage(container):
        parameters = tensor_of(container, "head").quantization
        parameters.scale = parameters.scale * 8

    report = verify(edit(int8_file, damage), reference=reference, inputs=inputs)
    assert report["codes"].verdict is Verdict.PASSED
    assert report["agreement"].verdict is Verdict.FAILED
    assert report["agreement"].layers == ("head_softmax",)


def test_a_wrong_channel_fails_by_its_layer(int8_file, edit, tensor_of, inputs, reference):
    def damage(container):
        tensor = tensor_of(container, "depthwise/kernel")
        scale = np.array(tensor.quantization.scale)
        scale[1] *= 4
        flatbuffer.set_quantization(tensor, scale, 0, 3)

    check = verify(edit(int8_file, damage), reference=reference, inputs=inputs)["layers"]
    assert check.verdict is Verdict.FAILED
    assert check.layers == ("depthwise",)


def test_a_wrong_bias_fails_by_its_layer(int8_file, edit, tensor_of, inputs, reference):
    def damage(container):
        tensor = tensor_of(container, "pointwise/bias")
        bias = flatbuffer.constant(container, tensor)
        flatbuffer.set_constant(container, tensor, np.roll(bias, 1) + np.int32(2**12))

    check = verify(edit(int8_file, damage), reference=reference, inputs=inputs)["layers"]
    assert check.verdict is Verdict.FAILED
    assert check.layers == ("pointwise",)


def test_activations_that_do_not_fit_are_said_so(int8_file, inputs, reference):
    activations = dict(reference.activations)
    activations["add"] = activations["add"][:, 1:]
    for changed in ({}, activations):
        known = Reference(activations=changed)
        check = verify(int8_file, reference=known, inputs=inputs)["layers"]
        assert check.verdict is Verdict.SKIPPED
        assert "The reference" in check.detail


def test_limits_of_the_callers_own_fail(int8_file, inputs, reference):
    # Predictions that are off by half a level everywhere.
    moved = {name: array + 1 / 512 for name, array in reference.predictions.items()}
    off = dataclasses.replace(reference, predictions=moved, exact=False)
    assert verify(int8_file, reference=off, inputs=inputs).passed
    report = verify(int8_file, reference=off, inputs=inputs, limits=Limits(max_mean_lsb=0.4))
    assert report["agreement"].verdict is Verdict.FAILED
    assert not report.passed


def _one_level_up(values, scale, sample):
    changed = np.array(values)
    changed[sample] += scale
    return changed


def test_a_finalized_model_is_equal_in_its_target_to_the_last_level(int8_file, inputs, reference):
    assert reference.exact and reference.target == "tflm"
    report = verify(int8_file, reference=reference, inputs=inputs)
    assert "TFLM against the reference" in report["agreement"].detail
    assert report["agreement"].figures["max_lsb"] == 0.0
    assert "bit for bit" in report["layers"].detail
    # One level in one sample of one output, and in one activation.
    (name, values), *_ = reference.predictions.items()
    one = {**reference.predictions, name: _one_level_up(values, 1 / 256, 3)}
    other = dataclasses.replace(reference, predictions=one)
    assert verify(int8_file, reference=other, inputs=inputs)["agreement"].verdict is Verdict.FAILED
    entry = next(e for e in int8_file.manifest.activations if e.tensor == "add")
    scale = _scale(int8_file, entry.tensor)
    moved = np.where(reference.activations["add"] <= 0, scale, 0.0) + reference.activations["add"]
    other = dataclasses.replace(
        reference, activations={**reference.activations, "add": moved.astype(np.float32)}
    )
    check = verify(int8_file, reference=other, inputs=inputs)["layers"]
    assert check.verdict is Verdict.FAILED
    assert "other numbers" in check.detail


def _scale(file, name):
    (tensor,) = (tensor for tensor in file.main.tensors if tensor.name == name)
    return float(tensor.quantization.scale[0])


@pytest.mark.parametrize("missing", [False, True])
def test_where_the_target_does_not_run_litert_takes_its_place(
    missing, int8_file, inputs, reference, monkeypatch
):
    if missing:
        monkeypatch.setattr(runtime, "available", lambda name: name != runtime.TFLM)
    else:
        reference = dataclasses.replace(reference, target="litert", exact=False)
    check = verify(int8_file, reference=reference, inputs=inputs)["agreement"]
    assert "LiteRT against the reference" in check.detail
    assert ("TFLM is not installed" in check.detail) == missing


def _upside_down(reference):
    return {name: 1 - array for name, array in reference.predictions.items()}


def _turned(reference):
    return dataclasses.replace(reference, predictions=_upside_down(reference))


def test_outputs_that_differ_fail_with_advice_if_every_operator_is_right(
    int8_file, inputs, reference
):
    turned = dataclasses.replace(_turned(reference), exact=False)
    report = verify(int8_file, reference=turned, inputs=inputs)
    assert report["agreement"].verdict is Verdict.FAILED
    assert "tfbinreg.finalize" in report["agreement"].detail
    assert not report.passed
    unknown = dataclasses.replace(turned, activations=None)
    report = verify(int8_file, reference=unknown, inputs=inputs)
    assert report["agreement"].verdict is Verdict.FAILED
    loose = Limits(0.0, 1e9)
    report = verify(int8_file, reference=unknown, inputs=inputs, limits=loose)
    assert report["agreement"].verdict is Verdict.PASSED


def test_runtimes_that_differ_warn_if_every_operator_rounds_only(int8_file, monkeypatch):
    # No difference is small enough, not even none: whether the runtimes differ hangs on the net.
    monkeypatch.setattr("tflite_tools.checks.trained_model.DEFAULT_LIMITS", Limits(max_lsb=-1.0))
    assert verify(int8_file, samples_count=8)["tflm"].verdict is Verdict.WARNING
    monkeypatch.setattr(operator_checks, "rounding_misfits", lambda *_, **__: [("conv", "is off")])
    check = verify(int8_file, samples_count=8)["tflm"]
    assert check.verdict is Verdict.FAILED
    assert check.layers == ("conv",)


@pytest.mark.parametrize(("top1", "lsb"), [(1.1, 1), (-0.1, 1), (0.9, -1), (0.9, float("nan"))])
def test_impossible_limits_are_refused(top1, lsb):
    with pytest.raises(ValueError, match="must"):
        Limits(top1, lsb)


def test_a_missing_tflm_is_said_so(int8_file, monkeypatch):
    monkeypatch.setattr(runtime, "available", lambda name: False)
    check = verify(int8_file, samples_count=2)["tflm"]
    assert check.verdict is Verdict.SKIPPED
    assert "not installed" in check.detail


def test_reference_and_inputs_must_fit(int8_file, inputs, reference):
    (predictions,) = reference.predictions.values()
    with pytest.raises(ValueError, match="other samples than the 24 inputs"):
        verify(int8_file, reference=Reference(predictions={"x": predictions[:3]}), inputs=inputs)
    with pytest.raises(ValueError, match="takes samples of shape"):
        verify(int8_file, inputs={"x": np.zeros((2, 8, 8, 1), np.float32)})
    with pytest.raises(ValueError, match="outputs are called head_softmax; got a, b"):
        two = Reference(predictions={"a": predictions, "b": predictions})
        verify(int8_file, reference=two, inputs=inputs)


def test_files_without_manifest_are_refused(float_file):
    with pytest.raises(ValueError, match="no tfbinreg manifest"):
        verify(float_file)


def test_differences_by_hand():
    expected = np.array([[0.1, 0.9], [0.6, 0.4], [0.5, 0.5]])
    outputs = np.array([[0.1, 0.8], [0.5, 0.5], [0.4, 0.6]])
    difference = compare(outputs, expected, 0.1)
    assert difference.top1 == pytest.approx(2 / 3)  # equal outputs count, a higher rival does not
    assert difference.mean_lsb == pytest.approx(5 / 6)
    assert difference.max_lsb == pytest.approx(1.0)
    assert compare(np.ones((3, 1)), np.ones((3, 1)), 0.5).top1 is None
    with pytest.raises(ValueError, match="shape"):
        compare(np.ones((3, 2)), np.ones((3, 1)), 0.5)
