"""Networks people bring, from the float model to the verified file; see benchmarks/coverage.py."""

import importlib
import json
from pathlib import Path

import pytest
from quick import slow

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = ["Dense autoencoder", "DS-CNN 1-D"]


@pytest.fixture(autouse=True)
def _import_from_benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def names():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return list(importlib.import_module("zoo").NETS)


def check(name, kind, setting, samples, **options):
    row = importlib.import_module("coverage").cell(name, kind, setting, samples, **options)
    assert (row["loss"], row["reload"], row["codes"]) == ("finite", "equal", "0 wrong")
    assert row["moved"] != "0 %"
    for column in ("integer", "levels", "operators"):
        assert row[column] == "passed", row
    assert float(row["mean LSB"]) <= 1.0
    assert float(row["top-1"].removesuffix(" %")) >= 99


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        pytest.param("Keras 3", "W2A2", marks=pytest.mark.slow),
        pytest.param("tf_keras", "W4A8", marks=pytest.mark.slow),
        pytest.param("tf_keras", "W2A2", marks=pytest.mark.slow),
        pytest.param("Keras 3", "W4A8", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", [SMALL[0], *slow(*SMALL[1:])])
def test_small_networks(name, kind, setting):
    check(name, kind, setting, samples=16)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["W4A8", "W2A2"])
@pytest.mark.parametrize("kind", ["tf_keras", "Keras 3"])
@pytest.mark.parametrize("name", [name for name in names() if name not in SMALL])
def test_every_network(name, kind, setting):
    check(name, kind, setting, samples=20)


def test_the_table_has_a_line_for_every_row():
    coverage = importlib.import_module("coverage")
    row = dict.fromkeys(coverage._COLUMNS, "x")
    assert len(coverage.markdown([row, row]).splitlines()) == 4


OTHER = """
import tf_keras

def two_outputs(size, filters=4):
    layers, image = tf_keras.layers, tf_keras.Input(size, name="image")
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 3, 2)(image)))
    up = layers.UpSampling2D(interpolation="bilinear")(x)
    return tf_keras.Model(image, [layers.Conv2D(2, 1)(up), layers.Dense(3)(layers.Flatten()(x))])
"""


@pytest.mark.slow
def test_nets_of_other_packages_are_checked_the_same_way(tmp_path, monkeypatch):
    (tmp_path / "other_package.py").write_text(OTHER)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = {
        "model": "other_package.two_outputs",
        "arguments": [[9, 9, 3]],
        "options": {"filters": 6},
    }
    (tmp_path / "nets.json").write_text(json.dumps({"two": entry}))
    nets = importlib.import_module("zoo").listed(str(tmp_path / "nets.json"))
    check("two", "tf_keras", "W4A8", 16, nets=nets)


def test_the_list_of_other_packages_can_be_read():
    nets = importlib.import_module("zoo").listed(str(BENCHMARKS / "other_nets.json"))
    assert all(map(callable, nets.values())) and "YOLOX-Nano" in nets


def test_nets_that_are_not_there_are_told(capsys):
    with pytest.raises(SystemExit):
        importlib.import_module("coverage").main(["--nets", "U-Net", "V-Net"])
    assert "no nets V-Net: there are MobileNet, MobileNetV2" in capsys.readouterr().err
