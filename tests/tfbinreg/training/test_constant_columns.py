import keras as keras3
import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg.core.warning import QuantizationWarning


def adapted(framework, constant=True):
    data = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    if constant:
        data[:, 2] = 3.0
    layers = framework.layers
    norm = layers.Normalization(name="units")
    norm.adapt(data)
    model = framework.Sequential([framework.Input((4,)), norm, layers.Dense(8, activation="relu")])
    return model, data


@pytest.mark.parametrize("framework", [keras, keras3])
def test_its_factor_is_one(framework):
    model, data = adapted(framework)
    variance = np.array(model.layers[-2].variance)
    with pytest.warns(QuantizationWarning, match="units: column 2 never changed"):
        quantized = tfbinreg.quantize_apply(model, weight_bits=8, calibration_data=data)
    np.testing.assert_array_equal(np.array(model.layers[-2].variance), variance)
    expected = model.predict(data, verbose=0)
    tfbinreg.finalize(quantized)
    found = quantized.predict(data, verbose=0)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_other_columns_are_as_they_were(recwarn):
    model, data = adapted(keras, constant=False)
    tfbinreg.quantize_apply(model, weight_bits=8, calibration_data=data)
    assert not [w for w in recwarn if w.category is QuantizationWarning]
