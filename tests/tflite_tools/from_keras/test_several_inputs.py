"""A net of two inputs and two outputs, whose order in the file is another than in Keras."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")
import tf_keras as keras

import tfbinreg
from tflite_tools.checks.derived_file import verify_variant
from tflite_tools.checks.trained_model import verify
from tflite_tools.checks.verdict import Verdict
from tflite_tools.formats import build
from tflite_tools.from_keras import convert
from tflite_tools.running import samples
from tflite_tools.schema.contents import load

layers = keras.layers


@pytest.fixture(scope="module")
def two_net():
    keras.utils.set_random_seed(5)
    left, right = layers.Input((4, 4, 2), name="left"), layers.Input((4, 4, 2), name="right")
    first = layers.Conv2D(3, 1, activation="relu", name="first")(right)
    second = layers.Conv2D(3, 1, activation="relu", name="second")(left)
    x = layers.GlobalAveragePooling2D(name="mean")(layers.Add(name="add")([first, second]))
    outputs = [layers.Dense(3, name="scores")(x), layers.Dense(2, name="other")(x)]
    random = np.random.default_rng(0)
    data = [random.normal(scale=scale, size=(16, 4, 4, 2)).astype(np.float32) for scale in (1, 5)]
    net = keras.Model([left, right], outputs)
    return tfbinreg.quantize_apply(net, weight_bits=4, calibration_data=data)


@pytest.mark.parametrize("input_type", ["int8", "float32"])
def test_inputs_and_outputs_are_told_apart_by_name(two_net, input_type, tmp_path):
    two_net.save(tmp_path / "q.keras")
    file = load(tfbinreg.to_tflite(two_net, input_type=input_type))
    inputs = samples.seeded(file, samples=20, seed=0)
    assert np.abs(inputs["right"]).max() > 3 * np.abs(inputs["left"]).max()
    reference = convert.reference(tmp_path / "q.keras", inputs)
    assert reference.predictions["scores"].shape == (20, 3)
    report = verify(file, reference=reference, inputs=inputs)
    checks = [check for check in report.checks if check.name != "finalized"]
    assert [check.verdict for check in checks[:5]] == [Verdict.PASSED] * 5
    with pytest.raises(ValueError, match="inputs are called"):
        verify(file, inputs={"left": inputs["left"]})


def test_inputs_without_names_keep_their_shapes():
    pixels, numbers = layers.Input((4, 4, 2), name="pixels"), layers.Input((6,), name="numbers")
    x = layers.Flatten()(layers.Conv2D(3, 1, activation="relu")(pixels))
    net = keras.Model([pixels, numbers], [layers.Dense(3)(x), layers.Dense(2)(numbers)])
    random = np.random.default_rng(0)
    data = [random.normal(size=(16, *shape)).astype(np.float32) for shape in ((4, 4, 2), (6,))]
    quantized = tfbinreg.quantize_apply(net, weight_bits=2, calibration_data=data)
    canonical = load(tfbinreg.to_tflite(quantized))
    made = build.build(canonical, build.Options(slim=True)).model
    inputs = samples.seeded(made, samples=3, seed=0)
    assert sorted(array.shape for array in inputs.values()) == [(3, 4, 4, 2), (3, 6)]
    assert verify_variant(made, canonical, samples_count=8).passed
