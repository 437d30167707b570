"""`verify --labels`: accuracy in Keras and in every runtime."""

import json

import numpy as np
import pytest

from tflite_tools.c import host_run
from tflite_tools.from_keras.convert import load
from tflite_tools.running import runtime


class TestLabels:
    @pytest.fixture
    def labelled(self, images, labels, tmp_path):
        np.save(tmp_path / "x.npy", images)
        np.save(tmp_path / "y.npy", labels)
        return ["--inputs", tmp_path / "x.npy", "--labels", tmp_path / "y.npy"]

    def test_accuracy_everywhere(self, command, model_file, saved_net, labelled, images, labels):
        flags = ["--reference", saved_net, *labelled]
        code, out, _ = command("verify", model_file, *flags, "--json")
        assert code == 0
        figures = {row["runner"]: row for row in json.loads(out)["accuracy"]}
        assert list(figures) == ["Keras", "LiteRT", "TFLM", "C"]
        right = np.mean(load(saved_net).predict(images, verbose=0).argmax(-1) == labels)
        assert figures["Keras"]["share"] == figures["LiteRT"]["share"] == pytest.approx(right)
        if host_run.compiler() and runtime.available(runtime.TFLM):
            assert figures["C"]["share"] == figures["TFLM"]["share"]
        code, out, _ = command("verify", model_file, *flags)
        assert f"{100 * right:.2f} %" in out

    def test_what_cannot_run_is_told(self, command, model_file, labelled, monkeypatch):
        monkeypatch.setattr(host_run, "compiler", lambda: None)
        code, out, _ = command("verify", model_file, *labelled, "--json")
        assert code == 0
        last = json.loads(out)["accuracy"][-1]
        assert last["runner"] == "C" and last["share"] is None
        assert "no C compiler" in last["reason"]
