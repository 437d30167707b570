import io
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg.training.best_statistics import rewindable
from tfbinreg.training.calibrate import input_batches, labelled_batches

layers = keras.layers


def classifier(seed=0):
    """Two normalizations, two bits; statistics as they are before any training."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [layers.Input((8, 8, 2)), layers.Conv2D(6, 3, use_bias=False, name="first"),
         layers.BatchNormalization(name="first_norm"), layers.ReLU(name="first_relu"),
         layers.Conv2D(6, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU(),
         layers.Flatten(), layers.Dense(4, activation="softmax")]
    )  # fmt: skip
    images = data()
    model = tfbinreg.quantize_apply(model, tfbinreg.recipes.paper(2), calibration_data=images)
    for weight in model.weights:
        if "moving" in weight.name:  # calibration has set them to those of `images`
            weight.assign(np.full(weight.shape, "variance" in weight.name, np.float32))
    return model


def data(count=128):
    return np.random.default_rng(1).normal(size=(count, 8, 8, 2)).astype(np.float32)


def classes(model, images, data):
    """What `model` says once it is finalized, with or without data."""
    other = type(model).from_config(model.get_config())
    other.set_weights(model.get_weights())
    tfbinreg.finalize(other, data)
    return other.predict(images, verbose=0).argmax(axis=1)


def statistics(model):
    return [np.array(weight) for weight in model.weights if "moving" in weight.name]


class TestChoice:
    def test_labels_decide_for_the_statistics_of_training(self):
        model, images = classifier(), data()
        labels, before = classes(model, images, None), statistics(model)
        report = tfbinreg.finalize(model, (images, labels))
        assert report.statistics.kept == "as trained"
        assert report.statistics.trained.accuracy == 1.0 > report.statistics.reestimated.accuracy
        assert report.statistics.trained.samples == 128
        np.testing.assert_array_equal(model.predict(images, verbose=0).argmax(axis=1), labels)
        for own, old in zip(statistics(model), before, strict=True):
            np.testing.assert_array_equal(own, old)

    def test_labels_decide_for_new_statistics(self):
        model, images = classifier(), data()
        labels = classes(model, images, images)
        assert np.any(labels != classes(model, images, None))
        batches = tf.data.Dataset.from_tensor_slices((images, labels[:, None])).batch(32)
        report = tfbinreg.finalize(model, batches)
        assert report.statistics.kept == "re-estimated"
        assert report.statistics.reestimated.accuracy > report.statistics.trained.accuracy

    @pytest.mark.parametrize("one_hot", [False, True])
    @pytest.mark.slow
    def test_the_compiled_loss_decides_between_equal_accuracies(self, one_hot):
        model, images = classifier(), data()
        labels = np.arange(128) % 4
        kind = "categorical" if one_hot else "sparse_categorical"
        model.compile("sgd", f"{kind}_crossentropy", metrics=["accuracy"])
        targets = np.eye(4)[labels] if one_hot else labels
        scores = tfbinreg.finalize(model, (images, targets)).statistics
        kept = scores.trained if scores.kept == "as trained" else scores.reestimated
        loss, accuracy = model.evaluate(images, targets, verbose=0)
        assert kept.accuracy == pytest.approx(accuracy, abs=1e-6)
        assert kept.loss == pytest.approx(loss, rel=1e-4)

    def test_numbers_are_judged_by_the_loss(self):
        model, images = classifier(), data()
        targets = np.random.default_rng(2).random((128, 4)).astype(np.float32)
        with pytest.raises(ValueError, match="Compile it, or give the inputs alone"):
            tfbinreg.finalize(model, (images, targets))
        model.compile("sgd", "mse")
        scores = tfbinreg.finalize(model, (images, targets)).statistics
        assert scores.trained.accuracy is None and scores.trained.loss > 0

    def test_without_labels_outputs_by_batch_statistics_decide(self):
        model, images = classifier(), data()
        tfbinreg.reestimate_batch_norm(model, images)
        good = statistics(model)
        off = [value + 3.0 for value in good]
        moving = [weight for weight in model.weights if "moving" in weight.name]
        for variable, value in zip(moving, off, strict=True):
            variable.assign(value)
        report = tfbinreg.finalize(model, images)
        assert report.statistics.kept == "re-estimated"
        assert report.statistics.reestimated.distance < 0.5 < report.statistics.trained.distance
        for variable, value in zip(moving, good, strict=True):
            np.testing.assert_allclose(variable, value, atol=0.05)  # but for the rounded bias

    def test_nothing_is_left_changed_by_bad_data(self):
        model, images = classifier(), data()
        before = model.get_weights()
        images[3] = np.nan
        with pytest.raises(ValueError, match="not be finite"):
            tfbinreg.finalize(model, images)
        for own, old in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(own, old)

    def test_a_model_without_statistics_of_its_own(self, float_net, images):
        recipe = tfbinreg.recipes.hardware_friendly(4)
        model = tfbinreg.quantize_apply(float_net, recipe, calibration_data=images)
        report = tfbinreg.finalize(model, images)
        assert report.statistics is None
        assert "left as it was" in str(report)


class TestThresholds:
    def test_a_constant_background_on_a_threshold_is_named(self):
        model, images = classifier(), data()
        images[:, :, :5] = 0.0  # the background
        grid = model.get_layer("first_relu_grid")
        norm = model.get_layer("first_norm")
        step = float(grid.grid_variables["step"])
        norm.gamma.assign(np.full(6, 0.1))
        norm.beta.assign(step * np.array([0.5, 1.5, 0.3, 1.2, 2.2, 0.0]))
        norm.moving_mean.assign(np.zeros(6))
        report = tfbinreg.finalize(model, (images, classes(model, images, None)))
        assert report.statistics.kept == "as trained"
        named = [c for c in report.on_threshold if c.layer == "first_relu_grid"]
        assert [channel.channel for channel in named] == [0, 1]
        assert all(0.4 < channel.share < 0.6 for channel in named)  # three columns of six
        assert "first_relu_grid channel 1 (5" in str(report)

    def test_random_values_do_not(self):
        assert tfbinreg.finalize(classifier(), data()).on_threshold == ()


def test_the_report_prints_itself():
    model, images = classifier(), data()
    text = str(tfbinreg.finalize(model, (images, classes(model, images, None))))
    assert text.splitlines()[0] == "batch normalization: as trained, the better on 128 samples"
    assert "as trained: accuracy 100.00 %" in text
    assert str(tfbinreg.finalize(model)) == "batch normalization: left as it was"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_has_a_bar_and_others_may_have_their_own(monkeypatch, make_net, images):
    model = tfbinreg.quantize_apply(
        make_net(), weight_bits=2, activation_bits=2, calibration_data=images
    )
    told = []
    tfbinreg.finalize(model, images, advance=lambda *now: told.append(now))
    count = len(list(input_batches(images)))
    numbers = range(1, count + 1)
    assert told == [
        (None, "putting the constants on their grids"),
        *((None, f"re-estimating normalizations: batch {number}") for number in numbers),
        *((None, f"comparing statistics: batch {number}") for number in numbers),
        *((None, f"looking for values on thresholds: batch {number}") for number in numbers),
    ]
    monkeypatch.setenv("TERM", "xterm")
    for options, shown in (({"verbose": 0}, False), ({}, True)):
        monkeypatch.setattr(sys, "stderr", Terminal())
        tfbinreg.finalize(model, images, **options)
        assert ("comparing statistics" in sys.stderr.getvalue()) == shown


def test_nothing_is_watched_where_no_activation_has_few_bits(make_net, images):
    model = tfbinreg.quantize_apply(make_net(), weight_bits=2, calibration_data=images)
    told = []
    report = tfbinreg.finalize(model, images, advance=lambda *now: told.append(now))
    assert report.on_threshold == () and "thresholds" not in str(told)


def test_once_is_enough_for_data_that_cannot_be_rewound():
    images = data(70)
    once = rewindable(((images, np.arange(70)) for _ in range(100)), 2)
    assert len(once) == 2
    assert [labels is not None for _, labels in labelled_batches(once)] == [True, True]


@pytest.mark.parametrize("form", ["arrays", "list of batches", "generator", "dataset"])
def test_labels_decide_in_every_form(form):
    model, images = classifier(), data(128)
    labels = classes(model, images, None)
    pairs = [(images[:64], labels[:64]), (images[64:], labels[64:])]
    forms = {
        "arrays": (images, labels),
        "list of batches": pairs,
        "generator": (pair for pair in pairs),
        "dataset": tf.data.Dataset.from_tensor_slices((images, labels)).batch(64),
    }
    statistics = tfbinreg.finalize(model, forms[form]).statistics
    assert statistics.kept == "as trained"
    assert statistics.trained.accuracy == 1.0 and statistics.trained.distance is None


@pytest.mark.slow
def test_many_models_without_advice_about_tracing(caplog):
    for seed in range(7):
        tfbinreg.finalize(classifier(seed), data(72))
    assert "retracing" not in caplog.text
