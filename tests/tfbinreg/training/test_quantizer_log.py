"""The log of learned bits, on kernels that do not learn them."""

import numpy as np
import pytest
import tf_keras as keras

import tfbinreg


def test_bits_per_weight_of_all_kernels_and_of_each():
    layers = keras.layers
    net = keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(5, "relu", name="first"),
            layers.Dense(3, name="head"),
        ]
    )
    inputs = np.random.default_rng(0).normal(size=(16, 4))
    recipe = tfbinreg.Recipe(
        first_last_bits=None, rules=[tfbinreg.Rule(layer="head", weight_bits=2)]
    )
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=inputs)
    log = tfbinreg.QuantizerLog(per_layer=True)
    log.set_model(model)
    logs = {"loss": 1.0}
    log.on_epoch_end(0, logs)
    expected = {
        "weight_bits": (20 * 4 + 15 * 2) / 35,
        "weight_bits/first": 4,
        "weight_bits/head": 2,
    }
    assert logs == {"loss": 1.0, **expected}
    log.on_epoch_end(0)  # callbacks that come without logs
    with pytest.raises(ValueError, match="is not quantized"):
        log.set_model(net)
