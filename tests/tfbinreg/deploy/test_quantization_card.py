import dataclasses

import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg.deploy.freeze import freeze
from tfbinreg.deploy.quantization_card import quantization_card
from tflite_tools.schema import card as cards
from tflite_tools.schema import flatbuffer

layers = keras.layers


@pytest.fixture(scope="module")
def model():
    """Two branches from one input, of different kernels, into two outputs."""
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 2), name="image")
    left = layers.Conv2D(3, 3, activation="relu", name="left")(image)
    right = layers.Conv2D(3, 3, name="right")(image)
    both = layers.Add(name="both")(
        [layers.DepthwiseConv2D(2, padding="same", name="deep")(left), right]
    )
    flat = layers.Flatten(name="flat")(both)
    net = keras.Model(image, [layers.Dense(2, name="one")(flat), both])
    images = np.random.default_rng(0).normal(size=(16, 4, 4, 2)).astype(np.float32)
    rules = (tfbinreg.Rule(layer="deep", per_channel=True),)
    recipe = tfbinreg.Recipe(weight_bits=2, activation_bits=4, rules=rules)
    quantized = tfbinreg.quantize_apply(net, recipe, calibration_data=images)
    tfbinreg.finalize(quantized)
    return quantized


def test_a_card_says_what_was_chosen(model):
    graph = freeze(model)
    card = quantization_card(graph)
    weights, activations = card["weights"], card["activations"]
    assert weights["bits"] == {"2": 12, "8": 54 + 54 + 24}
    assert weights["average_bits"] == round((12 * 2 + 132 * 8) / 144, 3)
    assert weights["average_bits_of_inner"] == 2.0
    # Nothing trained comes behind the sum of `deep` and `right` but `one`.
    assert weights["first_bits"] == [8, 8] and weights["last_bits"] == [8]
    assert (weights["kernels_per_tensor"], weights["kernels_per_channel"]) == (3, 1)
    assert weights["codes"]["2"][0] >= -2 and weights["codes"]["2"][1] <= 1
    codes = [kernel.codes for kernel in graph.trained_kernels().values()]
    assert weights["zeros"] == sum(np.sum(own == 0) for own in codes)
    assert weights["scales"] == "float32"
    # image, right, deep, both, flat and one are signed; left is a ReLU's.
    assert activations["unsigned"] == 1 and activations["signed"] >= 5
    # Of the sum: two operands and the result of 2 * 2 * 3 numbers.
    assert activations["peak_bytes"] == max(32 + 12, 3 * 12)
    assert card["notes"] == dict.fromkeys(cards.NOTES, "not recorded")
    assert "solver" not in card
    solved = dataclasses.replace(graph, recipe={**graph.recipe, "solver": "tsq"})
    assert quantization_card(solved)["solver"] == "tsq"
    names = dict(cards.fields(card))
    for fields in cards.CHOICES.values():
        for field in fields:
            assert any(name == field or name.startswith(f"{field}.") for name in names), field


def test_powers_of_two_are_told(model):
    graph = freeze(model)
    ops = tuple(
        op if op.kernel is None
        else dataclasses.replace(op, kernel=dataclasses.replace(op.kernel, scale=np.float32(0.25)))
        for op in graph.ops
    )  # fmt: skip
    card = quantization_card(dataclasses.replace(graph, ops=ops))
    assert card["weights"]["scales"] == "powers of two"


def test_a_file_has_its_card_with_notes(model):
    notes = {"labels": "real", "baseline": "86.1 %"}
    data = tfbinreg.to_tflite(model, notes=notes)
    found = cards.find(flatbuffer.read(data))
    assert found == quantization_card(dataclasses.replace(freeze(model), notes=notes))
    assert found["notes"]["labels"] == "real" and found["notes"]["data"] == cards.NOT_RECORDED


@pytest.mark.parametrize("notes", [{"label": "real"}, {"labels": 3}])
def test_unknown_notes_are_refused(model, notes):
    with pytest.raises(ValueError, match="notes are texts called data, labels"):
        tfbinreg.to_tflite(model, notes=notes)
