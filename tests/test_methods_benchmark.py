"""benchmarks/methods.py: it tries every method, and sees a number that is wrong."""

import importlib
from pathlib import Path

import pytest

import tfbinreg
from tfbinreg.methods import roster
from tflite_tools.schema.contents import load

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def methods(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("methods")


def test_every_method_of_the_package_is_tried(methods):
    own = {method.name for method in roster.methods() if method.about is not None}
    assert own <= methods.WAYS.keys()
    for way in methods.WAYS.values():
        tfbinreg.Recipe(**way.recipe)
        assert isinstance(way.callbacks(), list)


@pytest.mark.slow
def test_a_number_that_is_wrong_is_counted(methods, make_trained, images):
    model = make_trained()
    file = load(tfbinreg.to_tflite(model))
    right = methods.differences(model, file, images[:8])
    assert right == {"LiteRT": 0, "TFLM": 0, "C": 0}
    kernel = model.get_layer("quant_head").weights[0]
    kernel.assign(kernel[:, ::-1])
    assert all(count > 0 for count in methods.differences(model, file, images[:8]).values())


def test_a_row_that_differs_fails(methods, monkeypatch, capsys):
    row = dict.fromkeys(methods._COLUMNS, 0)
    monkeypatch.setattr(methods.rows, "in_own_process", lambda *_: row)
    arguments = ["--methods", "lsq", "--nets", "dscnn"]
    assert methods.main(arguments) == 0
    row["TFLM"] = 1
    assert methods.main(arguments) == 1
    assert "| TFLM |" in capsys.readouterr().out


def test_found_bits_fails_with_a_wrong_code(methods, monkeypatch, capsys):
    found_bits = importlib.import_module("found_bits")
    row = dict.fromkeys(found_bits._COLUMNS, 0)
    monkeypatch.setattr(found_bits.rows, "in_own_process", lambda *_: row)
    assert found_bits.main(["--strengths", "0"]) == 0
    row["codes"] = 1
    assert found_bits.main(["--strengths", "0"]) == 1
    assert "| planes |" in capsys.readouterr().out
