"""A net whose BatchNormalization is anything but friendly."""

import numpy as np
import tf_keras as keras

import tfbinreg


def build(gamma, weight_bits=2, per_channel=False, depthwise=False, bias=False):
    """Input -> conv -> BatchNormalization -> ReLU -> pooling -> Dense, quantized, BN as given."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    conv = (
        layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=bias, name="conv")
        if depthwise
        else layers.Conv2D(4, 3, use_bias=bias, name="conv")
    )
    model = keras.Sequential(
        [
            layers.Input((8, 8, 2)),
            conv,
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="head"),
        ]
    )
    random = np.random.default_rng(0)
    norm = model.get_layer("norm")
    norm.set_weights(
        [np.float32(gamma), random.normal(size=4), random.normal(size=4), random.uniform(0.5, 2, 4)]
    )
    if bias:
        conv.bias.assign(random.normal(size=4))
    inputs = random.normal(size=(64, 8, 8, 2)).astype(np.float32)
    recipe = tfbinreg.Recipe(weight_bits=weight_bits, first_last_bits=None, per_channel=per_channel)
    return tfbinreg.quantize_apply(model, recipe, calibration_data=inputs), inputs


GAMMAS = {
    "positive": [1.0, 0.5, 2.0, 0.1],
    "negative": [-1.0, 0.5, -2.0, 0.1],
    "zero": [0.0, 0.5, -2.0, 0.0],
    "all zero": [0.0, 0.0, 0.0, 0.0],
    "tiny": [1e-20, 1e-38, -1e-12, 1.0],
}
