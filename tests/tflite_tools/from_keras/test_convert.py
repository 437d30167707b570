"""The bridge to tfbinreg."""

import builtins

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tfbinreg
from tflite_tools.from_keras import convert
from tflite_tools.running import samples


@pytest.mark.parametrize("input_type", ["int8", "float32"])
def test_bytes_are_those_of_to_tflite(saved_net, input_type):
    data = tfbinreg.to_tflite(tfbinreg.load_model(saved_net), input_type=input_type)
    assert convert.convert(saved_net, input_type=input_type).data == data


def test_a_loss_that_is_not_known_here_is_not_needed(saved_net, tmp_path):
    def own_loss(wanted, found):
        return (wanted - found) ** 2

    model = tfbinreg.load_model(saved_net)
    model.compile("sgd", own_loss)
    model.save(tmp_path / "q.keras")
    codes = convert.convert(tmp_path / "q.keras").require_manifest().layers
    assert codes == convert.convert(saved_net).require_manifest().layers


def test_reference(saved_net, int8_file, codes):
    inputs = samples.seeded(int8_file, samples=3, seed=0)
    reference = convert.reference(saved_net, inputs)
    assert reference.codes.keys() == codes.keys()
    np.testing.assert_array_equal(reference.codes["conv"], codes["conv"])
    assert reference.activations["conv"].shape == (3, 8, 8, 4)
    predictions = reference.predictions["head_softmax"]
    np.testing.assert_array_equal(reference.activations["image"], inputs["image"])
    np.testing.assert_allclose(reference.activations["head_softmax"], predictions, atol=1e-6)
    expected = tfbinreg.load_model(saved_net).predict(inputs["image"], verbose=0)
    np.testing.assert_allclose(predictions, expected, atol=1e-6)


def test_inputs_of_another_shape_are_refused(saved_net):
    with pytest.raises(ValueError, match=r"takes samples of shape \[\(8, 8, 3\)\]"):
        convert.reference(saved_net, {"image": np.zeros((2, 8, 8, 1), np.float32)})


def test_a_missing_model_is_said_so(tmp_path):
    with pytest.raises(ValueError, match="No model at"):
        convert.load(tmp_path / "q.keras")


def test_a_missing_tensorflow_is_said_so(monkeypatch):
    original = builtins.__import__

    def refuse(name, *arguments):
        if name.startswith("tfbinreg"):
            raise ModuleNotFoundError("No module named 'tensorflow'")
        return original(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(RuntimeError, match=r"needs TensorFlow.*No module named 'tensorflow'"):
        convert.load("q.keras")
