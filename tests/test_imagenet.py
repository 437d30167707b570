"""The ImageNet example, on a folder of a few tiny images."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfbinreg

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def _import_from_examples(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture
def images(tmp_path):
    random = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 3)):
        for name in ("cat", "dog"):
            for index in range(count):
                pixels = random.integers(0, 256, (40, 30 + index, 3), np.uint8)
                path = tmp_path / part / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tf.io.encode_png(pixels).numpy())
    return tmp_path


def test_a_folder_is_read_in_batches(images):
    data = importlib.import_module("image_folder").folder(str(images), 24, 4, seed=0)
    assert (data.classes, data.steps) == (2, 4)
    batches = list(data.train.take(9))  # more than an epoch
    assert {batch.shape for batch, _ in batches} == {(4, 24, 24, 3)}
    assert {int(label) for _, labels in batches for label in labels} == {0, 1}
    validation = list(data.validation)
    assert sum(len(labels) for _, labels in validation) == 6
    assert np.min(validation[0][0]) >= 0 and 200 < np.max(validation[0][0]) <= 255


def test_what_is_wrong_with_a_folder(images):
    folder = importlib.import_module("image_folder").folder
    with pytest.raises(ValueError, match="No folder"):
        folder(str(images / "nowhere"), 24, 4, seed=0)
    (images / "train" / "bird").mkdir()
    with pytest.raises(ValueError, match="different classes"):
        folder(str(images), 24, 4, seed=0)


@pytest.mark.slow
def test_the_nets_are_built_for_pixels():
    imagenet = importlib.import_module("imagenet")
    for name, kinds in (("resnet18", 1), ("mobilenet_v3_small", 0)):
        net = imagenet.build(name, 32, 5)
        assert net.output_shape == (None, 5)
        assert sum(type(layer).__name__ == "Rescaling" for layer in net.layers) == kinds


@pytest.mark.slow
def test_end_to_end(images, tmp_path, monkeypatch):
    output = tmp_path / "out"
    command = ["imagenet.py", "--data_dir", images, "--model", "mobilenet_v3_small",
               "--image_size", 32, "--batch_size", 8, "--float_epochs", 1, "--epochs", 2,
               "--switch_epoch", 1, "--activation_bits", 8, "--output_dir", output]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(part) for part in command])
    assert importlib.import_module("imagenet").main() == 0
    result = json.loads((output / "result.json").read_text())
    assert result["file_bytes"] == (output / "model.tflite").stat().st_size
    tfbinreg.load_model(output / "q.keras")
