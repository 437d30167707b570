"""Run by test_distribute.py, for logical devices and cluster settings need processes of their own.

    python replicas.py one|mirrored FILE
    python replicas.py worker FILE INDEX PORT PORT
    python replicas.py resumed FOLDER
    python replicas.py methods FOLDER NAME...
    python replicas.py taught FOLDER

Trains a quantized net with bin regularization for two batches of 8: on one device, on two replicas
that share each batch, or as one of two workers that do. Writes its weights to FILE (.npz).

Resumed: trains three epochs of these batches on two replicas, with the regularization from the
second on; again, stopped in the third; and takes that up from the backup and from a saved model.
Writes weights and optimizer to whole.npz, backup.npz and saved.npz in FOLDER.

Methods: trains a small net with each of these methods, on one device and on two replicas.
Writes weights to METHOD-one.npz and METHOD-two.npz in FOLDER.

Taught: trains the small net with a teacher, its float model or one that was made outside the
strategy, on one device and on two replicas, and goes on at other bits. Writes logs, and weights and
optimizer at these bits, to own-one.npz, own-two.npz, other-one.npz and other-two.npz in FOLDER.
"""

import contextlib
import importlib
import json
import os
import pathlib
import sys

import numpy as np
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.methods import roster

BATCH, WORKERS = 8, 2
OPTIONS = {"cpq": {"drop_bits": True, "strength": 0.5}}


def data():
    random = np.random.default_rng(0)
    inputs = random.normal(size=(2 * BATCH, 8, 8, 2)).astype(np.float32)
    return inputs, random.normal(size=(2 * BATCH, 3)).astype(np.float32)


def build(scope, *, small=False, optimizer=None, **options):
    layers = keras.layers
    keras.utils.set_random_seed(0)
    with scope:
        parts = [
            layers.Input((8, 8, 2), name="image"),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Conv2D(4, 3, activation="swish", name="swish"),
            layers.Flatten(),
            layers.Dense(3, name="head"),
        ]
        model = keras.Sequential(parts[:1] + parts[2:] if small else parts)
        recipe = tfbinreg.Recipe(weight_bits=2, activation_bits=4, step_rate=0.5, **options)
        model = tfbinreg.quantize_apply(model, recipe)
        for site in kernel_sites(model):
            if "solved" in site.variables:  # as after `solve`
                site.variables["solved"].assign(1)
        for strength in model.strengths.values():
            strength.assign(0.5)
        made = keras.optimizers.SGD(0.05, momentum=0.9) if optimizer is None else optimizer(0.05)
        model.compile(made, "mse")
    return model


class StopInThirdEpoch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations.numpy() == 5:
            raise InterruptedError


def two_replicas():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def train_and_resume(folder):
    strategy, folder = two_replicas(), pathlib.Path(folder)
    saved = str(folder / "q.keras")

    def train(model, *callbacks, **options):
        stages = tfbinreg.BinRegularization("two_stage", switch_epoch=1, strength=0.5)
        options = {"epochs": 3, "shuffle": False, "verbose": 0, **options}
        model.fit(*data(), BATCH, callbacks=[*callbacks, stages], **options)

    def write(model, name):
        variables = {variable.name: variable.numpy() for variable in model.weights}
        slots = [variable.numpy() for variable in model.optimizer.variables]
        np.savez(folder / name, *slots, **variables)

    def backup():
        return keras.callbacks.BackupAndRestore(folder / "backup")

    whole, stopped, resumed = (build(strategy.scope()) for _ in range(3))
    train(whole)
    write(whole, "whole.npz")
    with contextlib.suppress(InterruptedError):
        train(stopped, backup(), keras.callbacks.ModelCheckpoint(saved), StopInThirdEpoch())
    train(resumed, backup())
    write(resumed, "backup.npz")
    with strategy.scope():
        loaded = tfbinreg.load_model(saved)
    train(loaded, initial_epoch=2)
    write(loaded, "saved.npz")


def train_methods(folder, *names):
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))
    importlib.import_module("own_method")
    quantizers, penalties = roster.with_part("weights"), roster.with_part("penalty")
    own_step = tfbinreg.Rule(layer="swish", per_channel=True)
    strategy = two_replicas()
    updates = roster.with_part("update")
    for name in names:
        options = {"method": name} if name in quantizers else {}
        options["updates"] = (name,) if name in updates else ()
        options["penalties"] = (name,) if name in penalties else ()
        options["options"] = OPTIONS if name in OPTIONS else {}
        rules = [own_step]
        if name == "cpq":  # levels to drop
            rules.append(tfbinreg.Rule(layer="swish", weight_bits=4))
        for count, scope in {"one": contextlib.nullcontext(), "two": strategy.scope()}.items():
            if name == "alq":  # for few bits, and optimizers with mean squares
                options |= {"first_last_bits": None, "optimizer": keras.optimizers.Adam}
            model = build(scope, small=True, rules=rules, **options)
            model.fit(*data(), BATCH, shuffle=False, verbose=0)
            variables = {variable.name: variable.numpy() for variable in model.weights}
            np.savez(pathlib.Path(folder) / f"{name}-{count}.npz", **variables)


def train_taught(folder):
    strategy = two_replicas()
    other = build(contextlib.nullcontext(), small=True).float_model()
    other.set_weights([weight + 0.1 for weight in other.get_weights()])
    for name, teacher in {"own": None, "other": other}.items():
        for count, scope in {"one": contextlib.nullcontext(), "two": strategy.scope()}.items():
            model = build(scope, small=True)
            tfbinreg.distill(model, teacher, weight=0.5, task_weight=0.7)
            weights = np.linspace(0.0, 2.0, 2 * BATCH)
            options = {"sample_weight": weights, "shuffle": False, "verbose": 0}
            history = model.fit(*data(), BATCH, **options).history
            model = tfbinreg.requantize(model, weight_bits=3)
            variables = {variable.name: variable.numpy() for variable in model.weights}
            slots = [variable.numpy() for variable in model.optimizer.variables]
            np.savez(pathlib.Path(folder) / f"{name}-{count}.npz", *slots, **variables, **history)
            model.fit(*data(), BATCH, **options)


def main(kind, path, *more):
    if kind == "resumed":
        train_and_resume(path)
        return
    if kind == "methods":
        train_methods(path, *more)
        return
    if kind == "taught":
        train_taught(path)
        return
    if kind == "mirrored":
        strategy = two_replicas()
    elif kind == "worker":
        index, *ports = more
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
