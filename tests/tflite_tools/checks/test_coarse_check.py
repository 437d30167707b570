"""`verify` names what is lost on a grid with far larger numbers, and says nothing otherwise."""

import json

import numpy as np
import pytest
from quick import combinations, slow

pytest.importorskip("tensorflow")
import tf_keras as keras

import tfbinreg
from tflite_tools.checks.trained_model import verify
from tflite_tools.checks.verdict import Verdict
from tflite_tools.schema.contents import load

layers = keras.layers

pytestmark = pytest.mark.filterwarnings("ignore::tfbinreg.QuantizationWarning")


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def converted(model, data, **options):
    quantized = tfbinreg.quantize_apply(model, weight_bits=8, calibration_data=data)
    return load(tfbinreg.to_tflite(quantized, **options))


def joined(boxes_scale, activation):
    """Boxes and scores in one output."""
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    boxes = layers.Rescaling(boxes_scale)(layers.Conv2D(4, 1, name="boxes")(x))
    scores = layers.Conv2D(2, 1, activation=activation, name="scores")(x)
    return keras.Model(inputs, layers.Concatenate(name="joined")([boxes, scores]))


def row_net(factors):
    """A net whose output columns are of the sizes of `factors`."""
    inputs = keras.Input((3,), name="row")
    model = keras.Model(inputs, layers.Dense(3, name="targets")(inputs))
    model.set_weights([np.diag(np.float32(factors)), np.zeros(3, np.float32)])
    return model


@combinations(
    lambda scale, activation: (scale == 1.0) == (activation == "linear"),
    scale=[1.0, 1000.0],
    activation=["sigmoid", "linear"],
)
def test_concatenated_tensors(scale, activation):
    keras.utils.set_random_seed(0)
    data = normal(32, 4, 4, 3)
    report = verify(converted(joined(scale, activation), data), inputs={"": data}, typical=True)
    assert report.passed
    names = [check.name for check in report.checks]
    assert ("coarse" in names) == (scale > 1)
    if scale > 1:
        assert report["coarse"].verdict is Verdict.WARNING
        assert report["coarse"].layers == ("joined",)
        assert "joined: its input 1 spans " in report["coarse"].detail


@pytest.mark.parametrize("input_type", ["int8", *slow("float32")])
@pytest.mark.slow
def test_columns(input_type):
    data = normal(64, 3)
    for factors, units, name, what in (
        ((1, 1, 1), (1, 1, 1), None, ""),
        ((1, 500, 1), (1, 1, 1), "targets", "column 0, 2 of this output spans less than"),
        ((1, 1, 1), (1, 1000, 1), "row", "column 0, 2 of this input spans less than"),
    ):
        scaled = data * np.float32(units)
        file = converted(row_net(factors), scaled, input_type=input_type)
        report = verify(file, inputs={"row": scaled}, typical=True)
        found = [check for check in report.checks if check.name == "coarse"]
        assert bool(found) == (name is not None)
        if found:
            assert name in found[0].layers and what in found[0].detail


def test_the_command_tells_it_in_text_and_json_for_given_inputs_alone(command, tmp_path):
    data = normal(64, 3)
    (tmp_path / "m.tflite").write_bytes(converted(row_net((1, 500, 1)), data).data)
    np.save(tmp_path / "x.npy", data)
    flags = ("verify", tmp_path / "m.tflite")
    code, out, _ = command(*flags, "--inputs", tmp_path / "x.npy", "--json")
    found = {check["name"]: check for check in json.loads(out)["checks"]}
    assert code == 0 and found["coarse"]["verdict"] == "warning"
    assert found["coarse"]["layers"] == ["targets"]
    code, out, _ = command(*flags, "--inputs", tmp_path / "x.npy")
    assert code == 0 and "coarse" in out and "targets" in out
    assert "coarse" not in command(*flags)[1]
