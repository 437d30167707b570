"""`quantize`: from a float model to a finalized one on the command line."""

import json
import os

import numpy as np
import pytest

pytest.importorskip("tensorflow")
import tf_keras as keras

import tfbinreg
from tfbinreg import _compat
from tfbinreg.layers.sites import kernel_sites
from tflite_tools.from_keras import train
from tflite_tools.from_keras.train import Training, quantize

layers = keras.layers


def small_net(*, last="softmax"):
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            layers.Input((4,), name="x"),
            layers.Dense(8, activation="relu", name="first"),
            layers.Dense(8, activation="relu", name="hidden"),
            layers.Dense(3, activation=last, name="head"),
        ]
    )


@pytest.fixture(scope="module")
def samples():
    """64 points and which of their first three coordinates is the largest."""
    points = np.random.default_rng(1).normal(size=(64, 4)).astype(np.float32)
    return {"x": points, "labels": points[:, :3].argmax(-1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, samples):
    """A compiled and an uncompiled float model, and samples in files."""
    path = tmp_path_factory.mktemp("quantize")
    model = small_net()
    model.save(path / "plain.keras")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(path / "float.keras")
    small_net(last=None).save(path / "logits.h5")
    np.savez(path / "train.npz", **samples)
    np.savez(path / "test.npz", x=samples["x"][:16], labels=samples["labels"][:16])
    np.save(path / "samples.npy", samples["x"])
    return path


@pytest.fixture
def run(command, folder, monkeypatch):
    """Runs `quantize` in a folder; returns exit code, stdout, stderr."""
    monkeypatch.chdir(folder)
    return lambda *line: command("quantize", *line)


class TestTheCommand:
    def test_trains_and_tells(self, run, folder):
        flags = ["--data", "train.npz", "--weight_bits", 2, "--activation-bits=4"]
        flags += ["--epochs", 4, "--learning_rate", 0.05, "--target", "tflm"]
        code, out, err = run("float.keras", *flags, "-o", "q.keras", "--json")
        assert (code, err) == (0, "")
        figures = json.loads(out)
        assert figures["loss"] == "sparse_categorical_crossentropy"
        assert (figures["measured_on"], figures["samples"]) == ("train.npz", 64)
        losses = figures["history"]["loss"]
        assert len(losses) == 4 and losses[-1] < losses[0]
        assert figures["history"]["br_strength"] == [0.0, 0.0, 0.5, 0.5]
        assert figures["after"]["accuracy"] > figures["before"]["accuracy"]
        assert figures["next"] == "tflite_tools convert q.keras --output q.tflite"
        model = tfbinreg.load_model(folder / "q.keras")
        assert [site.quantizer.bits for site in kernel_sites(model)] == [8, 2, 8]
        assert (model.recipe.activation_bits, model.recipe.target) == (4, "litert")
        with np.load(folder / "train.npz") as data:
            right = model.predict(data["x"], verbose=0).argmax(-1) == data["labels"]
        assert np.mean(right) == pytest.approx(figures["after"]["accuracy"])
        rate = float(_compat.learning_rate(model.optimizer))
        assert rate == pytest.approx(0.0, abs=1e-8)  # the cosine has ended

    def test_calibrates_only(self, run, folder):
        code, out, err = run("plain.keras", "--data", "samples.npy", "--epochs=0", "-o", "c.h5")
        assert (code, err) == (0, "")
        assert "48 weights in" not in out and " packed bytes" in out
        assert "c.h5: finalized" in out and "float model" not in out
        assert tfbinreg.load_model(folder / "c.h5").recipe.weight_bits == 4

    def test_validation_data_a_recipe_and_text(self, run, folder):
        recipe = tfbinreg.Recipe(
            weight_bits=3, penalties=("bin_regularization", "kure"), solver="lapq"
        )
        (folder / "r.json").write_text(recipe.to_json())
        flags = ["--data", "train.npz", "--validation_data", "test.npz", "--recipe", "r.json"]
        flags += ["--loss", "categorical_crossentropy", "--from_logits", "--distill"]
        flags += ["--penalty", "kure=0.1", "--penalty", "bin_regularization=0", "--epochs", 1]
        code, out, err = run("logits.h5", *flags, "-o", "r.keras")
        assert (code, err) == (0, "")
        assert "on the 16 samples of test.npz:\n  float model: accuracy " in out
        assert "convert it: tflite_tools convert r.keras --output r.tflite" in out
        assert tfbinreg.load_model(folder / "r.keras").recipe.weight_bits == 3

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (["plain.keras"], "was saved without a loss: name one with --loss"),
            (["gone.keras"], "Cannot read 'gone.keras': No such file or directory."),
            (["flaot.keras"], "Did you mean 'float.keras'?"),
            (["float.keras", "--data", "samples.npy"], "no `labels` in the training data"),
            (["float.keras", "--validation_data", "samples.npy"], "in the validation data"),
            (["float.keras", "-o", "q.tflite"], "Give a name that ends in .keras or .h5, 'q.keras"),
            (["float.keras", "-o", "float.keras"], "needs this file itself"),
            (["float.keras", "--recipe", "train.npz"], "No recipe can be read"),
            (["float.keras", "--penalty", "bin_regularisation=1"], "'bin_regularization'?"),
            (["logits.h5", "--loss", "mse"], "must be numbers of shape (3,) for each sample"),
            (["logits.h5", "--loss", "sparse_categorical_crossentropy"], "--from_logits."),
            (["float.keras", "--from_logits"], "--from_logits goes with --loss"),
            (["float.keras", "--loss", "mae", "--from_logits"], "is for crossentropies"),
        ],
    )
    def test_what_cannot_be_done_is_one_line_and_writes_nothing(self, run, folder, line, message):
        line = line if "--data" in line else [*line, "--data", "train.npz"]
        line = line if "-o" in line else [*line, "-o", "new.keras"]
        before = set(os.listdir(folder))
        code, out, err = run(*line)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert message in err
        assert set(os.listdir(folder)) == before

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--recipe", "r", "--weight_bits", "2"], "--recipe says which bits: leave"),
            (["--weight_bits", "9"], "'9': write bits from 1 to 8"),
            (["--activation_bits", "1"], "'1': write bits from 2 to 8"),
            (["--learning_rate", "0"], "'0' is no positive number"),
            (["--learning_rate", "fast"], "'fast' is no positive number"),
            (["--penalty", "kure"], "'kure' is not NAME=STRENGTH"),
            (["--loss", "hubert"], "invalid choice: 'hubert': did you mean 'huber'?"),
        ],
    )
    def test_usage(self, run, flags, message):
        code, out, err = run("float.keras", "--data", "train.npz", "-o", "x.keras", *flags)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err


def test_an_interruption_writes_nothing(command, folder, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(folder)
    monkeypatch.setattr(tfbinreg, "finalize", interrupt)
    before = set(os.listdir(folder))
    line = ["quantize", "float.keras", "--data", "train.npz", "--epochs", "0", "-o", "new.keras"]
    assert command(*line) == (130, "", "tflite_tools: interrupted\n")
    assert set(os.listdir(folder)) == before


class TestRefusals:
    def refused(self, folder, arrays, recipe=None, **options):
        with pytest.raises(ValueError) as caught:
            quantize(folder / "float.keras", recipe or {}, arrays, Training(**options))
        return str(caught.value)

    def test_penalties_without_a_strength(self, folder, samples):
        text = self.refused(folder, samples, {"penalties": ["kure"]}, epochs=1)
        assert "say how strong it is to be with --penalty kure=STRENGTH" in text

    def test_methods_that_train_in_stages(self, folder, samples):
        recipe = {"method": "tsq", "weight_bits": 2}
        assert "'tsq' is trained in stages" in self.refused(folder, samples, recipe, epochs=1)

    def test_several_outputs(self, tmp_path, samples):
        inputs = keras.Input((4,), name="x")
        outputs = [layers.Dense(2)(inputs), layers.Dense(3)(inputs)]
        keras.Model(inputs, outputs).save(tmp_path / "float.keras")
        assert "The model has 2 outputs" in self.refused(tmp_path, samples)

    def test_tflite_files(self, model_file, samples):
        with pytest.raises(ValueError, match="needs a float Keras model"):
            quantize(model_file, {}, samples, Training())

    def test_a_missing_tensorflow(self, folder, samples, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "tfbinreg", None)
        with pytest.raises(RuntimeError, match="needs TensorFlow"):
            quantize(folder / "float.keras", {}, samples, Training())


def test_progress_is_told(folder, samples):
    told = []
    made = quantize(
        folder / "float.keras",
        {"fold_batch_norm": True},
        samples,
        Training(epochs=1, batch_size=32),
        advance=lambda share, text: told.append((share, text)),
    )
    assert [text.partition(",")[0] for _, text in told] == [
        *(
            "starting TensorFlow",
            "reading",
            "calibrating",
            "epoch 1 of 1",
            "epoch 1 of 1",
            "finalizing",
            "putting the constants on their grids",
        )
    ]
    shares = [share for share, _ in told]
    assert shares[:3] == [None] * 3 and shares[3:] == sorted(shares[3:])
    assert made.warnings == () and made.before is not None


def test_folded_normalizations_are_frozen(samples, tmp_path):
    net = keras.Sequential(
        [
            layers.Input((4,), name="x"),
            layers.Reshape((2, 2, 1)),
            layers.Conv2D(4, 2, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    recipe = tfbinreg.recipes.hardware_friendly(4)
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=samples["x"])
    kinds = [type(callback).__name__ for callback in train._callbacks(model, Training(epochs=8))]
    assert kinds == ["BinRegularization", "FreezeBatchNorm"]
