"""Damaged files through every command: an error line, or a clean answer; nothing is left behind.

The fast part goes through every command with what can be told without running a network, and
through a few damaged files that do run. The campaign marked slow takes many more of these.
"""

import os
import signal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tflite_tools.c import generate, host_run

HANGS_AFTER = 300  # seconds; a run of a network ends long before
OUTPUT = "made"
few = settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
some = settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
many = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

# What each command does with the files whole.tflite (canonical), bad.tflite, bad.npz and others in
# the working folder.
CONVERSIONS = {
    "int8": ["convert", "bad.tflite"],
    "int4": ["convert", "bad.tflite", "--format", "int4"],
    "lut": ["convert", "bad.tflite", "--format", "lut"],
    "split": ["convert", "bad.tflite", "--format", "lut", "--split_convs", "9300"],
    "c": ["convert", "bad.tflite", "--format", "c"],
    "slim": ["convert", "bad.tflite", "--slim"],
    "slim for TFLM": ["convert", "bad.tflite", "--slim", "--target", "tflm"],
}
CONVERSIONS = {name: [*line, "--output", OUTPUT] for name, line in CONVERSIONS.items()}
READINGS = {
    "verify": ["verify", "bad.tflite", "--samples", "2"],
    "verify, canonical": ["verify", "bad.tflite", "--canonical", "whole.tflite", "--samples", "2"],
    "verify, reference": ["verify", "bad.tflite", "--reference", "whole.tflite", "--samples", "2"],
    "canonical": ["verify", "whole.tflite", "--canonical", "bad.tflite", "--samples", "2"],
    "canonical of C": ["verify", "c", "--canonical", "bad.tflite", "--samples", "2"],
    "compare": ["compare", "bad.tflite", "whole.tflite", "--samples", "2"],
    "compare second": ["compare", "whole.tflite", "bad.tflite", "--samples", "2"],
    "inspect": ["inspect", "bad.tflite"],
    "inspect, JSON": ["inspect", "bad.tflite", "--json"],
    "report": ["report", "bad.tflite", "--output", OUTPUT, "--samples", "2"],
}
EVERY = CONVERSIONS | READINGS
INPUTS = {
    "verify": ["verify", "whole.tflite", "--inputs", "bad.npz"],
    "compare": ["compare", "whole.tflite", "whole.tflite", "--inputs", "bad.npz"],
    "report": ["report", "whole.tflite", "--inputs", "bad.npz", "--output", OUTPUT],
    "budget": ["convert", "float.keras", "--flash_budget", "1KB", "--data", "bad.npz",
               "--output", OUTPUT],
}  # fmt: skip


class Hang(BaseException):
    """Raised after a time in which everything should have ended."""


@pytest.fixture
def clean(command, tmp_path, monkeypatch):
    """Runs a command line in `tmp_path`; asserts how it ends, returns its exit code."""
    monkeypatch.chdir(tmp_path)

    def stop(*_):
        raise Hang

    def run(line):
        before = set(os.listdir())
        previous = signal.signal(signal.SIGALRM, stop)
        signal.alarm(HANGS_AFTER)
        try:
            code, out, err = command(*line)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, previous)
        assert "Traceback" not in out + err
        if code == 0:
            assert all(text.startswith("tflite_tools: warning: ") for text in err.splitlines())
        elif not (code == 1 and "error: " not in err and ("FAILED" in out or "they differ" in out)):
            assert (code, out) == (1, "")
            assert err.startswith("tflite_tools: ")
            assert "\ntflite_tools: error: " in f"\n{err}"  # perhaps behind notes
        made = set(os.listdir()) - before
        allowed = {OUTPUT, f"{OUTPUT}.json"} if code == 0 or line[0] == "report" else set()
        assert made <= allowed
        for name in made:
            _remove(name)
        return code

    return run


def _remove(name):
    if os.path.isdir(name):
        for inner in os.listdir(name):
            os.remove(os.path.join(name, inner))
        os.rmdir(name)
    else:
        os.remove(name)


@pytest.fixture
def place(int8_file, tmp_path):
    """Puts the whole files where the command lines expect them; returns a function for bad ones."""
    (tmp_path / "whole.tflite").write_bytes(int8_file.data)
    (tmp_path / "c").mkdir()
    for name, text in generate.generate(int8_file).files.items():
        (tmp_path / "c" / name).write_text(text)

    def put(name, content):
        (tmp_path / name).write_bytes(content)

    return put


@st.composite
def flipped(draw, content, most=4, first=8):
    """The content with up to `most` bits changed, behind its first bytes."""
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        damaged[draw(st.integers(first, len(damaged) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(damaged)


@st.composite
def broken(draw, content):
    """The beginning of the content, noise that begins in the same way, or noise."""
    kind = draw(st.sampled_from(["cut", "noise behind the start", "noise"]))
    if kind == "cut":
        return content[: draw(st.integers(0, len(content) - 1))]
    noise = draw(st.binary(max_size=600))
    return noise if kind == "noise" else content[:8] + noise


@pytest.mark.parametrize("name", EVERY)
@some
@given(data=st.data())
def test_broken_files(clean, place, int8_file, name, data):
    place("bad.tflite", data.draw(broken(int8_file.data)))
    assert clean(EVERY[name]) == 1


@pytest.mark.parametrize("name", EVERY)
def test_changed_files(clean, place, int8_file, flip, name):
    place("bad.tflite", flip(int8_file.data, len(name), 3))
    clean(EVERY[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
@many
@given(data=st.data())
def test_changed_files_campaign(clean, place, int8_file, name, data):
    place("bad.tflite", data.draw(flipped(int8_file.data)))
    clean(EVERY[name])


def archive(path, **arrays):
    np.savez(path, **arrays)
    return path.read_bytes()


@pytest.fixture
def samples_file(tmp_path, images, labels):
    """The bytes of good inputs, and the float model beside them."""
    return archive(tmp_path / "bad.npz", image=images[:8], labels=labels[:8])


@pytest.fixture(scope="session")
def saved_float(float_net, tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "net.keras"
    float_net.save(path)
    return path


@pytest.mark.parametrize("name", INPUTS)
@few
@given(data=st.data())
def test_broken_inputs(clean, place, samples_file, saved_float, name, data):
    place("float.keras", saved_float.read_bytes())
    place("bad.npz", data.draw(broken(samples_file)))
    assert clean(INPUTS[name]) == 1


@pytest.mark.parametrize("name", ["verify", "budget"])
def test_changed_inputs(clean, place, samples_file, saved_float, flip, name):
    place("float.keras", saved_float.read_bytes())
    place("bad.npz", flip(samples_file, 1, 2))
    assert clean(INPUTS[name]) == 1  # the archive has checksums


@pytest.mark.parametrize("values", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("name", ["verify", "budget"])
def test_inputs_beyond_all_bounds(clean, place, saved_float, tmp_path, images, name, values):
    place("float.keras", saved_float.read_bytes())
    place("bad.npz", archive(tmp_path / "bad.npz", image=np.full_like(images[:4], values)))
    # Their squares, in a variance, are beyond float32.
    refused = name == "budget" or not np.isfinite(values)
    assert clean(INPUTS[name]) == int(refused)


@pytest.mark.slow
@pytest.mark.parametrize("name", INPUTS)
@many
@given(data=st.data())
def test_changed_inputs_campaign(clean, place, samples_file, saved_float, name, data):
    place("float.keras", saved_float.read_bytes())
    place("bad.npz", data.draw(flipped(samples_file)))
    clean(INPUTS[name])


def keras_lines(suffix):
    """What a damaged Keras model goes through; the second is read as a float model."""
    return {
        "convert": ["convert", f"bad{suffix}", "--output", OUTPUT],
        "reference": ["verify", "whole.tflite", "--reference", f"bad{suffix}", "--samples", "2"],
        "budget": ["convert", f"bad{suffix}", "--flash_budget", "1KB", "--data", "good.npz",
                   "--output", OUTPUT],
    }  # fmt: skip


@pytest.fixture(scope="session")
def saved_h5(trained_net, tmp_path_factory):
    path = tmp_path_factory.mktemp("h5") / "q.h5"
    trained_net.save(path)
    return path


@pytest.fixture
def model_bytes(saved_net, saved_h5, saved_float, tmp_path, images):
    """(suffix, command) -> the bytes of a good model."""
    archive(tmp_path / "good.npz", image=images[:8])

    def read(suffix, name):
        path = saved_net if suffix == ".keras" else saved_h5
        return (saved_float if name == "budget" else path).read_bytes()

    return read


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["convert", "reference", "budget"])
@few
@given(data=st.data())
def test_broken_models(clean, place, model_bytes, suffix, name, data):
    place(f"bad{suffix}", data.draw(broken(model_bytes(suffix, name))))
    assert clean(keras_lines(suffix)[name]) == 1


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_changed_models(clean, place, model_bytes, flip, suffix):
    place(f"bad{suffix}", flip(model_bytes(suffix, "convert"), 5, 4))
    clean(keras_lines(suffix)["convert"])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["convert", "reference", "budget"])
@many
@given(data=st.data())
def test_changed_models_campaign(clean, place, model_bytes, suffix, name, data):
    place(f"bad{suffix}", data.draw(flipped(model_bytes(suffix, name))))
    clean(keras_lines(suffix)[name])


C_LINE = ["verify", "c", "--canonical", "whole.tflite", "--samples", "2"]


def damaged_c(place, int8_file, draw, damage):
    files = generate.generate(int8_file).files
    name = draw(st.sampled_from(sorted(files)))
    damaged = draw(damage(files[name].encode()))
    place(f"c/{name}", damaged)
    return name, damaged


@few
@given(data=st.data())
@pytest.mark.slow
def test_broken_c(clean, place, int8_file, data):
    name, damaged = damaged_c(place, int8_file, data.draw, broken)
    code = clean(C_LINE)
    whole = generate.generate(int8_file).files[name].encode()
    place(f"c/{name}", whole)
    assert code == (0 if host_run.compiler() and damaged.strip() == whole.strip() else 1)


@pytest.mark.slow
@many
@given(data=st.data())
def test_changed_c_campaign(clean, place, int8_file, data):
    name, _ = damaged_c(place, int8_file, data.draw, flipped)
    clean(C_LINE)
    place(f"c/{name}", generate.generate(int8_file).files[name].encode())
