"""What is written for TensorBoard."""

import dataclasses
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg.layers.sites import activation_sites, kernel_sites
from tfbinreg.methods import roster

layers = keras.layers


def events(folder):
    """{tag: {epoch: number, or None for a histogram}}."""
    found = {}
    for file in folder.iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                is_scalar = value.metadata.plugin_data.plugin_name == "scalars"
                number = float(tf.make_ndarray(value.tensor)) if is_scalar else None
                found.setdefault(value.tag, {})[event.step] = number
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A net after three epochs, the codes after each, what was written, and fit's History."""
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(8, "relu", name="first"),
            layers.Dense(8, "relu", name="hidden"),
            layers.Dense(3, name="head"),
        ]
    )
    inputs = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    model = tfbinreg.quantize_apply(net, weight_bits=2, calibration_data=inputs)
    model.compile(keras.optimizers.Adam(0.05), "mse")
    codes = [{site.name: site.codes() for site in kernel_sites(model)}]
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: codes.append(
            {site.name: site.codes() for site in kernel_sites(model)}
        )
    )
    folder = tmp_path_factory.mktemp("board")
    callbacks = [
        *(tfbinreg.QuantizationBoard(folder), tfbinreg.QuantizerLog(steps=True), keep),
        tfbinreg.BinRegularization("two_stage", 2, 0.25),
    ]
    history = model.fit(inputs, inputs[:, :3], epochs=3, verbose=0, callbacks=callbacks)
    return model, codes, events(folder), history


def test_kernels_activations_penalties_and_sizes_are_there(trained):
    model, _, found, _ = trained
    kernels = [site.name for site in kernel_sites(model)]
    names = {
        f"{what}/{k}" for what in ("bins", "flips", "near_edge", "weight_bits") for k in kernels
    }
    names |= {f"step/{name}" for name in kernels}
    names |= {f"step/{site.name}" for site in activation_sites(model)}
    names |= {"penalty/bin_regularization", "strength/bin_regularization"}
    assert set(found) == names | {"size/packed_weight_bytes"}
    assert {tuple(sorted(epochs)) for epochs in found.values()} == {(0, 1, 2)}


def test_the_numbers(trained):
    model, codes, found, _ = trained
    assert found["size/packed_weight_bytes"][2] == (32 * 8 + 64 * 2 + 24 * 8) / 8
    assert found["weight_bits/hidden"][0] == 2 and found["weight_bits/head"][0] == 8
    for name in codes[0]:
        for epoch in range(3):
            changed = np.mean(codes[epoch][name] != codes[epoch + 1][name])
            assert found[f"flips/{name}"][epoch] == pytest.approx(changed)
    assert max(found["flips/hidden"].values()) > 0
    for site in kernel_sites(model):
        assert found[f"step/{site.name}"][2] == pytest.approx(abs(float(site.step.numpy())))
    assert found["penalty/bin_regularization"][2] == pytest.approx(
        float(model.penalty("bin_regularization")), rel=1e-5
    )


def test_the_history_has_the_steps_and_can_be_drawn(trained):
    pytest.importorskip("matplotlib")
    _, _, found, history = trained
    for name in ("first", "hidden", "head"):
        steps = [found[f"step/{name}"][epoch] for epoch in range(3)]
        assert history.history[f"step/{name}"] == pytest.approx(steps)
    (axis,) = tfbinreg.plot.steps(history, ["hidden"]).axes
    assert list(axis.get_lines()[0].get_ydata()) == history.history["step/hidden"]


def test_flips_are_those_of_the_quantizer(tmp_path, monkeypatch):
    class Small(tfbinreg.LSQWeightQuantizer):
        """Codes of other numbers than the latent weights."""

        def __call__(self, inputs, training, weights, **kwargs):
            return super().__call__(inputs * 0.01, training, weights, **kwargs)

    like_lsq = roster.find("lsq", "weights")
    own = dataclasses.replace(
        like_lsq, name="small", weights=lambda spec, options: Small(spec.bits, spec.axis)
    )
    monkeypatch.setattr(roster, "_methods", {**roster._methods, "small": own})
    keras.utils.set_random_seed(0)
    net = keras.Sequential([layers.Input((4,)), layers.Dense(3, name="head")])
    recipe = tfbinreg.Recipe(weight_bits=2, first_last_bits=None, method="small")
    model = tfbinreg.quantize_apply(net, recipe)
    model.compile(keras.optimizers.Adam(0.02), "mse")
    (site,) = kernel_sites(model)
    latents = site.quantizer.grid_now(site.variables).codes(tf.convert_to_tensor(site.latent))
    board, log = tfbinreg.QuantizationBoard(tmp_path), tfbinreg.TransitionLog()
    inputs = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    fit = {"epochs": 2, "batch_size": 4, "verbose": 0, "callbacks": [board, log]}
    history = model.fit(inputs, inputs[:, :3], **fit).history
    now = site.quantizer.grid_now(site.variables).codes(tf.convert_to_tensor(site.latent))
    assert np.any(now != latents) and not np.any(site.codes())
    assert set(events(tmp_path)["flips/head"].values()) == {0.0}
    assert history["code_changes"] == history["near_edge"] == [0.0, 0.0]


def test_every_so_many_epochs(trained, tmp_path):
    model = trained[0]
    board = tfbinreg.QuantizationBoard(tmp_path, every=3)
    board.set_model(model)
    board.on_train_begin()
    for epoch in range(5):
        board.on_epoch_end(epoch)
    board.on_train_end()
    assert set(events(tmp_path)["flips/head"]) == {0, 3}


def test_refusals(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        tfbinreg.QuantizationBoard(tmp_path, every=0)
    net = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="is not quantized"):
        tfbinreg.QuantizationBoard(tmp_path).set_model(net)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        tfbinreg.QuantizationBoard(tmp_path)
