"""Format, target and slimming together."""

import pytest
import sequence_nets

from tflite_tools.c import generate, host_run, verify_folder
from tflite_tools.checks.verdict import Check, Report, Verdict
from tflite_tools.formats import ethos, int4, lut
from tflite_tools.formats.build import Options, build
from tflite_tools.running import runtime
from tflite_tools.schema import flatbuffer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "int2"}, "no format 'int2'"),
        ({"target": "tpu"}, "for target 'tpu'"),
        ({"split_convs": 9}, "--split_convs is for --format lut"),
        ({"split_convs": 0, "format": "lut"}, "at least 1 byte, got 0"),
        ({"format": "int4", "target": "ethos-u"}, "int4 does not run on ethos-u"),
        ({"format": "lut", "target": "ethos-u"}, "lut does not run on ethos-u"),
        ({"format": "lut", "target": "litert"}, "lut does not run on litert"),
        ({"ram_budget": 9000}, "--ram_budget is for --format c"),
        ({"streaming": True}, "--streaming is for --format c"),
        ({"streaming": True, "format": "c", "package": "zephyr"}, "--streaming has no --package"),
        ({"streaming": True, "format": "c", "ram_budget": 9000}, "leave --ram_budget out"),
        ({"format": "c", "target": "tflm"}, "its own runtime"),
        ({"format": "c", "slim": True}, "--slim is for .tflite files"),
        ({"target": "ethos-u", "slim": True}, "--slim is for .tflite files"),
    ],
)
def test_combinations_that_no_device_has_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)


@pytest.mark.slow
def test_formats(two_bits):
    assert build(two_bits, Options()).files == {"": two_bits.data}
    packed = build(two_bits, Options(format="int4"))
    assert packed.files[""] == int4.convert(two_bits).model.data
    assert packed.warnings
    tables = build(two_bits, Options(format="lut", split_convs=9300, slim=True))
    assert tables.size == len(tables.files[""]) < len(two_bits.data) // 2
    assert tables.figures["runs_in"] == ["TFLM"]
    assert tables.figures["decoded_tensors"] > 1
    assert tables.passes[0].name == "names and signatures dropped"


def test_only_canonical_files_are_taken(two_bits, float_file, edit, tensor_of):
    for made in (int4.convert(two_bits), lut.convert(two_bits)):
        with pytest.raises(ValueError, match=r"no canonical int8 file: .* is packed already"):
            build(made.model, Options())
    with pytest.raises(ValueError, match="no tfbinreg manifest"):
        build(float_file, Options())

    def damage(container):
        tensor = tensor_of(container, "head/kernel")
        values = flatbuffer.constant(container, tensor).copy()
        values.flat[0] ^= 1
        flatbuffer.set_constant(container, tensor, values)

    with pytest.raises(ValueError, match="head: the codes do not match the manifest"):
        build(edit(two_bits, damage), Options(format="int4"))


def test_c_sources_are_compared_before_they_are_returned(two_bits, monkeypatch):
    made = build(two_bits, Options(format="c"), name="net")
    assert set(made.files) == {"net.c", "net.h", "main.c", generate.RUNTIME_HEADER}
    assert made.figures["arena_bytes"] > 0
    parts = made.figures["packed_weight_bytes"], made.figures["constant_bytes"]
    assert made.size == sum(parts) < len(made.files["net.c"])
    needs = host_run.compiler() is None or not runtime.available(runtime.TFLM)
    assert bool(made.warnings) == needs
    found = Report((Check("tflm", Verdict.FAILED, "1 of 5 outputs differ"),))
    monkeypatch.setattr(verify_folder, "compare", lambda folder, model: found)
    with pytest.raises(ValueError, match="is not written: tflm: 1 of 5 outputs differ"):
        build(two_bits, Options(format="c"))


def test_c_that_cannot_be_compared_is_made_with_a_warning(two_bits, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    made = build(two_bits, Options(format="c"))
    assert len(made.files) == 4
    assert made.warnings[0].startswith("not compared in tflm: no C compiler: set CC")


def test_operators_on_the_cpu_are_named(two_bits, monkeypatch):
    compiled = ethos.Compiled(two_bits, ("MEAN mean",), 90, 360, 1000, 2000)
    monkeypatch.setattr(ethos, "compile_model", lambda model, accelerator: compiled)
    made = build(two_bits, Options(target="ethos-u", accelerator="ethos-u85-256"))
    assert made.files == {"": two_bits.data}
    assert made.warnings == ("MEAN mean: stays on the CPU",)
    assert made.figures["bits_per_weight"] == 2.0
    assert made.figures["all_on_npu"] is False
    assert made.figures["accelerator"] == "ethos-u85-256"


def test_frames():
    built = build(sequence_nets.window(), Options(format="c", streaming=True), name="net")
    assert "net_push" in built.files["net.c"].decode()
    figures = built.figures
    assert (figures["first_output_frame"], figures["output_every_frames"]) == (19, 2)
    # Rows of 5 values: of 18 and 9, then dense; the second convolution runs every other frame.
    first, second, dense = 9 * 5, 15 * 5, 5 * 4
    assert figures["whole_sequence_products"] == 18 * first + 8 * second + dense
    assert figures["products_a_frame"] == round(first + (second + dense) / 2)
    assert figures["state_bytes"] + figures["arena_bytes"] < figures["whole_sequence_bytes"]
