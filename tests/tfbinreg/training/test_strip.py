import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg.layers.sites import kernel_sites

layers = keras.layers


def plain(net):
    """Classes and shapes of the weights of layers, by name."""
    return {
        layer.name: (type(layer).__name__, [np.shape(weight) for weight in layer.get_weights()])
        for layer in net.layers
    }


@pytest.mark.parametrize("fold", [False, True])
def test_the_float_model_comes_back(float_net, images, fold):
    recipe = tfbinreg.Recipe(fold_batch_norm=fold)
    model = tfbinreg.quantize_apply(float_net, recipe)
    stripped, source = tfbinreg.strip_quantization(model), model.float_model()
    assert plain(stripped) == plain(source)
    np.testing.assert_array_equal(stripped(images), source(images))
    for site in kernel_sites(model):
        site.kernel.assign(site.kernel * 2.0)
    assert not np.allclose(tfbinreg.strip_quantization(model)(images), source(images))
    np.testing.assert_array_equal(stripped(images), source(images))


def test_relus_in_shared_grids_and_hard_swish_come_back():
    image = keras.Input((4, 4, 2), name="image")
    one = layers.Conv2D(3, 1, activation="relu", name="one")(image)
    two = layers.ReLU(name="own")(layers.Conv2D(3, 1, name="two")(image))
    sums = layers.Add(name="sums")([one, two])
    x = layers.Concatenate(name="both")([one, two, sums, image])
    x = layers.Conv2D(3, 1, name="three")(x)
    x = layers.Multiply(name="gate")([x, layers.ReLU(6.0, name="six")(x + 3.0)])
    x = layers.Conv2D(2, 1, name="four")(x * (1.0 / 6.0))
    model = keras.Model(image, [x, sums])
    images = np.random.default_rng(0).uniform(size=(8, 4, 4, 2)).astype(np.float32)
    quantized = tfbinreg.quantize_apply(model, calibration_data=images)
    stripped = tfbinreg.strip_quantization(quantized)
    tfbinreg.plan(stripped)  # a float model like any other
    signed = 2.0 * images - 1.0
    for found, wanted in zip(stripped(signed), model(signed), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    names = {layer.name for layer in stripped.layers}
    assert {"one", "one_relu", "two", "sums", "three", "gate", "four", "image"} <= names
    assert "sums_relu" not in names


def test_what_is_not_quantized_is_refused(float_net):
    with pytest.raises(ValueError, match="not quantized: call quantize_apply first"):
        tfbinreg.strip_quantization(float_net)
