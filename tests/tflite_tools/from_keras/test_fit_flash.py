import dataclasses
import json
import re

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tfbinreg
from tflite_tools.c import generate
from tflite_tools.from_keras.fit_flash import byte_count, squeeze
from tflite_tools.reports import flash as flashes
from tflite_tools.schema.contents import load


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
    arguments = ["convert", saved_float, "--flash_budget", "0.2KB", "--data", data_file]
    code, out, err = command(*arguments, "--output", output)
    assert (code, err) == (0, "")
    assert " of 204 bytes (packed weights " in out and "constants of the C sources " in out
    assert "not counted: the kernels' code, " in out and " bytes of RAM for activations" in out
    assert "accuracy:" in out and "squeezed below 8 bits: " in out
    recipe = tfbinreg.Recipe.from_json((tmp_path / "small.tflite.json").read_text())
    assert {rule.weight_bits for rule in recipe.rules} - {8}
    code, out, _ = command("verify", output, "--samples", 4)
    assert code == 0
    code, out, _ = command(
        *arguments, "--output", output, "--recipe", tmp_path / "r.json", "--json"
    )
    figures = json.loads(out)
    flash = figures["flash"]
    assert code == 0 and figures["packed_bytes"] <= figures["budget"] == 204
    assert figures["packed_bytes"] == flash["weights"] + flash["constants"]
    made = generate.generate(load(output.read_bytes()))
    assert (flash["constants"], flash["arena_bytes"]) == (made.constant_bytes, made.arena_bytes)
    assert flash["weights"] >= made.packed_weight_bytes
    assert figures["labelled"] and 0 <= figures["after"] <= 1
    assert (tmp_path / "r.json").exists()


def test_channels_have_bits_of_their_own(command, saved_float, data_file, tmp_path):
    output = tmp_path / "small.tflite"
    code, _, err = command(
        *("convert", saved_float, "--flash_budget", "0.16KB", "--data", data_file),
        *("--flash_granularity", "channel", "--flash_widths", "0,1,2,4", "--output", output),
    )
    assert (code, err) == (0, "")
    recipe = tfbinreg.Recipe.from_json((tmp_path / "small.tflite.json").read_text())
    bits = {width for rule in recipe.rules for width in np.atleast_1d(rule.weight_bits)}
    assert len(bits) > 1 and bits <= {0, 1, 2, 4}
    assert flashes.count(load(output.read_bytes())).total <= 204


def test_the_fewest_bits_are_one_channel_of_each_kernel(saved_float, images):
    with pytest.raises(ValueError, match="40 bytes are not enough: with the fewest bits"):
        squeeze(saved_float, 40, {"": images}, granularity="channel")


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
        (["--recipe", "r.json"], "--recipe is not read"),
        (["--flash_granularity", "channel"], "--flash_granularity goes with --flash_budget"),
        (["--flash_widths", "2,4"], "--flash_widths goes with --flash_budget"),
        (["--flash_budget", "64KB", "--data", "x", "--flash_widths", "2,9"], "write bits from 0"),
        (["--flash_budget", "64XB", "--data", "x"], "'64XB' is no size"),
        (
            ["--flash_budget", "1KB", "--data", "x", "--input_type", "float32"],
            "leave --input_type and --output_type out",
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
            {"": np.ones((4, 8, 8, 1))},
            r"samples of shape \(8, 8, 1\), the model takes \(8, 8, 3\)",
        ),
        ({"": np.zeros((0, 8, 8, 3))}, "is empty"),
        ({"": np.zeros((2, 8, 8, 3)), "labels": np.array([0, 50])}, "from 0 to"),
        ({"": np.zeros((2, 8, 8, 3)), "labels": np.array([0, -1])}, "from 0 to"),
        ({"": np.zeros((2, 8, 8, 3)), "labels": np.array([0.5, 1])}, "a whole number for each"),
        ({"": np.ones((4, 8))}, "samples of shape"),
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


@pytest.mark.slow
def test_bits_are_corrected_until_the_packed_file_fits(saved_float, images, monkeypatch):
    whole = squeeze(saved_float, 10**6, {"": images}).flash
    close = squeeze(saved_float, whole.total - 1, {"": images})
    assert whole.total - 60 < close.flash.total < whole.total  # one kernel of fewer bits is enough
    assert close.squeezed

    # More than the estimate says: fewer bits until it fits, with the true count.
    def count(model, own=flashes.count):
        found = own(model)
        return dataclasses.replace(found, constants=found.constants + 100)

    monkeypatch.setattr(flashes, "count", count)
    lower = squeeze(saved_float, whole.total, {"": images})
    assert lower.flash.total <= whole.total < lower.flash.total + 60
    assert lower.flash.weights < close.flash.weights


@pytest.mark.slow
def test_the_smallest_size_is_named(saved_float, images):
    with pytest.raises(ValueError, match="with the fewest bits the network takes") as refused:
        squeeze(saved_float, 100, {"": images})
    least = int(re.search(r"takes (\d+)", str(refused.value))[1])
    assert squeeze(saved_float, least, {"": images}).flash.total == least
    with pytest.raises(ValueError, match=f"takes {least} .*The largest layers are conv"):
        squeeze(saved_float, least - 1, {"": images})


def test_a_network_that_cannot_be_c_is_counted_by_its_file(
    command, saved_float, data_file, tmp_path, monkeypatch
):
    rest = {name: step for name, step in generate.LOWERINGS.items() if name != "MEAN"}
    monkeypatch.setattr(generate, "LOWERINGS", rest)
    flags = ["--flash_budget", "2KB", "--data", data_file, "--output", tmp_path / "s.tflite"]
    code, out, err = command("convert", saved_float, *flags)
    assert (code, err) == (0, "")
    assert "biases and scales " in out
    assert "counted from the .tflite file: Cannot write the file as C: - MEAN 'mean'" in out
