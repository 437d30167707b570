import pytest
import tf_keras as keras

from tfbinreg import LSQQuantizeConfig
from tfbinreg.layers.config import layer_settings

layers = keras.layers


class TestConfig:
    @pytest.mark.parametrize("value", [-1, 9, "two", True, 2.5])
    @pytest.mark.parametrize(("field", "least"), [("weight_bits", 0), ("activation_bits", 2)])
    def test_wrong_bits_are_reported_where_they_are_written(self, field, least, value):
        with pytest.raises(ValueError, match=f"{field} must be an integer from {least} to 8"):
            LSQQuantizeConfig(**{field: value})

    @pytest.mark.parametrize(
        ("bits", "own", "axis"),
        [(1, 1, None), (0, (0,) * 4, 3), ([2, 0, 1, 8], (2, 0, 1, 8), 3), ([1] * 4, 1, 3)],
    )
    def test_bits_per_channel(self, bits, own, axis):
        layer = layers.Conv2D(4, 3)
        layer.build((None, 8, 8, 3))
        config = LSQQuantizeConfig(bits)
        again = LSQQuantizeConfig.from_config(config.get_config())
        assert again == config and hash(again) == hash(config)
        ((_, quantizer),) = again.get_weights_and_quantizers(layer)
        assert quantizer.get_config() == {"bits": own, "axis": axis}

    def test_configs_are_values(self):
        config = LSQQuantizeConfig(2, 5, per_channel=True)
        again = LSQQuantizeConfig.from_config(config.get_config())
        assert again == config
        assert hash(again) == hash(config)
        assert config != LSQQuantizeConfig(2, 5)
        assert config != "config"

    def test_weights_and_output_of_a_layer(self):
        layer = layers.Conv2D(4, 3, activation="relu")
        layer.build((None, 8, 8, 3))
        config = LSQQuantizeConfig(2, 5, per_channel=True)
        ((kernel, quantizer),) = config.get_weights_and_quantizers(layer)
        assert kernel is layer.kernel
        assert quantizer.get_config() == {"bits": 2, "axis": 3}
        (output,) = config.get_output_quantizers(layer)
        assert (output.bits, output.signed) == (5, False)
        assert config.get_activations_and_quantizers(layer) == []
        assert config.get_weights_and_quantizers(layers.ReLU()) == []
        assert not config.get_output_quantizers(layers.ReLU())[0].signed
        assert config.get_output_quantizers(layers.Add())[0].signed

    @pytest.mark.parametrize("layer", [layers.LSTM(3, name="odd"), layers.SeparableConv2D(3, 3)])
    def test_layers_that_it_cannot_quantize_are_named(self, layer):
        layer.build((None, 4, 3) if layer.name == "odd" else (None, 8, 8, 3))
        with pytest.raises(ValueError, match=f"'{layer.name}' .*use LSQQuantizeScheme"):
            LSQQuantizeConfig(2).get_weights_and_quantizers(layer)


def test_settings_of_annotations():
    config = LSQQuantizeConfig(2, per_channel=True)
    assert layer_settings({"a": config, "b": None}) == {"a": config.settings, "b": None}
