"""Every kind of layer and grid there is, in one model: saved, loaded and trained on.

Its kernels are `FoldedKernel`s; plain `QuantizedKernel`s are in test_saving.
"""

import contextlib
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import keras as keras_3
import numpy as np
import pytest
import tf_keras as keras
from quick import slow

import tfbinreg
from tfbinreg import _compat
from tfbinreg.layers.kernel import QuantizedKernel
from tfbinreg.layers.sites import activation_sites, kernel_sites
from tfbinreg.network.added_layers import (
    Augmentation,
    PaddedMaxPooling2D,
    ResizeBilinear,
    ValueFunction,
)

ROOT = Path(__file__).parents[3]
MODELS = ["q.keras", "q.h5", "folder"]
WEIGHTS = ["w.h5", "w.weights.h5", "checkpoint"]
RECIPE = tfbinreg.Recipe(
    weight_bits=2,
    activation_bits=4,
    per_channel=True,
    fold_batch_norm=True,
    bias_bits=8,
    rules=[tfbinreg.Rule(layer="gate", weight_bits=3)],
)
STRENGTH = 0.5
CONVERT = """
import pathlib, sys, tfbinreg
path = pathlib.Path(sys.argv[1])
path.with_suffix(".tflite").write_bytes(tfbinreg.to_tflite(tfbinreg.load_model(path)))
"""


class Facts(NamedTuple):
    """What a model that was saved and loaded must have kept; lists of arrays and of names."""

    tensors: list
    predictions: list
    weights: list
    codes: list
    grids: list
    names: list
    trained: list
    settings: list


class Run(NamedTuple):
    folder: Path
    facts: Facts
    penalty: float
    file: bytes
    state: list  # of weights and optimizer, as saved
    final: list  # the same after an epoch more


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def net() -> Any:
    """A Keras 3 model, partly frozen, whose rewritten form has all layer kinds of the package."""
    own = keras_3.layers
    keras_3.utils.set_random_seed(0)
    image = own.Input((8, 8, 3), name="image")
    x = own.Rescaling(1.5, offset=0.1, name="scaled")(image)
    x = own.MaxPooling2D(2, name="max")(x)
    x = own.Conv2D(4, 3, padding="same", trainable=False, name="conv")(x)
    x = own.BatchNormalization(name="conv_bn")(x)
    x = own.BatchNormalization(name="conv_bn2")(x)
    x = own.Activation("hard_silu", name="hard")(x)
    left = own.Conv2D(2, 1, activation="silu", name="left")(x)
    right = own.Conv2D(2, 1, activation="hard_silu", name="right")(x[:, :, :, :2])
    x = own.Concatenate(name="both")([left, right])
    x = own.BatchNormalization(trainable=False, name="norm")(x)
    x = own.PReLU(shared_axes=(1, 2), name="prelu")(x)
    x = own.AveragePooling2D(2, name="pool")(x)
    x = own.DepthwiseConv2D(2, activation="sigmoid", name="gate")(x)
    x = own.Dense(3, activation="softmax", name="head")(own.Flatten(name="flat")(x))
    return keras_3.Model(image, x, name="kinds")


def fresh(net: Any) -> tfbinreg.QuantizedModel:
    keras.utils.set_random_seed(0)
    model = tfbinreg.quantize_apply(net, RECIPE)
    compile_(model)
    return model


def compile_(model: Any) -> None:
    model.compile(keras.optimizers.Adam(0.001), "sparse_categorical_crossentropy")


@pytest.fixture(scope="module")
def fit(images, labels) -> Any:
    """Trains for two steps an epoch, with statistics that freeze before the second epoch."""

    def run(model, first=0, end=1, callbacks=()):
        with warnings.catch_warnings():  # one epoch ends before the statistics freeze
            warnings.simplefilter("ignore", tfbinreg.QuantizationWarning)
            model.fit(
                images[:16],
                labels[:16],
                batch_size=8,
                initial_epoch=first,
                epochs=end,
                callbacks=[*callbacks, tfbinreg.FreezeBatchNorm(1)],
                shuffle=False,
                verbose=0,
            )

    return run


def trained_state(model: Any) -> list:
    return [v.numpy() for v in (*model.weights, *model.optimizer.variables)]


def tensors(model: Any, images: np.ndarray) -> list:
    """What every call of every layer gives; the net's outputs alone hide small differences."""
    calls = [(layer, index) for layer in model.layers for index in range(len(layer.inbound_nodes))]
    return keras.Model(model.input, [layer.get_output_at(i) for layer, i in calls])(images)


def facts(model: Any, images: np.ndarray) -> Facts:
    grids = [site.grid() for site in activation_sites(model)]
    return Facts(
        tensors=tensors(model, images),
        predictions=[model.predict(images, verbose=0)],
        weights=[weight.numpy() for weight in model.weights],
        codes=[site.codes() for site in kernel_sites(model)],
        grids=[(grid.scale, grid.qmin, grid.qmax) for grid in grids],
        names=[weight.name for weight in model.weights],
        trained=[weight.name for weight in model.trainable_weights],
        settings=[model.name, model.recipe.to_json()],
    )


@contextlib.contextmanager
def quiet(name):
    """Keras says that .h5 is an old format."""
    with pytest.warns(UserWarning, match="HDF5") if name == "q.h5" else contextlib.nullcontext():
        yield


@pytest.fixture(scope="module")
def run(net, fit, images, tmp_path_factory) -> Run:
    """Two steps, saved in every format, and then two steps more."""
    folder = tmp_path_factory.mktemp("kinds")
    model = fresh(net)
    model.bin_strength.assign(STRENGTH)
    fit(model)
    for name in MODELS:
        with quiet(name):
            model.save(folder / name)
    for name in WEIGHTS:
        model.save_weights(folder / name)
    before = facts(model, images), float(model.losses[0]), tfbinreg.to_tflite(model)
    state = trained_state(model)
    fit(model, 1, 2)
    return Run(folder, *before, state, trained_state(model))


def check(model: Any, run: Run, images: np.ndarray) -> None:
    ours, theirs = facts(model, images), run.facts
    for field in Facts._fields:
        same(getattr(ours, field), getattr(theirs, field))
    if model.optimizer is None:  # whose rate bounds the pull
        compile_(model)
    assert [float(loss) for loss in model.losses] == [run.penalty]
    assert tfbinreg.to_tflite(model) == run.file


def test_the_net_has_every_class_that_is_saved(net):
    layers = fresh(net).layers
    parts = [
        getattr(layer, name, None) for layer in layers for name in ("quantizer", "quantize_config")
    ]
    kernels = [quantizer for layer in layers for _, quantizer, _ in getattr(layer, "kernels", [])]
    found = {tfbinreg.QuantizedModel, *map(type, [*layers, *parts, *kernels])}
    # Random augmentation does not go on exactly: test_training_layers saves it. The golden models
    # have functions of one value, bilinear resizing and a padded pooling.
    elsewhere = {QuantizedKernel, Augmentation, ValueFunction, ResizeBilinear, PaddedMaxPooling2D}
    # Methods that a recipe must ask for have models of their own: test_methods saves them.
    own = ("tfbinreg.methods.lsq", "tfbinreg.methods.fixed_grid")
    asked_for = {
        kind
        for kind in _compat.REGISTERED.values()
        if kind.__module__.startswith("tfbinreg.methods.") and not kind.__module__.startswith(own)
    }
    assert set(_compat.REGISTERED.values()) - elsewhere - asked_for <= found
    shared = [layer.name for layer in layers if len(layer._inbound_nodes) > 1]
    assert shared == ["left_silu_grid", "prelu_grid"]  # of a concatenation, of a pooling
    assert "norm" in {layer.name for layer in layers}  # which has no kernel to be folded into


@pytest.mark.parametrize("name", [MODELS[0], *slow(*MODELS[1:])])
@pytest.mark.slow
def test_a_loaded_model_is_the_same(name, run, images):
    check(tfbinreg.load_model(run.folder / name), run, images)


@pytest.mark.parametrize("name", slow(*MODELS[:2]))
def test_a_loaded_model_trains_on_as_if_it_had_not_stopped(name, run, fit):
    model = tfbinreg.load_model(run.folder / name)
    fit(model, 1, 2)
    same(trained_state(model), run.final)


@pytest.mark.slow
def test_from_a_folder_it_is_compiled_again_and_trains_what_is_not_frozen(run, fit):
    model = tfbinreg.load_model(run.folder / "folder")
    compile_(model)
    fit(model)
    before = dict(zip(run.facts.names, run.facts.weights, strict=True))
    moved = {weight.name for weight in model.weights if np.any(weight != before[weight.name])}
    trained = {name for name in run.facts.trained if "offset" not in name}  # if something clips
    assert trained <= moved
    assert not [name for name in moved if name.startswith(("quant_conv/", "norm/"))]


@pytest.mark.slow
def test_keras_itself_can_run_a_folder_but_not_train_it(run, fit, images):
    with tfbinreg.quantize_scope():
        model = keras.models.load_model(run.folder / "folder")
    ours, theirs = facts(model, images), run.facts
    for field in ("tensors", "predictions", "codes", "grids", "settings"):
        same(getattr(ours, field), getattr(theirs, field))
    assert tfbinreg.to_tflite(model) == run.file
    with pytest.raises(ValueError, match=r"Load it with tfbinreg\.load_model"):
        fit(model)


@pytest.mark.parametrize("name", slow(*WEIGHTS))
def test_weights_alone_make_the_same_model(name, net, run, images):
    model = fresh(net)
    model.optimizer.build(model.trainable_variables)
    model.load_weights(run.folder / name)
    check(model, run, images)
    if name != "w.h5":  # which leaves out the optimizer
        same(trained_state(model), run.state)


@pytest.mark.slow
def test_a_killed_run_is_taken_up(net, run, fit, tmp_path):
    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 3:
                raise InterruptedError

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    killed, resumed = fresh(net), fresh(net)
    killed.bin_strength.assign(STRENGTH)
    with pytest.raises(InterruptedError):
        fit(killed, 0, 2, [backup, Kill()])
    fit(resumed, 0, 2, [keras.callbacks.BackupAndRestore(tmp_path / "backup")])
    same(trained_state(resumed), run.final)


@pytest.mark.slow
def test_another_process_makes_the_same_file(run):
    path = run.folder / "q.keras"
    subprocess.run([sys.executable, "-c", CONVERT, path], cwd=ROOT, check=True, timeout=240)
    assert path.with_suffix(".tflite").read_bytes() == run.file
