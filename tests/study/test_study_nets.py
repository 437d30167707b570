"""The study's nets are of the size they say, and can be quantized."""

import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from examples.study.nets import NETS, hard_swish

layers = keras.layers


def multiplications(model):
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.DepthwiseConv2D):
            total += np.prod(layer.output_shape[1:3]) * np.prod(layer.depthwise_kernel.shape)
        elif isinstance(layer, layers.Conv2D):
            total += np.prod(layer.output_shape[1:3]) * np.prod(layer.kernel.shape)
        elif isinstance(layer, layers.Dense):
            total += np.prod(layer.kernel.shape)
    return int(total)


@pytest.mark.parametrize(
    ("name", "size"),
    [("mobilenetv2", 1_069_312), ("mobilenetv3", 975_008), ("resnet8", 12_501_632)],
)
def test_size_and_plan(name, size):
    model = NETS[name]()
    assert multiplications(model) == size
    assert model.output_shape == (None, 10)
    assert not tfbinreg.plan(model, weight_bits=2, activation_bits=2).problems


def test_mobilenetv3_has_what_its_name_says():
    names = [type(layer).__name__ for layer in NETS["mobilenetv3"]().layers]
    assert names.count("GlobalAveragePooling2D") == 5  # four squeezes, and the last one
    plan = tfbinreg.plan(NETS["mobilenetv3"](), weight_bits=2, activation_bits=2)
    assert str(plan).count("HardSwish") == 8


def test_hard_swish():
    x = np.array([[-4.0, -3.0, -1.0, 0.0, 1.0, 3.0, 5.0]], np.float32)
    wanted = x * np.clip(x + 3, 0, 6) / 6
    np.testing.assert_allclose(hard_swish(keras.layers.Lambda(lambda v: v)(x)), wanted, rtol=1e-6)
