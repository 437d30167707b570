"""examples/learned_bits.py, on a few random images."""

import importlib
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    return importlib.import_module("learned_bits")


@pytest.mark.slow
def test_the_bits_that_are_found_are_trained_again(example, monkeypatch, tmp_path, capsys):
    random = np.random.default_rng(0)
    rows = {"x_train": 256, "x_test": 32}
    images = {k: random.integers(0, 256, (n, 28, 28), np.uint8) for k, n in rows.items()}
    labels = {f"y{k[1:]}": random.integers(0, 10, n) for k, n in rows.items()}
    np.savez(tmp_path / "fashion_mnist.npz", **images, **labels)
    monkeypatch.setattr(example, "RATE", 0.1)
    arguments = ["--seeds", "0", "--float_epochs", "1", "--epochs", "2", "--strength", "50"]
    example.main([*arguments, "--data_dir", str(tmp_path)])
    seed, *_, learned, given, four, two = capsys.readouterr().out.strip().split("\n")
    assert seed == "seed 0: 8 2 2 2 2 8 bits"
    bits = [float(row.split("|")[2]) for row in (learned, given, four, two)]
    assert bits[0] == bits[1] == bits[3] < bits[2]
