import csv
import os
import pathlib
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import reference
import tensorflow as tf
import tf_keras as keras
from quick import slow
from trainable_net import build, data

import tfbinreg
from tfbinreg.layers.sites import kernel_sites


def fit(model, *callbacks, epochs=4, **options):
    inputs, labels = data()
    return model.fit(
        inputs, labels, 16, epochs, shuffle=False, verbose=0, callbacks=list(callbacks), **options
    ).history


class Record(keras.callbacks.Callback):
    """The strength, the steps and how often the train step has been traced, epoch by epoch."""

    def __init__(self):
        super().__init__()
        self.traces = set()

    def on_train_begin(self, logs=None):
        self.strengths, self.steps = [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.strengths.append(float(self.model.bin_strength.numpy()))

    def on_epoch_end(self, epoch, logs=None):
        self.steps.append([step.numpy() for step in self.model.step_variables])
        self.traces.add(self.model.train_function.experimental_get_tracing_count())


@pytest.mark.parametrize("strategy, options, stages", [
    ("joint", {}, [2, 2, 2, 2]),
    ("two_stage", {"switch_epoch": 2}, [1, 1, 2, 2]),
    ("two_stage", {"switch_epoch": 0}, [2, 2, 2, 2]),
    ("alternating", {}, [1, 2, 1, 2]),
    ("alternating", {"period": 2}, [1, 1, 2, 2]),
])  # fmt: skip
def test_stages(strategy, options, stages):
    callback = tfbinreg.BinRegularization(strategy, **options)
    assert [callback.stage(epoch) for epoch in range(4)] == stages


def test_two_stages_in_fit_without_tracing_again():
    model, record = build(), Record()
    callback = tfbinreg.BinRegularization("two_stage", 2, strength=0.25)
    history = fit(model, callback, record)
    assert record.strengths == [0, 0, 0.25, 0.25]
    assert history["br_stage"] == [1, 1, 2, 2]
    assert history["br_strength"] == [0, 0, 0.25, 0.25]
    assert float(model.bin_strength) == 0  # at rest after training
    fit(model, callback, record, epochs=3)
    assert record.strengths == [0, 0, 0.25]  # a second fit from epoch 0 starts over
    fit(model, callback, record, epochs=4, initial_epoch=3)
    assert record.strengths == [0.25]
    assert len(record.traces) == 1


def test_the_penalty_falls_and_the_logs_say_so(tmp_path):
    path = tmp_path / "log.csv"
    model = build(learning_rate=0.01, scale_free=True)
    callback = tfbinreg.BinRegularization("joint", strength=0.1)
    history = fit(model, callback, keras.callbacks.CSVLogger(path), epochs=12)
    assert history["br_loss"][-1] < 0.5 * history["br_loss"][0]
    assert history["quantization_error"][-1] < history["quantization_error"][0]
    assert history["near_level"][-1] > history["near_level"][0]
    with open(path) as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["br_loss"]) == pytest.approx(history["br_loss"][-1])
    assert {"br_stage", "near_level", "quantization_error"} <= rows[0].keys()


def test_strength_zero_is_plain_lsq_bit_for_bit():
    plain, regularized = build(), build()
    fit(plain)
    fit(regularized, tfbinreg.BinRegularization("joint", strength=0.0))
    for a, b in zip(plain.get_weights(), regularized.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("strategy, options, strengths", [
    pytest.param("ramp", {}, [0, 0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1], marks=pytest.mark.slow),
    ("ramp", {"switch_epoch": 6}, [0, 0, 0, 0, 0, 0, 1 / 2, 1]),
    pytest.param("cosine", {"switch_epoch": 4}, [0, 0, 0, 0, 0.14645, 0.5, 0.85355, 1],
                 marks=pytest.mark.slow),
    ("cosine", {"switch_epoch": 0, "strength": lambda epoch: 0.5}, [
        0.01903, 0.07322, 0.15433, 0.25, 0.34567, 0.42678, 0.48097, 0.5]),
])  # fmt: skip
def test_a_rising_strength_is_whole_in_the_last_epoch(strategy, options, strengths):
    record = Record()
    callback = tfbinreg.BinRegularization(strategy, **{"strength": 1.0, **options})
    history = fit(build(), callback, record, epochs=8)
    np.testing.assert_allclose(record.strengths, strengths, atol=1e-5)
    assert history["br_stage"] == [1 + (strength > 0) for strength in strengths]
    assert len(record.traces) == 1
    resumed = Record()
    fit(build(), callback, resumed, epochs=8, initial_epoch=5)
    assert resumed.strengths == record.strengths[5:]


def test_a_schedule_gives_the_strength():
    record = Record()
    callback = tfbinreg.BinRegularization("two_stage", 1, lambda epoch: epoch / 10 - 0.05)
    fit(build(), callback, record)  # which would be negative in epoch 0, where it does not act
    np.testing.assert_allclose(record.strengths, [0, 0.05, 0.15, 0.25], rtol=1e-6)


@pytest.mark.parametrize("option, callback", [
    ("switch_epoch is 5", tfbinreg.BinRegularization("two_stage", 5)),
    ("switch_epoch is 2", tfbinreg.BinRegularization("ramp", 2)),
    ("period is 3", tfbinreg.BinRegularization("alternating", period=3)),
])  # fmt: skip
@pytest.mark.slow
def test_a_regularization_that_never_starts_is_told(option, callback):
    with pytest.warns(tfbinreg.QuantizationWarning, match=f"{option}, and the last of its 2"):
        fit(build(), callback, epochs=2)


OPTIMIZERS = {
    "plain": lambda: keras.optimizers.SGD(0.02),
    "momentum": lambda: keras.optimizers.SGD(0.02, 0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.02, 0.9, nesterov=True),
    "legacy": lambda: keras.optimizers.legacy.SGD(0.02, 0.9),
    "schedule": lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.02, 80)),
    "adam": lambda: keras.optimizers.Adam(1e-3),
}


@pytest.mark.filterwarnings("ignore:The steps of:tfbinreg.QuantizationWarning")
@pytest.mark.parametrize("optimizer, options", [
    *(
        pytest.param(name, {}, marks=() if name in ("nesterov", "adam") else pytest.mark.slow)
        for name in OPTIMIZERS
    ),
    pytest.param("nesterov", {"detach_step": False}, marks=pytest.mark.slow),
    pytest.param("momentum", {"scale_free": True}, marks=pytest.mark.slow),
])  # fmt: skip
def test_no_strength_makes_weights_diverge(optimizer, options):
    model = build(**options)
    model.compile(OPTIMIZERS[optimizer](), "sparse_categorical_crossentropy")
    kernel = kernel_sites(model)[1].kernel
    kernel.assign(tf.tensor_scatter_nd_update(kernel, [[0, 0, 0, 0]], [0.9]))  # alone in its bin
    callback = tfbinreg.BinRegularization("joint", strength=1e4)
    history = fit(model, callback, epochs=8)
    assert np.all(np.isfinite(history["br_loss"]))
    assert max(np.max(np.abs(site.kernel)) for site in kernel_sites(model)) < 10.0


@pytest.mark.parametrize("scale_free", [False, True])
@pytest.mark.slow
def test_steps_that_leave_the_weights_beyond_the_grid_are_told_once(scale_free):
    model = build(1e-6, scale_free=scale_free)
    callback = tfbinreg.BinRegularization("joint", strength=1e-3)
    fit(model, callback, epochs=1)
    kernel_sites(model)[1].step.assign(1e-3)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", tfbinreg.QuantizationWarning)
        history = fit(model, callback, epochs=3)
    messages = [str(w.message) for w in told if w.category is tfbinreg.QuantizationWarning]
    assert len(messages) == scale_free
    if scale_free:  # the pull is bounded, the value is not
        assert messages[0].startswith("The steps of middle have become so small")
        assert history["br_loss"][-1] > 100.0


@pytest.mark.filterwarnings("ignore:.*encountered")
@pytest.mark.slow
def test_the_papers_formula_is_there_on_request_and_diverges():
    model = build(0.02, bounded_pull=False)
    kernel = kernel_sites(model)[1].kernel
    kernel.assign(tf.tensor_scatter_nd_update(kernel, [[0, 0, 0, 0]], [0.9]))
    with pytest.raises(ValueError, match="training diverged"):
        fit(model, tfbinreg.BinRegularization("joint", strength=1e4), epochs=20)


def test_the_pull_follows_the_learning_rate_and_knows_the_bin_weight():
    recipe = tfbinreg.Recipe(weight_bits=2, rules=[tfbinreg.Rule(layer="middle", bin_weight=3.0)])
    model = build(recipe=recipe)
    model.bin_strength.assign(100.0)
    for rate in (0.05, 0.5):
        model.optimizer.learning_rate = rate
        expected = 0.0
        for site in kernel_sites(model):
            weight = 3.0 if site.name == "middle" else 1.0
            expected += 100.0 * weight * reference.bin_penalty(
                site.kernel.numpy(), float(site.step), site.quantizer.qmin, site.quantizer.qmax,
                2 * 100.0 * weight * rate)  # fmt: skip
        assert float(model.penalty_loss("bin_regularization")) == pytest.approx(expected, rel=1e-5)


def test_alternating_holds_the_steps_still_despite_momentum():
    model, record = build(), Record()
    fit(model, tfbinreg.BinRegularization("alternating", strength=1.0), record, epochs=4)
    first, second, third, fourth = record.steps
    assert first == second and third == fourth
    assert second != third
    assert len(record.traces) == 1


@pytest.mark.slow
def test_alternating_works_on_a_model_that_was_trained_before():
    model, record = build(), Record()
    fit(model, epochs=1)
    fit(model, tfbinreg.BinRegularization("alternating"), record, epochs=2)
    assert record.steps[0] == record.steps[1]


def test_the_penalty_reaches_every_kernel_and_counts_once():
    model = build(bounded_pull=False)
    (loss,) = model.losses
    assert float(loss) == 0
    model.bin_strength.assign(0.5)
    (loss,) = model.losses
    expected = sum(
        float(tfbinreg.bin_regularization(site.latent, site.step, site.quantizer.qmin,
                                          site.quantizer.qmax))
        for site in kernel_sites(model)
    )  # fmt: skip
    assert float(loss) == pytest.approx(0.5 * expected, rel=1e-6)


def test_histograms_are_written_for_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    callback = tfbinreg.BinRegularization("joint", histogram_dir=tmp_path, histogram_freq=2)
    fit(build(), callback, epochs=2)
    (events,) = tmp_path.iterdir()
    assert b"bins/middle" in events.read_bytes()


def test_histograms_without_tensorboard_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        tfbinreg.BinRegularization("joint", histogram_dir=tmp_path)


def test_divergence_is_reported_by_layer_name():
    model = build()
    kernel_sites(model)[1].step.assign(np.nan)
    with pytest.raises(ValueError, match=r"middle \(step\)"):
        fit(model, tfbinreg.BinRegularization("joint"), epochs=1)


@pytest.mark.parametrize("arguments, message", [
    ({"strategy": "three_stage"}, "joint, two_stage, alternating"),
    ({"strategy": "two_stage"}, "switch_epoch"),
    ({"strategy": "joint", "switch_epoch": 3}, "switch_epoch"),
    ({"switch_epoch": -1}, "negative"),
    ({"strategy": "alternating", "switch_epoch": 3}, "'alternating' has no switch_epoch"),
    ({"strategy": "cosine", "switch_epoch": -1}, "negative"),
    ({"strategy": "joint", "strength": -0.5}, "negative"),
    ({"strategy": "joint", "strength": float("nan")}, "finite"),
    ({"strategy": "joint", "strength": float("inf")}, "finite"),
    ({"strategy": "joint", "strength": "much"}, "a function or \"auto\": 'much'"),
    ({"strategy": "joint", "strength": "auto", "pull": 0.0}, "pull must be a positive number"),
    ({"strategy": "joint", "strength": "auto", "pull": float("nan")}, "positive number"),
    ({"strategy": "joint", "pull": 2.0}, 'pull is for strength="auto"'),
    ({"strategy": "alternating", "period": 0}, "at least 1"),
    ({"strategy": "joint", "histogram_freq": 0}, "at least 1"),
])  # fmt: skip
def test_impossible_options_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tfbinreg.BinRegularization(**arguments)


@pytest.mark.slow
def test_a_negative_schedule_and_a_float_model_are_refused():
    with pytest.raises(ValueError, match="epoch 0 is negative"):
        fit(build(), tfbinreg.BinRegularization("joint", strength=lambda epoch: -1.0))
    with pytest.raises(ValueError, match="epoch 0 is negative or not finite: nan"):
        fit(build(), tfbinreg.BinRegularization("joint", strength=lambda epoch: float("nan")))
    with pytest.raises(ValueError, match="quantize_apply"):
        tfbinreg.BinRegularization("joint").set_model(keras.Sequential())


def run(folder, strategy, *kill_at):
    script = pathlib.Path(__file__).parents[2] / "resumed_training.py"
    root = str(script.parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(script), str(folder), strategy, *map(str, kill_at)]
    return subprocess.run(command, env=environment, capture_output=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["two_stage", *slow("alternating")])
def test_kill_in_the_second_stage_and_resume(tmp_path, strategy):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    done = run(whole, strategy)
    assert done.returncode == 0, done.stderr
    assert run(resumed, strategy, 3, 2).returncode == -signal.SIGKILL
    assert not (resumed / "weights.npz").exists()
    done = run(resumed, strategy)
    assert done.returncode == 0, done.stderr
    with np.load(whole / "weights.npz") as a, np.load(resumed / "weights.npz") as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])
