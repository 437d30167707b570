"""Runs of a study: the same to the last bit in every process, whether killed in between or not."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
import tf_keras as keras
from study_runs import make_study

from examples.study import train
from examples.study.data import read_data
from examples.study.files import save_arrays
from examples.study.folders import Folders, is_done, read_result, write_result
from examples.study.nets import NETS

SCRIPT = pathlib.Path(__file__).parents[1] / "study_runs.py"


def start(folder, *kill_at):
    environment = {
        **os.environ,
        "PYTHONPATH": str(SCRIPT.parents[1]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, str(SCRIPT), str(folder), *map(str, kill_at)]
    return subprocess.Popen(command, env=environment)


def result_of(folder):
    text = (folder / "results" / "some" / "probe-w2a2-br-s5.json").read_text()
    result = json.loads(text)
    assert len(text) < 10_000
    del result["card"]["date"], result["card"]["cpu_seconds"]
    return result


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was left alone."""
    folder = tmp_path_factory.mktemp("whole")
    assert start(folder).wait(300) == 0
    return folder


@pytest.mark.slow
def test_killed_in_mid_epoch_and_taken_up_is_as_if_it_was_not(whole, tmp_path):
    """Killed in its last epoch, in which the regularization acts."""
    assert start(tmp_path, 3, 2).wait(300) == -signal.SIGKILL
    assert list(tmp_path.glob("cache/some/*.checkpoint.npz"))
    assert not (tmp_path / "results" / "some").exists()
    assert start(tmp_path).wait(300) == 0
    assert result_of(tmp_path) == result_of(whole)
    assert not list(tmp_path.glob("cache/some/*.checkpoint.npz"))


@pytest.mark.slow
def test_what_a_result_holds(whole):
    result = result_of(whole)
    card, curves = result["card"], result["curves"]
    assert (card["net"], card["bits"], card["seed"]) == ("probe", [2, 2], 5)
    assert card["settings"]["arm"]["step_rate"] == 0.5
    start_result = json.loads((whole / "results" / "net" / "probe-float-a-s5.json").read_text())
    assert card["start"] == start_result["card"]["weights"] != card["weights"]
    assert {"python", "tensorflow", "tf_keras"} <= card["versions"].keys()
    quantization = card["quantization"]
    assert 100 < card["c_bytes"] < 1000
    assert quantization["finalized"] and set(quantization["weights"]["bits"]) == {"2", "8"}
    assert quantization["notes"]["checkpoint"] == f"sha256 {card['start']}"
    assert json.loads(quantization["notes"]["training"])["step_rate"] == 0.5
    assert {len(curve) for curve in curves.values()} == {4}
    assert {"loss", "accuracy", "choice", "near_level", "error", "flips"} <= curves.keys()
    assert curves["br_strength"] == [0.0, 0.0, 5.0, 5.0]
    assert curves["near_level"][3] > curves["near_level"][1]
    final = result["final"]
    assert sum(final["codes"].values()) == pytest.approx(1.0, abs=1e-4)
    for statistics in ("moving", "reestimated", "deployed", "float"):
        assert list(final[statistics]) == ["choice"]
    assert final["moving"]["choice"] == curves["choice"][-1]


@pytest.fixture
def tiny(tmp_path):
    study = make_study(tmp_path)
    return study, Folders(tmp_path, tmp_path / "results", tmp_path / "cache")


def test_without_its_float_net_no_run(tiny):
    study, folders = tiny
    [row] = study.runs()
    with pytest.raises(ValueError, match=r"run net trains probe-float-a-s5 first"):
        train.run(row, folders, read_data(str(folders.data), row.rows))


def test_another_float_net_is_refused(tiny):
    study, folders = tiny
    [row] = study.runs()
    net = NETS["probe"]()
    save_arrays(folders.weights(row.start), net.get_weights())
    card = {"settings": row.start.settings(), "weights": "of another net"}
    write_result(folders, row.start, {"card": card})
    with pytest.raises(ValueError, match="holds other weights than the result beside it"):
        train.run(row, folders, read_data(str(folders.data), row.rows))


def test_a_loss_that_is_no_number_ends_the_run(tiny, monkeypatch):
    study, folders = tiny
    [row] = study.runs()
    data = read_data(str(folders.data), row.rows)

    def with_nan(part, *rest):
        yield data.train[0][:16] / 255.0, data.train[1][:16]
        while True:
            yield data.train[0][:16] * float("nan"), data.train[1][:16]

    monkeypatch.setattr(train, "batches", with_nan)
    result = train.run(row.start, folders, data)
    assert result["card"]["diverged"] and result["final"] == {}
    assert not folders.weights(row.start).exists()


@pytest.mark.slow
def test_the_float_net_may_teach(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    [row] = make_study(tmp_path).runs()
    row = dataclasses.replace(row, arm=dataclasses.replace(row.arm, distill={"weight": 0.5}))
    folders = Folders(tmp_path, tmp_path / "results", tmp_path / "cache")
    result = train.run(row, folders, read_data(str(tmp_path), row.rows))
    assert len(result["curves"]["distillation_loss"]) == 4
    assert result["card"]["settings"]["arm"]["distill"] == {"weight": 0.5}


@pytest.mark.slow
def test_bits_may_be_chosen_for_a_budget_and_steps_by_a_solver(whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    [row] = make_study(tmp_path).runs()
    limit = read_result(Folders(tmp_path, tmp_path / "results"), row)["card"]["c_bytes"] - 20
    solved = []
    monkeypatch.setattr(
        train.tfbinreg, "solve", lambda model, samples, **_: solved.append(len(samples[0]))
    )
    recipe = {"solver": "lapq", "first_last_bits": None}
    arm = dataclasses.replace(
        row.arm, epochs=1, callbacks=(), recipe=recipe, flash={"limit": limit}, solve=True
    )
    row = dataclasses.replace(row, arm=arm)
    folders = Folders(tmp_path, tmp_path / "results", tmp_path / "cache")
    folders.result(row).unlink()
    card = train.run(row, folders, read_data(str(tmp_path), row.rows))["card"]
    assert card["c_bytes"] <= limit
    assert card["quantization"]["weights"]["bits"].keys() <= {"2", "3", "4", "8"}
    assert solved == [64]


def test_a_budget_needs_a_limit():
    with pytest.raises(ValueError, match="flash needs a limit"):
        train.Arm(epochs=1, flash={"granularity": "layer"})


def test_unknown_callbacks_are_refused():
    arm = train.Arm(epochs=1, callbacks=({"name": "Recipe"},))
    with pytest.raises(ValueError, match="no callback 'Recipe'"):
        train._callbacks(arm)
    known = train.Arm(epochs=1, callbacks=({"name": "FreezeBatchNorm", "epoch": 3},))
    assert isinstance(train._callbacks(known)[0], keras.callbacks.Callback)


def test_which_runs_are_done(tiny):
    study, folders = tiny
    [row] = study.runs()
    assert not is_done(folders, row)
    write_result(folders, row, {"card": {"settings": row.settings()}, "final": {"a": 1}})
    assert read_result(folders, row)["final"] == {"a": 1}
    assert is_done(folders, row)
    write_result(folders, row.start, {"card": {"settings": row.start.settings()}})
    assert not is_done(folders, row.start)  # its weights are not there
    write_result(folders, row, {"card": {"settings": {**row.settings(), "seed": 6}}})
    with pytest.raises(ValueError, match="other settings"):
        is_done(folders, row)
