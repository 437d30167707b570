import json

import numpy as np
import pytest

import tfbinreg
from tflite_tools.squeeze import byte_count, squeeze


@pytest.fixture(scope="module")
def saved_float(float_net, tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "net.keras"
    float_net.save(path)
    return path


@pytest.fixture
def data_file(tmp_path, images, labels):
    path = tmp_path / "data.npz"
    np.savez(path, image=images, labels=labels)
    return path


@pytest.mark.parametrize(
    ("text", "size"),
    [("65536", 65536), ("64KB", 65536), ("64 kib", 65536), ("0.5MB", 2**19), ("1m", 2**20)],
)
def test_sizes(text, size):
    assert byte_count(text) == size


@pytest.mark.parametrize("text", ["", "64 GB", "KB", "-1", "0", "64KB please"])
def test_no_sizes(text):
    with pytest.raises(ValueError, match="is no size: write 65536, 64KB or 1MB"):
        byte_count(text)


def test_the_command(command, saved_float, data_file, tmp_path):
    output = tmp_path / "small.tflite"
    arguments = ["convert", saved_float, "--flash_budget", "0.25KB", "--data", data_file]
    code, out, err = command(*arguments, "--output", output)
    assert (code, err) == (0, "")
    assert "of 256 bytes" in out and "accuracy:" in out and "squeezed below 8 bits: " in out
    recipe = tfbinreg.Recipe.from_json((tmp_path / "small.tflite.json").read_text())
    assert {rule.weight_bits for rule in recipe.rules} - {8}
    code, out, _ = command("verify", output, "--samples", 4)
    assert code == 0
    code, out, _ = command(
        *arguments, "--output", output, "--recipe", tmp_path / "r.json", "--json"
    )
    figures = json.loads(out)
    assert code == 0 and figures["packed_bytes"] <= figures["budget"] == 256
    assert figures["labelled"] and 0 <= figures["after"] <= 1
    assert (tmp_path / "r.json").exists()


def test_what_does_not_fit_is_refused_and_nothing_written(
    command, saved_float, data_file, tmp_path
):
    output = tmp_path / "small.tflite"
    code, _, err = command(
        "convert", saved_float, "--flash-budget=100", "--data", data_file, "--output", output
    )
    assert code == 1 and "100 bytes are not enough" in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [data_file]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--flash_budget", "64KB"], "--flash_budget and --data go together"),
        (["--data", "x.npz"], "--flash_budget and --data go together"),
        (["--recipe", "r.json"], "--recipe goes with --flash_budget"),
        (["--flash_budget", "64XB", "--data", "x"], "'64XB' is no size"),
        (
            ["--flash_budget", "1KB", "--data", "x", "--input_type", "float32"],
            "leave --input_type out",
        ),
    ],
)
def test_flags_that_do_not_fit(command, flags, message):
    code, _, err = command("convert", "net.keras", "--output", "out.tflite", *flags)
    assert code == 2 and message in err


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"needs an array for each of \['image'\]; found none"),
        ({"a": np.zeros((4, 8, 8, 3)), "b": np.zeros(4)}, "found a, b"),
        (
            {"": np.zeros((4, 8, 8, 1))},
            r"samples of shape \(8, 8, 1\), the model takes \(8, 8, 3\)",
        ),
        ({"": np.zeros((0, 8, 8, 3))}, "samples of shape"),
        ({"": np.zeros((4, 8))}, "samples of shape"),
        ({"": np.zeros((4, 8, 8, 3)), "labels": np.zeros(3)}, "different numbers of samples"),
    ],
)
def test_samples_that_do_not_fit(saved_float, arrays, message):
    with pytest.raises(ValueError, match=message):
        squeeze(saved_float, 10**6, arrays)


def test_without_labels_the_float_model_is_the_measure(saved_float, images):
    result = squeeze(saved_float, 10**6, {"": images})
    assert (result.before, result.labelled, result.squeezed) == (1.0, False, ())
    assert result.after > 0.5
