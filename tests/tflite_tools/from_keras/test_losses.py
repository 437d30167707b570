"""Losses of saved models, and the targets they take."""

import sys

import numpy as np
import pytest

pytest.importorskip("tensorflow")
import tf_keras as keras

from tfbinreg.training.saving import saved_loss
from tflite_tools.from_keras import losses
from tflite_tools.from_keras.losses import chosen_loss, score, targets


def dense(library, loss=None):
    model = library.Sequential([library.layers.Input((2,)), library.layers.Dense(3)])
    if loss is not None:
        model.compile("sgd", loss)
    return model


def loss_of(name, **options):
    return losses._loss(name, options)


class TestSavedLosses:
    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    def test_objects_with_options(self, tmp_path, suffix):
        path = tmp_path / f"m{suffix}"
        dense(keras, keras.losses.SparseCategoricalCrossentropy(from_logits=True)).save(path)
        found = chosen_loss(path, None, False)
        assert (found.name, found.from_logits) == ("sparse_categorical_crossentropy", True)
        assert found.has_classes

    def test_keras_3(self, tmp_path):
        import keras as keras3

        loss = keras3.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.5)
        dense(keras3, loss).save(tmp_path / "m.keras")
        found = chosen_loss(tmp_path / "m.keras", None, False)
        assert (found.name, found.from_logits) == ("binary_crossentropy", True)
        smooth = float(found.function(np.ones((1, 1)), np.full((1, 1), 2.0)))
        assert smooth == pytest.approx(np.log1p(np.exp(2.0)) - 0.75 * 2.0)

    def test_a_huber_loss_needs_its_delta(self, tmp_path):
        import keras as keras3

        dense(keras3, keras3.losses.Huber(delta=2.0)).save(tmp_path / "m.keras")
        with pytest.raises(ValueError, match="Keras has not saved its delta"):
            chosen_loss(tmp_path / "m.keras", None, False)
        dense(keras, keras.losses.Huber(delta=2.0)).save(tmp_path / "n.keras")
        found = chosen_loss(tmp_path / "n.keras", None, False)
        assert float(found.function(np.zeros((1, 1)), np.full((1, 1), 4.0))) == pytest.approx(6.0)

    @pytest.mark.parametrize(("name", "full"), [("mse", "mean_squared_error"), ("huber", "huber")])
    def test_names(self, tmp_path, name, full):
        dense(keras, name).save(tmp_path / "m.h5")
        assert chosen_loss(tmp_path / "m.h5", None, False).name == full

    def test_none(self, tmp_path):
        for suffix in (".keras", ".h5"):
            dense(keras).save(tmp_path / f"m{suffix}")
            assert saved_loss(tmp_path / f"m{suffix}") is None
        with pytest.raises(ValueError, match="No model at"):
            saved_loss(tmp_path / "gone")

    @pytest.mark.parametrize("loss", ["hinge", ["mse"], keras.losses.LogCosh()])
    def test_others_are_refused(self, tmp_path, loss):
        dense(keras, loss).save(tmp_path / "m.keras")
        with pytest.raises(ValueError, match="compiled with a loss that is not known here"):
            chosen_loss(tmp_path / "m.keras", None, False)

    def test_a_folder_has_none(self, tmp_path):
        (tmp_path / "saved").mkdir()
        assert saved_loss(tmp_path / "saved") is None


class TestTargets:
    def test_classes(self):
        labels = np.array([2, 0])
        sparse, hot = (
            loss_of("sparse_categorical_crossentropy"),
            loss_of("categorical_crossentropy"),
        )
        np.testing.assert_array_equal(targets(labels, sparse, (3,)), labels)
        np.testing.assert_array_equal(targets(labels[:, None], sparse, (1, 1, 3)).shape, (2, 1, 1))
        np.testing.assert_array_equal(targets(labels, hot, (3,)), [[0, 0, 1], [1, 0, 0]])
        given = np.array([[0.5, 0.5, 0.0]])
        np.testing.assert_array_equal(targets(given, hot, (3,)), given)

    def test_places(self):
        labels = np.zeros((2, 4, 4, 1), int)
        sparse = loss_of("sparse_categorical_crossentropy")
        assert targets(labels, sparse, (4, 4, 3)).shape == (2, 4, 4)

    def test_numbers(self):
        made = targets(np.arange(3), loss_of("mse"), (1,))
        assert (made.shape, made.dtype) == ((3, 1), np.float32)
        assert targets(np.array([0, 1]), loss_of("binary_crossentropy"), (1,)).shape == (2, 1)

    @pytest.mark.parametrize(
        ("labels", "name", "message"),
        [
            ([0, 3], "sparse_categorical_crossentropy", "classes from 0 to 2, got 0 to 3"),
            ([0, -1], "categorical_crossentropy", "classes from 0 to 2, got -1 to 0"),
            ([[0, 1]], "sparse_categorical_crossentropy", "for each sample and place"),
            ([0.5], "sparse_categorical_crossentropy", "a whole number for each sample"),
            ([[1.0, 2.0]], "mse", r"numbers of shape \(3,\) for each sample"),
            ([["a", "b", "c"]], "mse", r"numbers of shape \(3,\) for each sample"),
            ([[0.0, 2.0, 0.0]], "binary_crossentropy", "must be from 0 to 1"),
        ],
    )
    def test_refusals(self, labels, name, message):
        with pytest.raises(ValueError, match=message):
            targets(np.array(labels), loss_of(name), (3,))


class TestScore:
    def test_accuracies(self):
        outputs = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]], np.float32)
        wanted = np.array([2, 1])
        found = score(loss_of("sparse_categorical_crossentropy"), wanted, outputs)
        assert found.accuracy == 0.5
        assert found.loss == pytest.approx(-np.mean(np.log([0.7, 0.3])))
        hot = score(loss_of("categorical_crossentropy"), np.eye(3)[wanted], outputs)
        assert hot.accuracy == 0.5 and hot.loss == pytest.approx(found.loss)
        logits = loss_of("binary_crossentropy", from_logits=True)
        assert score(logits, np.array([[1.0], [1.0]]), np.array([[3.0], [-3.0]])).accuracy == 0.5
        numbers = score(loss_of("mse"), np.zeros((1, 1)), np.full((1, 1), 3.0))
        assert numbers == (9.0, None)

    def test_logits_are_no_probabilities(self):
        with pytest.raises(ValueError, match="--from_logits"):
            score(loss_of("sparse_categorical_crossentropy"), np.array([0]), np.array([[3.0, -1]]))


def test_the_names_are_those_of_keras():
    assert "tf_keras" in sys.modules
    assert {losses._loss(name, {}).name for name in losses.LOSSES} == set(losses._CLASS_NAMES)
