"""examples/mixed_bits.py, on a small net and a few random images."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from quick import slow

WAYS = ["uniform", "layer", "channel", "unpruned", "dropbits", "bsq"]


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    return importlib.import_module("mixed_bits")


@pytest.fixture
def folder(keras_nets, tmp_path):
    """What the example takes from --data_dir, made small."""
    import tf_keras as keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    parts = [
        layers.Input((32, 32, 3)),
        layers.Conv2D(16, 3, 4, activation="relu"),
        layers.Conv2D(24, 3, 2, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(10, activation="softmax"),
    ]
    keras.Sequential(parts).save(tmp_path / "mlperf_tiny_resnet8.h5")
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40008, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "cifar10.npz", x_train=images, y_train=random.integers(0, 10, 40008))
    return tmp_path


@pytest.mark.filterwarnings("ignore:The packed weights take:tfbinreg.QuantizationWarning")
@pytest.mark.parametrize("ways", [["channel"], *slow(WAYS)], ids=len)
def test_runs_are_made_once_and_told(example, folder, capsys, ways):
    results, picture = folder / "runs.jsonl", folder / "runs.png"
    arguments = ["--data_dir", folder, "--results", results, "--picture", picture, "--budgets"]
    arguments += ["1100", "--seeds", 0, "--rows", 64, "--epochs", 2, "--ways", *ways]
    example.main([str(argument) for argument in arguments])
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["way"] for line in lines] == ways
    for line in (line for line in lines if "refused" not in line):
        assert line["fits"] == (line["bytes"] <= 1100)
        assert line["fits"] or line["way"] in ("dropbits", "bsq")  # in two epochs they cannot
    table = capsys.readouterr().out
    assert all(f"| 1100 | {way} | " in table for way in ways) and picture.stat().st_size > 1000
    example.main([str(argument) for argument in arguments])
    assert len(results.read_text().splitlines()) == len(ways)  # none is made again


def test_the_table_has_means_and_what_does_not_fit(example):
    run = {"budget": 100, "way": "bsq", "bytes": 90, "fits": True, "accuracy": 60.0}
    lines = [run, {**run, "bytes": 110, "fits": False, "accuracy": 64.0}, {**run, "way": "layer"}]
    lines.append({"budget": 100, "way": "dropbits", "refused": "too many bits"})
    assert example.table(lines).split("\n")[2:] == [
        "| 100 | layer | 90 | 60.00 | 1 |",
        "| 100 | dropbits | cannot fit | | |",
        "| 100 | bsq | 100 (does not fit) | 62.00 ± 2.83 | 2 |",
    ]


def test_data_are_needed_to_train(example, capsys):
    with pytest.raises(SystemExit):
        example.main([])
    assert "--data_dir is needed" in capsys.readouterr().err
