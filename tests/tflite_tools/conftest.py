"""A trained net as files, and tools to damage them. Session fixtures are not to be changed."""

import numpy as np
import pytest
import tensorflow as tf

import tfbinreg
from tflite_tools import cli, flatbuffer
from tflite_tools.arguments import parse


@pytest.fixture(scope="session")
def saved_net(trained_net, tmp_path_factory):
    """Path of `trained_net` as a .keras file."""
    path = tmp_path_factory.mktemp("net") / "q.keras"
    trained_net.save(path)
    return path


@pytest.fixture(scope="session")
def int8_file(trained_net):
    """`trained_net` as the bytes of a .tflite file."""
    return tfbinreg.to_tflite(trained_net)


@pytest.fixture(scope="session")
def float_io_file(trained_net):
    """`trained_net` with float32 inputs and outputs."""
    return tfbinreg.to_tflite(trained_net, input_type="float32")


@pytest.fixture(scope="session")
def float_file(float_net):
    """The float net through the stock converter: no quantization, no manifest."""

    @tf.function(input_signature=[tf.TensorSpec([1, 8, 8, 3])])
    def run(image):
        return float_net(image)

    functions = [run.get_concrete_function()]
    return tf.lite.TFLiteConverter.from_concrete_functions(functions, float_net).convert()


@pytest.fixture(scope="session")
def codes(trained_net):
    """The codes of `trained_net`, layer by layer."""
    return {name: coded.codes for name, coded in tfbinreg.integer_codes(trained_net).items()}


@pytest.fixture
def edit():
    """Changes a file: edit(data, change) calls change(container), edits in place."""

    def edited(data, change):
        container = flatbuffer.read(data)
        change(container)
        return flatbuffer.write(container)

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
