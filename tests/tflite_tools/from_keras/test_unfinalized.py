"""A model that was not finalized: told by every command, finalized by `convert`."""

import json

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tfbinreg
from tflite_tools.checks.trained_model import verify
from tflite_tools.checks.verdict import Verdict
from tflite_tools.schema.contents import load


@pytest.fixture(scope="module")
def unfinalized(make_trained, tmp_path_factory):
    """Path of a trained net that was not finalized."""
    model = make_trained()
    model.finalized.assign(0)
    path = tmp_path_factory.mktemp("net") / "q.keras"
    with pytest.warns(tfbinreg.QuantizationWarning, match="saved without having been finalized"):
        model.save(path)
    return path


@pytest.fixture
def samples(tmp_path, images, labels):
    path = tmp_path / "train.npz"
    np.savez(path, image=images, labels=labels)
    return path


def header(path):
    return load(path.read_bytes()).require_manifest()


@pytest.mark.slow
def test_convert_and_verify_tell_it(command, unfinalized, tmp_path):
    path = tmp_path / "model.tflite"
    code, _, err = command("convert", unfinalized, "--output", path)
    assert code == 0
    assert "warning: the model was not finalized" in err and "--finalize_data" in err
    assert header(path).finalized is False
    report = verify(load(path.read_bytes()))
    assert report["finalized"].verdict is Verdict.WARNING
    assert "tfbinreg.finalize" in report["finalized"].detail
    code, _, err = command("convert", path, "--format", "int4", "--output", tmp_path / "4.tflite")
    assert code == 0 and "was not finalized" in err


@pytest.mark.slow
def test_convert_finalizes_with_data_and_the_file_agrees(command, unfinalized, samples, tmp_path):
    path, before = tmp_path / "model.tflite", unfinalized.read_bytes()
    flags = ["--finalize_data", samples, "--output", path]
    code, out, err = command("convert", unfinalized, *flags)
    assert (code, err) == (0, "")
    assert "batch normalization: " in out and "accuracy" in out
    saved = f"{path}.keras"
    assert f"verify {path} --reference {saved}" in out
    assert unfinalized.read_bytes() == before
    assert header(path).finalized is True
    model = tfbinreg.load_model(saved)
    assert tfbinreg.to_tflite(model) == path.read_bytes()
    code, out, _ = command("verify", path, "--reference", saved, "--samples", 8, "--json")
    assert code == 0
    assert "finalized" not in [check["name"] for check in json.loads(out)["checks"]]


def test_the_report_is_part_of_the_json(command, unfinalized, samples, tmp_path):
    flags = ["--finalize_data", samples, "--output", tmp_path / "m.tflite", "--json"]
    code, out, _ = command("convert", unfinalized, *flags)
    figures = json.loads(out)
    assert code == 0 and figures["finalized"] is True
    assert figures["finalized_model"] == f"{tmp_path / 'm.tflite'}.keras"
    assert figures["finalize"].startswith("batch normalization: ")


def test_what_cannot_be_finalized_is_refused(command, int8_file, unfinalized, samples, tmp_path):
    (tmp_path / "model.tflite").write_bytes(int8_file.data)
    np.save(tmp_path / "small.npy", np.zeros((4, 5, 5, 3)))
    cases = {
        "needs a Keras model": (tmp_path / "model.tflite", "--finalize_data", samples),
        "has samples of shape": (unfinalized, "--finalize_data", tmp_path / "small.npy"),
        "for trained models": (unfinalized, "--finalize_data", samples, "--flash_budget=9KB",
                               "--data", samples),
    }  # fmt: skip
    for message, arguments in cases.items():
        code, _, err = command("convert", *arguments, "--output", tmp_path / "out.tflite")
        assert code != 0 and message in err
    assert not list(tmp_path.glob("out.*"))
