import pytest
import tf_keras as keras

from tfbinreg import LSQQuantizeConfig, Recipe, Rule
from tfbinreg.scheme import LSQQuantizeRegistry

layers = keras.layers


def test_registry_knows_kernels_that_are_not_placed():
    recipe = Recipe(weight_bits=3, rules=[Rule(layer="head", weight_bits=6, activation_bits=5)])
    registry = LSQQuantizeRegistry(recipe, {"done"})
    config = registry.get_quantize_config(layers.Dense(3, name="head"))
    assert config == LSQQuantizeConfig(6, 5, per_channel=False)
    assert registry.supports(layers.Dense(3, name="hidden"))
    for layer in (layers.Dense(3, name="done"), layers.ReLU(name="relu"), layers.LSTM(3)):
        assert not registry.supports(layer)
        with pytest.raises(ValueError, match=f"'{layer.name}' .* has no LSQ config"):
            registry.get_quantize_config(layer)
