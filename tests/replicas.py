"""Run by test_distribute.py, for logical devices and cluster settings need processes of their own.

    python replicas.py one|mirrored FILE
    python replicas.py worker FILE INDEX PORT PORT

Trains a quantized net with bin regularization for two batches of 8: on one device, on two replicas
that share each batch, or as one of two workers that do. Writes its weights to FILE (.npz).
"""

import contextlib
import json
import os
import sys

import numpy as np
import tensorflow as tf
import tf_keras as keras

import tfbinreg

BATCH, WORKERS = 8, 2


def data():
    random = np.random.default_rng(0)
    inputs = random.normal(size=(2 * BATCH, 8, 8, 2)).astype(np.float32)
    return inputs, random.normal(size=(2 * BATCH, 3)).astype(np.float32)


def build(scope):
    layers = keras.layers
    keras.utils.set_random_seed(0)
    with scope:
        model = keras.Sequential(
            [
                layers.Input((8, 8, 2), name="image"),
                layers.Conv2D(4, 3, activation="relu", name="conv"),
                layers.Conv2D(4, 3, activation="swish", name="swish"),
                layers.Flatten(),
                layers.Dense(3, name="head"),
            ]
        )
        model = tfbinreg.quantize_apply(model, weight_bits=2, activation_bits=4)
        model.bin_strength.assign(0.5)
        model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def main(kind, path, *cluster):
    if kind == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    elif kind == "worker":
        index, *ports = cluster
        workers = [f"127.0.0.1:{port}" for port in ports]
        task = {"type": "worker", "index": int(index)}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        strategy = None
    model = build(contextlib.nullcontext() if strategy is None else strategy.scope())
    inputs, targets = data()
    if kind == "worker":
        assert strategy.num_replicas_in_sync == WORKERS
        share = BATCH // WORKERS
        rows = np.arange(2 * BATCH).reshape(2, WORKERS, share)[:, int(index)].ravel()
        own = tf.data.Dataset.from_tensor_slices((inputs[rows], targets[rows])).batch(share)
        shared = strategy.distribute_datasets_from_function(lambda context: own)
        history = model.fit(shared, steps_per_epoch=2, verbose=0).history
    else:
        history = model.fit(inputs, targets, BATCH, shuffle=False, verbose=0).history
    weights = {weight.name: weight.numpy() for weight in model.weights}
    np.savez(path, loss=history["loss"], **weights)


if __name__ == "__main__":
    main(*sys.argv[1:])
