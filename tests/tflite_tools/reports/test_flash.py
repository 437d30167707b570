"""Counted flash is what the C sources hold, or what the file would have to."""

import numpy as np
import pytest

from tflite_tools.c import generate
from tflite_tools.reports import flash


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_c_sources_are_counted(canonical, bits):
    file = canonical(bits, True)
    found, made = flash.count(file), generate.generate(file)
    layers = file.manifest.layers
    assert found.weights == sum(-(-np.prod(e.shape) * e.bits // 8) for e in layers)
    assert found.weights >= made.packed_weight_bytes
    assert (found.constants, found.arena_bytes) == (made.constant_bytes, made.arena_bytes)
    assert found.total == found.weights + found.constants
    assert found.obstacle == ""


def test_bits_that_c_has_no_width_for_count_as_the_next(canonical):
    five, eight = (flash.count(canonical(bits, True)).weights for bits in (5, 8))
    assert five == eight


def test_without_c_biases_and_scales_are_counted(two_bits, monkeypatch):
    def refuse(model, *, whole):
        raise ValueError("Cannot write the file as C:\n  - reason")

    weights = flash.count(two_bits).weights
    monkeypatch.setattr(generate, "generate", refuse)
    found = flash.count(two_bits)
    channels = 16 + 64 + 64 + 32 + 32 + 5  # one bias and one scale each
    assert (found.weights, found.constants) == (weights, channels * (4 + 4))
    assert (found.arena_bytes, found.obstacle) == (None, "Cannot write the file as C: - reason")


def test_files_without_a_manifest_are_refused(float_file):
    with pytest.raises(ValueError, match="no tfbinreg manifest"):
        flash.count(float_file)
