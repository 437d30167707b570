"""INT4 weights."""

import dataclasses

import numpy as np
import pytest
from quick import combinations

from tflite_tools.checks.verdict import Verdict
from tflite_tools.formats import int4
from tflite_tools.schema import codes, flatbuffer, manifest
from tflite_tools.schema.contents import load

PACKED = {"pointwise", "depthwise", "conv", "hidden"}


def stored(model):
    """Layer name -> type of its weights."""
    types = {tensor.name: tensor.dtype for tensor in model.main.tensors}
    return {entry.name: types[entry.tensor] for entry in model.manifest.layers}


@combinations(
    lambda bits, per_channel: per_channel == (bits == 2), bits=[2, 3, 4], per_channel=[False, True]
)
def test_weights_are_the_same_numbers_and_run(canonical, bits, per_channel):
    file = canonical(bits, per_channel)
    made = int4.convert(file)
    types = stored(made.model)
    left = {"hidden"} if per_channel else set()
    assert {name for name, kind in types.items() if kind == "INT4"} == PACKED - left
    assert len(made.model.data) < len(file.data) - 9000
    expected = codes.codes_of(file)
    for name, found in codes.codes_of(made.model).items():
        np.testing.assert_array_equal(found, expected[name])
    verdicts = {check.name: check.verdict for check in made.report.checks}
    assert set(verdicts) == {"structure", "codes", "biases", "rounding", "litert", "tflm"}
    assert Verdict.FAILED not in verdicts.values()
    assert made.report["rounding"].figures["most_levels"] <= 1


@combinations(
    lambda bits, per_channel: per_channel == (bits != 3), bits=[2, 3, 4], per_channel=[False, True]
)
def test_stored_in_four_bits_outputs_are_bit_for_bit_the_canonical_ones(
    bits, per_channel, canonical
):
    made = int4.convert(canonical(bits, per_channel, "int4"))
    assert "INT4" in stored(made.model).values()
    checks = {check.name: check for check in made.report.checks}
    assert set(checks) == {"structure", "codes", "biases", "litert", "tflm"}
    assert "bit for bit the canonical file's" in checks["tflm"].detail
    assert "are the same integers" in checks["biases"].detail


def test_versions_are_kept(two_bits):
    versions = [
        [code.version for code in flatbuffer.read(file.data).operatorCodes]
        for file in (two_bits, int4.convert(two_bits).model)
    ]
    assert versions[0] == versions[1]


@pytest.mark.slow
def test_scales_per_channel_of_a_dense_layer(two_bits, canonical):
    made = int4.convert(two_bits)
    (warning,) = [text for text in made.warnings if text.startswith("hidden")]
    assert "left int8, TFLM takes no INT4 weights with a scale per channel" in warning
    for target, file in (("litert", two_bits), ("tflm", canonical(2, False))):
        assert stored(int4.convert(file, target=target).model)["hidden"] == "INT4"


def test_equal_scales_of_a_dense_layer_become_one(two_bits, edit, tensor_of):
    def level(container):
        for name in ("hidden/kernel", "hidden/bias"):
            scales = flatbuffer.scales(tensor_of(container, name))
            flatbuffer.set_quantization(
                tensor_of(container, name), np.full_like(scales, scales[0]), 0
            )

    made = int4.convert(edit(two_bits, level))
    tensors = {tensor.name: tensor for tensor in made.model.main.tensors}
    assert tensors["hidden/kernel"].dtype == "INT4"
    assert tensors["hidden/kernel"].quantization.scale.size == 1


def test_float_inputs(canonical):
    made = int4.convert(canonical(2, True, "float32"))
    assert made.report.passed


def test_eight_bits_are_refused(canonical):
    with pytest.raises(ValueError, match=r"No layer can be stored as INT4 .*more than 4 bits"):
        int4.convert(canonical(8, True))


def test_ethos_is_refused(two_bits):
    with pytest.raises(ValueError, match="do not run on ethos-u"):
        int4.convert(two_bits, target="ethos-u")


def test_weights_that_do_not_fit_name_the_layer(two_bits, edit, tensor_of):
    def damage(container):
        tensor = tensor_of(container, "conv/kernel")
        weights = flatbuffer.constant(container, tensor).copy()
        weights.flat[0] = 33
        flatbuffer.set_constant(container, tensor, weights)

    with pytest.raises(ValueError, match="conv: the weights 'conv/kernel' do not fit INT4"):
        int4.convert(edit(two_bits, damage))


def test_files_that_are_packed_or_strange_are_refused(two_bits, float_file, edit, tensor_of):
    with pytest.raises(ValueError, match="the file has no int8 weights"):
        int4.convert(int4.convert(two_bits).model)
    with pytest.raises(ValueError, match="no tfbinreg manifest"):
        int4.convert(float_file)

    def compute_bias(container):
        tensor_of(container, "conv/bias").buffer = 0

    with pytest.raises(ValueError, match="'conv/bias' is no constant"):
        int4.convert(edit(two_bits, compute_bias))

    def unused(container):
        entry = manifest.find(container)
        graph = container.subgraphs[0]
        lonely = [op for op in graph.operators if flatbuffer.op_name(container, op) != "CONV_2D"]
        assert entry.layers
        graph.operators = lonely

    with pytest.raises(ValueError, match="no constant in use"):
        int4.convert(edit(two_bits, unused))


def test_an_operator_without_int4_kernels_stays_int8(two_bits, edit):
    def rename(container):
        code = container.operatorCodes[
            next(
                op.opcodeIndex
                for op in container.subgraphs[0].operators
                if flatbuffer.op_name(container, op) == "DEPTHWISE_CONV_2D"
            )
        ]
        code.builtinCode = code.deprecatedBuiltinCode = 67  # TRANSPOSE_CONV

    renamed = edit(two_bits, rename)
    entries = {entry.name: entry for entry in renamed.require_manifest().layers}
    container = flatbuffer.read(renamed.data)
    why = int4._obstacle(container, entries["depthwise"], "any")
    assert "no runtime takes INT4 weights for TRANSPOSE_CONV" in why


@pytest.mark.parametrize("seed", range(4))
def test_damage_never_comes_through_silently(two_bits, flip, seed):
    damaged = flip(two_bits.data, seed, 40)
    try:
        made = int4.convert(load(damaged))
    except (ValueError, RuntimeError):
        return
    assert made.report.passed


def test_a_codebook_that_reaches_too_far_stays_int8(two_bits, edit, tensor_of):
    def spread(container):
        header = manifest.find(container)
        book = (-100, -3, 0, 3)
        layers = tuple(
            dataclasses.replace(entry, levels=book, prescale=1) if entry.name == "conv" else entry
            for entry in header.layers
        )
        text = dataclasses.replace(header, layers=layers).to_json().encode()
        flatbuffer.set_metadata(container, manifest.METADATA_NAME, text)
        tensor = tensor_of(container, "conv/kernel")
        values = np.resize(np.array(book, np.int8), flatbuffer.indices(tensor.shape))
        flatbuffer.set_constant(container, tensor, values)

    _, warnings = int4.encode(edit(two_bits, spread))
    (line,) = (line for line in warnings if line.startswith("conv: "))
    assert line == "conv: left int8, its codebook reaches from -100 to 3, INT4 from -8 to 7"
