"""Cut, random and flipped files: an error line and an exit code, or a clean answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quick import slow

from tflite_tools.checks.trained_model import verify
from tflite_tools.checks.verdict import Report
from tflite_tools.reports.describe import describe
from tflite_tools.schema.contents import load


def _is_clean(result):
    code, out, err = result
    assert "Traceback" not in out + err
    if code:
        assert err.startswith("tflite_tools: error: ") or (code == 1 and "FAILED" in out)
    else:
        assert err == ""


@pytest.mark.parametrize("name", ["inspect", *slow("verify")])
def test_cut_files(command, int8_file, tmp_path, name):
    path = tmp_path / "cut.tflite"
    for size in range(0, len(int8_file.data), 64):
        path.write_bytes(int8_file.data[:size])
        code, out, err = command(name, path)
        assert (code, out) == (1, "")
        assert err.startswith("tflite_tools: error: ")


@pytest.mark.parametrize("name", ["inspect", "verify"])
def test_random_files(command, tmp_path, name):
    path, random = tmp_path / "random.tflite", np.random.default_rng(0)
    for size in (1, 7, 8, 9, 100, 5000):
        noise = random.bytes(size)
        for content in (noise, noise[:4] + b"TFL3" + noise[8:]):
            path.write_bytes(content)
            code, out, err = command(name, path)
            assert (code, out) == (1, "")
            assert err.startswith("tflite_tools: error: ")


@settings(max_examples=60)
@given(data=st.data())
def test_flipped_bits_are_an_error_or_a_description(int8_file, float_file, data):
    damaged = bytearray(data.draw(st.sampled_from([int8_file.data, float_file.data])))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        description = describe(load(bytes(damaged)))
    except ValueError:
        return
    assert sum(description.size_by_category.values()) == len(damaged)


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bits_are_an_error_or_a_report(int8_file, flip, seed):
    try:
        report = verify(load(flip(int8_file.data, seed)), samples_count=2, time_limit=60)
    except ValueError:
        return
    assert isinstance(report, Report)


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_on_the_command_line(command, int8_file, flip, tmp_path, seed):
    path = tmp_path / "flipped.tflite"
    path.write_bytes(flip(int8_file.data, 100 + seed, 2))
    _is_clean(command("inspect", path))
    _is_clean(command("verify", path, "--samples", 2))


def test_damaged_models_are_not_converted(command, saved_net, flip, tmp_path):
    model, output = tmp_path / "damaged.keras", tmp_path / "model.tflite"
    content = saved_net.read_bytes()
    cut = [content[:size] for size in (0, 64, len(content) // 2, len(content) - 64)]
    noise = np.random.default_rng(0).bytes(500)
    for damaged in [*cut, noise, b"PK\x03\x04" + noise]:
        model.write_bytes(damaged)
        code, out, err = command("convert", model, "--output", output)
        assert (code, out) == (1, "")
        assert err.startswith("tflite_tools: error: ")
        assert not output.exists()
    for seed in range(3):
        model.write_bytes(flip(content, seed, 4))
        code, out, err = command("convert", model, "--output", output)
        assert "Traceback" not in out + err
        assert output.exists() == (code == 0)
        output.unlink(missing_ok=True)
