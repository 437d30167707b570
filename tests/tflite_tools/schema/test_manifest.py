"""The manifest: what `parse` reads back and what it refuses."""

import dataclasses
import json

import numpy as np
import pytest

from tflite_tools.schema import flatbuffer, manifest
from tflite_tools.schema.manifest import ActivationEntry, LayerEntry, Manifest

LAYER = LayerEntry("conv", "Conv2D", "conv/kernel", 2, 32, (3, 3, 1, 4), "00")
ACTIVATION = ActivationEntry("conv", 4, 0, 15, 112)
HEADER = Manifest({"tfbinreg": "1"}, {"weight_bits": 2}, (LAYER,), (ACTIVATION,))


def test_text_reads_back():
    assert manifest.parse(HEADER.to_json()) == HEADER
    assert "fixed" not in HEADER.to_json()
    header = dataclasses.replace(HEADER, fixed=(dataclasses.replace(LAYER, name="rescaling"),))
    assert manifest.parse(header.to_json()) == header


@pytest.mark.parametrize(
    ("field", "value"),
    [("bits", 0), ("bits", 9), ("bits", True), ("bits", 2.0), ("prescale", 0), ("name", 3)]
    + [("shape", (3, -1)), ("shape", ("a",)), ("sha256", None)]
    + [("levels", (-128, 1)), ("levels", ("a", 1)), ("channel_bits", (2, 3, 0, 1))]
    + [("channel_levels", ((0,), (-128, 1))), ("channel_levels", ((0,), ()))]
    + [("channel_levels", ((0,), (1, 2, 3, 4, 5)))],
)
def test_layers_have_sensible_fields(field, value):
    with pytest.raises(ValueError, match="expected"):
        dataclasses.replace(LAYER, **{field: value})


@pytest.mark.parametrize(("field", "value"), [("bits", 12), ("qmin", "0"), ("zero_point", 1e9)])
def test_activations_have_sensible_fields(field, value):
    with pytest.raises(ValueError, match="expected a whole number"):
        dataclasses.replace(ACTIVATION, **{field: value})


def test_codebooks_and_bits_per_channel_read_back():
    book = dataclasses.replace(LAYER, name="book", bits=3, levels=(-4, -1, 0, 1, 4))
    mixed = dataclasses.replace(LAYER, name="mixed", channel_bits=(0, 2, 1, 0))
    books = dataclasses.replace(LAYER, name="books", channel_levels=((0,), (-1, 1), (-9, 0, 4)))
    header = dataclasses.replace(HEADER, layers=(LAYER, book, mixed, books))
    assert manifest.parse(header.to_json()) == header
    assert [layer.pruned for layer in header.layers] == [0, 0, 2, 1]
    assert [layer.widths for layer in header.layers] == [None, None, (0, 2, 1, 0), (0, 1, 2)]
    assert [layer.is_even for layer in header.layers] == [True, False, False, False]


def test_most_layers_do_not_mention_them():
    (entry,) = json.loads(HEADER.to_json())["layers"]
    assert entry.keys() == {"name", "kind", "tensor", "bits", "prescale", "shape", "sha256"}


def _changed(**fields):
    return json.dumps({**json.loads(HEADER.to_json()), **fields})


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", '{"format": 1}', "[" * 100_000, _changed(format=2), _changed(layers=7)]
    + [_changed(layers=[{"name": "conv"}]), _changed(recipe=None), _changed(surprise=1)]
    + [_changed(versions={"tfbinreg": 1})],
)
def test_broken_manifests_are_refused(text):
    with pytest.raises(ValueError, match="manifest in the file cannot be read"):
        manifest.parse(text)


def test_files_without_one(float_file):
    assert manifest.find(flatbuffer.read(float_file.data)) is None
    with pytest.raises(ValueError, match="no tfbinreg manifest"):
        float_file.require_manifest()


def test_digest_depends_on_order_of_codes_only():
    codes = np.arange(-3, 3, dtype=np.int8).reshape(2, 3)
    assert manifest.codes_digest(codes) == manifest.codes_digest(np.asfortranarray(codes))
    assert manifest.codes_digest(codes) != manifest.codes_digest(codes[::-1])
