"""Run by test_quantizers.py in a process of its own, for its two logical devices.

    python two_replicas.py FILE

Trains a quantized net for two batches on one device, and again on two replicas that share each
batch, and writes the weights to FILE (.npz) as one/<name> and two/<name>.
"""

import contextlib
import sys

import numpy as np
import tensorflow as tf
import tf_keras as keras

import tfbinreg


def train(scope):
    layers = keras.layers
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    inputs = random.normal(size=(16, 8, 8, 2)).astype(np.float32)
    targets = random.normal(size=(16, 3)).astype(np.float32)
    with scope:
        model = keras.Sequential(
            [
                layers.Input((8, 8, 2), name="image"),
                layers.Conv2D(4, 3, activation="relu", name="conv"),
                layers.Flatten(),
                layers.Dense(3, name="head"),
            ]
        )
        model = tfbinreg.quantize_apply(model, weight_bits=2, activation_bits=4)
        model.compile(keras.optimizers.SGD(0.05), "mse")
    model.fit(inputs, targets, batch_size=8, epochs=1, shuffle=False, verbose=0)
    return {weight.name: weight.numpy() for weight in model.weights}


def main(path):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one = train(contextlib.nullcontext())
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    two = train(strategy.scope())
    named = {f"one/{name}": value for name, value in one.items()}
    np.savez(path, **named, **{f"two/{name}": value for name, value in two.items()})


if __name__ == "__main__":
    main(sys.argv[1])
