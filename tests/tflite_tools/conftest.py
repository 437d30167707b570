"""Files, made by `files/make.py` so that most tests need no TensorFlow, and tools to damage them.
Session fixtures are not to be changed."""

import functools
import pathlib
import shutil

import numpy as np
import pytest

from tflite_tools.checks.trained_model import Reference
from tflite_tools.commands import cli
from tflite_tools.commands.arguments import parse
from tflite_tools.schema import flatbuffer
from tflite_tools.schema.contents import load, written

FILES = pathlib.Path(__file__).parent / "files"


@functools.cache
def made(name):
    return load((FILES / f"{name}.tflite").read_bytes())


@pytest.fixture(scope="session")
def int8_file():
    """The residual net of `small_nets` at two bits, trained for an epoch."""
    return made("residual")


@pytest.fixture(scope="session")
def float_io_file():
    """The same with float32 inputs and outputs."""
    return made("residual_float32")


@pytest.fixture(scope="session")
def float_file():
    """The float net through the stock converter: no quantization, no manifest."""
    return made("float")


@pytest.fixture(scope="session")
def keras_file(tmp_path_factory):
    """Path of the model of `int8_file` as a .keras file, for tests that do not load it."""
    return shutil.copy(FILES / "residual.keras", tmp_path_factory.mktemp("net") / "q.keras")


@pytest.fixture(scope="session")
def saved_net(keras_file):
    """The same for tests that load it."""
    pytest.importorskip("tensorflow")
    return keras_file


@pytest.fixture(scope="session")
def reference():
    """What `verify` compares `int8_file` with, for 24 samples of seed 0."""
    with np.load(FILES / "residual.npz") as arrays:
        parts = {
            part: {
                name.removeprefix(f"{part}/"): arrays[name]
                for name in arrays
                if name.startswith(f"{part}/")
            }
            for part in ("codes", "predictions", "activations")
        }
    return Reference(**parts, target="tflm", exact=True)


@pytest.fixture(scope="session")
def codes(reference):
    """The codes of `int8_file`, layer by layer."""
    return reference.codes


@pytest.fixture(scope="session")
def saved_packable(keras_nets, tmp_path_factory):
    """Path of the packable net at two bits as a .keras file."""
    path = tmp_path_factory.mktemp("packable") / "q.keras"
    keras_nets.quantized_packable(weight_bits=2, per_channel=True).save(path)
    return path


@pytest.fixture
def edit():
    """Changes a file: edit(file, change) calls change(container), edits in place."""

    def edited(file, change):
        container = flatbuffer.read(file.data)
        change(container)
        return written(container)

    return edited


@pytest.fixture
def tensor_of():
    """Finds a tensor of a container by name."""

    def find(container, name):
        named = {flatbuffer.text(t.name): t for t in container.subgraphs[0].tensors}
        return named[name]

    return find


@pytest.fixture
def command(capsys):
    """Runs a command line in this process; returns (exit code, stdout, stderr)."""

    def run(*arguments):
        try:
            code = cli.main(parse(["tflite_tools", *(str(argument) for argument in arguments)]))
        except SystemExit as leaving:
            code = leaving.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def flip():
    """A file with some bits changed: flip(data, seed, count)."""

    def flipped(data, seed, count=1):
        random, damaged = np.random.default_rng(seed), bytearray(data)
        for position in random.integers(8, len(data), count):
            damaged[position] ^= 1 << random.integers(8)
        return bytes(damaged)

    return flipped


@pytest.fixture(scope="session")
def canonical():
    """canonical(bits, per_channel, ...): the int8 file of the packable net of `small_nets`."""

    def find(bits, per_channel, *kind):
        return made("_".join(["packable", str(bits), "ct"[not per_channel], *kind]))

    return find


@pytest.fixture(scope="session")
def two_bits(canonical):
    """The file at two bits with a scale per channel."""
    return canonical(2, True)


@pytest.fixture(scope="session")
def two_inputs():
    """The file, at four bits, of a net with an image and six numbers as inputs."""
    return made("two_inputs")


@pytest.fixture
def model_file(int8_file, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(int8_file.data)
    return path
