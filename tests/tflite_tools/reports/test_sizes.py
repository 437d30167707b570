"""Bytes by layer are those of the formats that convert writes."""

import numpy as np
import pytest

from tflite_tools.c import generate
from tflite_tools.formats import lut
from tflite_tools.formats.build import Options, build
from tflite_tools.reports import sizes
from tflite_tools.reports.describe import describe
from tflite_tools.running import runtime


def by_name(found):
    return {entry.name: entry for entry in found.formats}


@pytest.mark.slow
def test_formats_take_what_convert_writes(two_bits):
    if not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")
    found = by_name(sizes.measure(two_bits))
    assert not any(entry.refused for entry in found.values())
    for name, options in (("int8", {}), ("int4", {"format": "int4"}), ("lut", {"format": "lut"}),
                          ("slim", {"slim": True})):  # fmt: skip
        model = build(two_bits, Options(**options)).model
        assert found[name].total == len(model.data)
        categories = describe(model).size_by_category
        stored = categories["weights"] + categories["tables"]
        assert sum(found[name].layers) == stored
    made = generate.generate(two_bits)
    assert found["c"].total == made.packed_weight_bytes + made.constant_bytes
    assert sum(found["c"].layers) == made.packed_weight_bytes


def test_layers_are_in_the_order_of_the_formats(two_bits):
    found = sizes.measure(two_bits)
    assert [layer.name for layer in found.layers] == [
        "first", "pointwise", "depthwise", "conv", "hidden", "head",
    ]  # fmt: skip
    counts = {entry.name: int(np.prod(entry.shape)) for entry in two_bits.manifest.layers}
    bits = {entry.name: entry.bits for entry in two_bits.manifest.layers}
    for index, layer in enumerate(found.layers):
        count = counts[layer.name]
        assert layer.limits == (4 * count, count, -(-count * bits[layer.name] // 8))
        assert by_name(found)["int8"].layers[index] == count
        assert by_name(found)["c"].layers[index] <= layer.limits.codes


def test_formats_that_refuse_have_their_reason(canonical, monkeypatch):
    monkeypatch.setattr(runtime, "available", lambda name: False)
    monkeypatch.setattr(generate, "LOWERINGS", {})
    found = by_name(sizes.measure(canonical(8, True)))
    assert "No layer can be stored as INT4" in found["int4"].refused
    assert found["lut"].refused == lut._MISSING
    assert found["c"].refused.startswith("Cannot write the file as C: - CONV_2D")
    assert (found["slim"].refused, found["slim"].total > 0) == ("", True)


def test_files_that_are_not_canonical_have_limits_only(float_file, two_bits):
    found = sizes.measure(float_file)
    assert found.layers
    assert all("no tfbinreg manifest" in entry.refused for entry in found.formats)
    nameless = build(two_bits, Options(slim=True)).model
    assert all(entry.refused for entry in sizes.measure(nameless).formats)
