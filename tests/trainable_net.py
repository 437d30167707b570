"""A small net to be trained at two bits, and random data for it."""

import numpy as np
import tf_keras as keras

import tfbinreg


def build(learning_rate=0.05, recipe=None, **bin_options):
    """The net, quantized and compiled.

    Args:
        learning_rate: of SGD with momentum.
        recipe: None for two bits.
        bin_options: options of the bin regularization.
    """
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((6, 6, 1)),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(4, 3, name="middle"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    recipe = recipe or tfbinreg.Recipe(weight_bits=2)
    quantized = tfbinreg.quantize_apply(
        model, recipe.with_options("bin_regularization", **bin_options)
    )
    optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9)
    quantized.compile(optimizer, "sparse_categorical_crossentropy")
    return quantized


def data():
    random = np.random.default_rng(0)
    return random.normal(size=(64, 6, 6, 1)).astype(np.float32), random.integers(0, 3, 64)
