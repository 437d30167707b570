"""A file of two inputs and two outputs, and its example that runs on this computer."""

import pathlib

import pytest
from package_examples import built

from tflite_tools.c import generate, packages
from tflite_tools.device import conversation, measure
from tflite_tools.running import runtime, samples
from tflite_tools.schema.contents import load
from tflite_tools.system import files

SEVERAL = pathlib.Path(__file__).parents[2] / "golden" / "joined" / "int8.tflite"


@pytest.fixture(scope="session")
def several():
    return load(SEVERAL.read_bytes())


@pytest.fixture(scope="session")
def wanted(several):
    if not runtime.available(runtime.TFLM):
        pytest.skip("tflite_micro is not installed")
    inputs = samples.stored(several, samples.seeded(several, samples=4, seed=0))
    return measure.expected(several, inputs)


@pytest.fixture(scope="session")
def sources(several):
    return generate.generate(several, name="two_ways")


@pytest.fixture(scope="session")
def example(several, sources, tmp_path_factory):
    """The program of a package's example, with checks of addresses and undefined behaviour."""
    folder = tmp_path_factory.mktemp("served")
    made = packages.pack(sources, several, name="two_ways", package="cmsis-pack")
    files.write_folder(folder / "pack", {name: text.encode() for name, text in made.items()})
    checks = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wconversion")
    return built(folder / "pack", "cmsis-pack", folder, *checks)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Tests do not wait."""
    monkeypatch.setattr(conversation, "_HELLO_EVERY", 0.03)
    monkeypatch.setattr(conversation, "_QUIET", 0.001)
