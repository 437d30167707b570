"""Weights of a model of other bits are refused; files without a record load as before."""

import h5py
import numpy as np
import pytest

import tfbinreg

FILES = ["w.h5", "w.weights.h5"]


@pytest.fixture(scope="module")
def nets(float_net):
    return {bits: tfbinreg.quantize_apply(float_net, weight_bits=bits) for bits in (2, 4)}


@pytest.mark.parametrize("name", FILES)
def test_weights_of_other_bits_are_refused_by_layer(nets, name, tmp_path):
    path = tmp_path / name
    nets[2].save_weights(path)
    before = nets[4].get_weights()
    with pytest.raises(ValueError, match=r"depthwise \(2 in the file, 4 in the model\).*recipe"):
        nets[4].load_weights(path)
    for now, then in zip(nets[4].get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("name", [*FILES, "checkpoint"])
def test_weights_of_the_same_bits_are_loaded(nets, float_net, name, tmp_path):
    path = tmp_path / name
    nets[2].save_weights(path)
    other = tfbinreg.quantize_apply(float_net, weight_bits=2)
    other.load_weights(path)
    for ours, theirs in zip(other.get_weights(), nets[2].get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", FILES)
def test_files_without_a_record_are_loaded(nets, name, tmp_path):
    path = tmp_path / name
    nets[2].save_weights(path)
    with h5py.File(path, "a") as file:
        del file.attrs["tfbinreg_bits"]
    nets[2].load_weights(path)


def test_other_bits_of_channels_are_refused_in_words(float_net, tmp_path):
    one, other = (
        tfbinreg.quantize_apply(
            float_net, tfbinreg.Recipe(rules=[tfbinreg.Rule(layer="conv", weight_bits=own)])
        )
        for own in [(0, 1, 2, 0), (8, 1, 2, 2)]
    )
    one.save_weights(tmp_path / "w.h5")
    with pytest.raises(ValueError, match=r"conv \(0-2, 2 pruned in the file, 1-8 in the model\)"):
        other.load_weights(tmp_path / "w.h5")
    one.load_weights(tmp_path / "w.h5")
