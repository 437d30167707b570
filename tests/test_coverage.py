"""Networks people bring, from the float model to the verified file; see benchmarks/coverage.py."""

import importlib
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


def check(name, kind, setting, samples):
    row = importlib.import_module("coverage").cell(name, kind, setting, samples)
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
