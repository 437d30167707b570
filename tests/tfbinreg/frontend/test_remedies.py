"""Layers that have no integer form are refused with what to take instead."""

import pathlib

import keras as keras_3
import pytest
import tf_keras

import tfbinreg
from tfbinreg.frontend.remedies import ANY_LAYER, REMEDIES, remedy_of

SUPPORTED = pathlib.Path(__file__).parents[3] / "docs" / "supported.md"


def test_every_class_is_one_of_a_keras():
    for remedy in REMEDIES:
        for name in remedy.classes:
            own = "keras" not in remedy.libraries
            assert own or any(hasattr(keras.layers, name) for keras in (tf_keras, keras_3)), name


@pytest.mark.parametrize("keras", [tf_keras, keras_3], ids=["tf_keras", "keras 3"])
def test_a_plan_of_a_refused_model_says_what_to_take(keras):
    layers = keras.layers
    rows = keras.Input((16, 8))
    x = layers.LSTM(8, return_sequences=True, name="memory")(rows)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.MultiHeadAttention(2, 4, name="heads")(x, x)
    with pytest.raises(ValueError) as caught:
        tfbinreg.plan(keras.Model(rows, x))
    memory, norm, heads, count = str(caught.value).splitlines()[1:]
    assert memory.startswith("  - memory: layer class LSTM is not") and "causal" in memory
    assert "norm: " in norm and "BatchNormalization" in norm
    assert "heads: " in heads and "gates" in heads
    assert count == "  refused: 1 LSTM, 1 LayerNormalization, 1 MultiHeadAttention"


def test_what_is_not_known_may_be_taught():
    assert remedy_of("keras", "Cumsum") == ANY_LAYER == remedy_of("mine", "LSTM")
    assert "get_reparameterized_model" in remedy_of("kimm", "ReparameterizableConv2D")


def test_the_page_names_them():
    page = SUPPORTED.read_text()
    for name in ("LSTM", "LayerNormalization", "MultiHeadAttention", "Embedding", "Conv3D"):
        assert f"{name}" in page.partition("## What is not")[2]
