"""The quantized model takes and returns what the float model does, under the same names."""

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from quick import slow
from tensorflow import nest

import tfbinreg
from tfbinreg.deploy.freeze import freeze
from tfbinreg.network import edges
from tflite_tools.checks.trained_model import verify
from tflite_tools.checks.verdict import Verdict
from tflite_tools.from_keras import convert
from tflite_tools.schema.contents import load

BOTH = pytest.mark.parametrize("keras", [tf_keras, keras3], ids=["tf_keras", "keras3"])
RANDOM = np.random.default_rng(0)
DATA = {"a": RANDOM.random((16, 4), "float32"), "b": RANDOM.random((16, 6), "float32")}
TARGETS = {"place": RANDOM.random((16, 3), "float32"), "valid": RANDOM.integers(0, 2, (16, 1))}
INPUTS = {
    "list": lambda a, b: [a, b],
    "tuple": lambda a, b: (b, a),
    "dict": lambda a, b: {"b": b, "a": a},
    "nested": lambda a, b: {"all": [b, a]},
}
OUTPUTS = {
    "list": lambda place, valid: [valid, place],
    "tuple": lambda place, valid: (place, valid),
    "dict": lambda place, valid: {"valid": valid, "place": place},
    "nested": lambda place, valid: {"where": [place], "more": {"valid": valid}},
}


def net(keras, into="list", out="list"):
    """Two inputs and two heads, the second of which ends with an activation."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    a, b = keras.Input((4,), name="a"), keras.Input((6,), name="b")
    x = layers.Concatenate()([layers.Dense(8, activation="relu")(part) for part in (a, b)])
    place = layers.Dense(3, name="place")(x)
    valid = layers.Dense(1, activation="sigmoid", name="valid")(x)
    return keras.Model(INPUTS[into](a, b), OUTPUTS[out](place, valid), name="net")


def quantized(model, data=None):
    return tfbinreg.quantize_apply(model, weight_bits=4, calibration_data=data)


def form(structure):
    """Lists, tuples and dicts with the last axis of each tensor."""
    return nest.map_structure(lambda tensor: tensor.shape[-1], structure)


@BOTH
@pytest.mark.parametrize("kind", INPUTS)
def test_forms_stay(keras, kind):
    model = net(keras, kind, kind)
    data = INPUTS[kind](DATA["a"], DATA["b"])
    q = quantized(model)
    assert form(q.input) == form(model.input)
    assert form(q(data)) == form(q.output) == form(model.output)
    distance = nest.map_structure(lambda x, y: np.max(np.abs(x - y)), q(data), model(data))
    assert max(nest.flatten(distance)) < 0.3


@pytest.mark.parametrize("ending", [".keras", *slow(".h5", "")])
@pytest.mark.parametrize("kind", ["dict", "nested"])
def test_forms_and_names_survive_saving(tmp_path, ending, kind):
    q = quantized(net(tf_keras, kind, kind))
    data = INPUTS[kind](DATA["a"], DATA["b"])
    expected = q(data)
    path = str(tmp_path / f"q{ending}")
    q.save(path)
    loaded = tfbinreg.load_model(path)
    assert (form(loaded.input), form(loaded.output)) == (form(q.input), form(q.output))
    assert loaded.output_names == q.output_names
    nest.map_structure(np.testing.assert_array_equal, loaded(data), expected)


@pytest.mark.parametrize("out", [*slow("list", "tuple"), "dict"])
@pytest.mark.slow
def test_losses_metrics_targets_and_weights_by_name_as_on_the_float_model(out):
    def train(model):
        model.compile(
            "sgd",
            {"place": "mse", "valid": tf_keras.losses.BinaryCrossentropy()},
            metrics={"valid": ["accuracy", "mse"], "place": "mae"},
            weighted_metrics={"place": ["mse"]},
            loss_weights={"place": 0.5, "valid": 2.0},
        )
        weights = {"place": np.ones(16), "valid": np.zeros(16)}
        options = {"validation_data": (DATA, TARGETS, weights), "verbose": 0}
        return model.fit(DATA, TARGETS, sample_weight=weights, epochs=2, **options).history

    model = net(tf_keras, "dict", out)
    q = quantized(model)
    assert q.output_names == model.output_names
    found, wanted = train(q), train(model)
    assert list(found) == list(wanted)
    assert found["valid_loss"] == [0.0, 0.0]
    assert found["place_loss"] == pytest.approx(wanted["place_loss"], rel=0.3)


@pytest.mark.slow
def test_dict_outputs_of_keras3_have_the_names_of_their_keys():
    layers = keras3.layers
    image = keras3.Input((4,), name="a")
    model = keras3.Model(
        image, {"z": layers.Dense(1, name="p")(image), "y": layers.Dense(1)(image)}
    )
    q = quantized(model)
    losses = {"z": "mse", "y": "mae"}
    targets = dict.fromkeys("yz", np.zeros((16, 1)))
    histories = []
    for net in (q, model):
        net.compile("sgd", losses, metrics={"y": ["mse"]})
        histories.append(net.fit(DATA["a"], targets, verbose=0).history)
    assert set(histories[0]) == set(histories[1]) == {"loss", "y_loss", "y_mse", "z_loss"}


@BOTH
@pytest.mark.slow
def test_outputs_of_one_tensor_are_two(keras, tmp_path):
    inputs = keras.Input((4,), name="a")
    x = keras.layers.Dense(3, name="x")(inputs)
    q = quantized(keras.Model(inputs, [x, x]), DATA["a"])
    assert q.output_names == ["x", "x_1"]
    q.compile("sgd", {"x": "mse", "x_1": "mae"})
    targets = {"x": np.zeros((16, 3)), "x_1": np.ones((16, 3))}
    assert "x_1_loss" in q.fit(DATA["a"], targets, verbose=0).history
    tfbinreg.finalize(q, DATA["a"])
    path = str(tmp_path / "q.keras")
    q.save(path)
    first, second = tfbinreg.load_model(path).predict(DATA["a"], verbose=0)
    np.testing.assert_array_equal(first, second)


@BOTH
def test_nested_models_give_outputs_their_names(keras):
    """Called with dicts in another order, and by the names of its inputs."""
    inner = net(keras, "dict", "dict")
    p, q = keras.Input((4,), name="p"), keras.Input((6,), name="q")
    heads = inner({"b": q, "a": p})
    top = keras.layers.Dense(2, name="top")(heads["place"])
    model = keras.Model([p, q], [heads["valid"], top])
    found = quantized(model)
    assert found.output_names == list(model.output_names) == [inner.name, "top"]
    by_name = net(keras, "list")
    heads = by_name({"b": q, "a": p})
    assert len(quantized(keras.Model([p, q], heads)).outputs) == 2


@pytest.mark.parametrize("as_data", ["dataset", *slow("arrays", "batches")])
@BOTH
def test_finalized_models_take_and_return_dicts(keras, as_data):
    q = quantized(net(keras, "dict", "dict"), DATA)
    rows = tf.data.Dataset.from_tensor_slices((DATA, TARGETS)).batch(8)
    batches = [{name: part[start : start + 8] for name, part in DATA.items()} for start in (0, 8)]
    data = {"arrays": DATA, "dataset": rows, "batches": batches}[as_data]
    q.compile("sgd", "mse")
    q.fit(rows, callbacks=[tfbinreg.BatchNormReestimation(data)], verbose=0)
    tfbinreg.finalize(q, data)
    outputs, predicted = q(DATA), q.predict(rows, verbose=0)
    assert set(outputs) == set(predicted) == {"place", "valid"}
    nest.map_structure(np.testing.assert_array_equal, outputs, predicted)
    error = np.mean(np.square(predicted["place"] - TARGETS["place"]))
    logs = q.evaluate(rows, return_dict=True, verbose=0)
    assert logs["place_loss"] == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("into", ["list", "dict"])
def test_calibration_by_name_finds_the_inputs(into):
    """Whatever the order of the dict, and also where the model takes a list."""
    a, b = tf_keras.Input((4,), name="a"), tf_keras.Input((4,), name="b")
    x = tf_keras.layers.Concatenate()([tf_keras.layers.Dense(3)(part) for part in (b, a)])
    model = tf_keras.Model([b, a] if into == "list" else {"b": b, "a": a}, x)
    data = {"a": DATA["a"], "b": 100.0 * DATA["a"]}
    q = quantized(model, data)
    steps = {name: float(q.get_layer(f"{name}_grid").grid_variables["step"]) for name in data}
    assert steps["b"] == pytest.approx(100.0 * steps["a"])


def test_repeated_names_are_numbered_as_in_tf_keras():
    assert edges._numbered(["x", "x", "x_1", "x"]) == ["x", "x_1", "x_1_1", "x_2"]


def test_files_of_models_with_dicts_have_the_keys_and_are_verified(tmp_path):
    a, b = tf_keras.Input((4,), name="a"), tf_keras.Input((6,), name="b")
    x = tf_keras.layers.Concatenate()([tf_keras.layers.Dense(3)(part) for part in (a, b)])
    outputs = {"z": tf_keras.layers.Dense(2)(x), "y": tf_keras.layers.Dense(3)(x)}
    q = quantized(
        tf_keras.Model({"one": a, "two": b}, outputs), {"one": DATA["a"], "two": DATA["b"]}
    )
    tfbinreg.finalize(q)
    frozen = freeze(q)
    assert (frozen.input_names, frozen.output_names) == (("one", "two"), ("y", "z"))
    data, path = tfbinreg.to_tflite(q), str(tmp_path / "q.keras")
    q.save(path)
    report = verify(load(data), reference=convert.reference(path, DATA), inputs=DATA)
    assert report.passed and report["agreement"].verdict is Verdict.PASSED, str(report)
