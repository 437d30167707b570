"""Nets as files, and tools to damage them. Session fixtures are not to be changed."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tflite_tools.commands import cli
from tflite_tools.commands.arguments import parse
from tflite_tools.schema import flatbuffer
from tflite_tools.schema.contents import load, written

layers = keras.layers


@pytest.fixture(scope="session")
def saved_net(trained_net, tmp_path_factory):
    """Path of `trained_net` as a .keras file."""
    path = tmp_path_factory.mktemp("net") / "q.keras"
    trained_net.save(path)
    return path


@pytest.fixture(scope="session")
def int8_file(trained_net):
    """`trained_net` as a file, parsed like all of these."""
    return load(tfbinreg.to_tflite(trained_net))


@pytest.fixture(scope="session")
def float_io_file(trained_net):
    """`trained_net` with float32 inputs and outputs."""
    return load(tfbinreg.to_tflite(trained_net, input_type="float32"))


@pytest.fixture(scope="session")
def float_file(float_net):
    """The float net through the stock converter: no quantization, no manifest."""

    @tf.function(input_signature=[tf.TensorSpec([1, 8, 8, 3])])
    def run(image):
        return float_net(image)

    functions = [run.get_concrete_function()]
    return load(tf.lite.TFLiteConverter.from_concrete_functions(functions, float_net).convert())


@pytest.fixture(scope="session")
def codes(trained_net):
    """The codes of `trained_net`, layer by layer."""
    return {name: coded.codes for name, coded in tfbinreg.integer_codes(trained_net).items()}


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


def packable_net():
    """Kernels of every packable kind, with a thousand weights or more in the hidden ones."""
    keras.utils.set_random_seed(5)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="first")(image)
    x = layers.Conv2D(64, 1, activation="relu", name="pointwise")(x)
    x = layers.DepthwiseConv2D(5, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_bn")(x)
    x = layers.ReLU(name="depthwise_relu")(x)
    x = layers.Conv2D(32, 3, padding="same", strides=2, name="conv")(x)
    x = layers.ReLU(name="conv_relu")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    x = layers.Dense(5, activation="softmax", name="head")(x)
    model = keras.Model(image, x, name="packable")
    random = np.random.default_rng(2)
    gamma, variance = random.uniform(0.5, 1.5, (2, 64))
    beta, mean = random.normal(size=(2, 64)) / 4
    model.get_layer("depthwise_bn").set_weights([gamma, beta, mean, variance])
    return model


@pytest.fixture(scope="session")
def canonical():
    """canonical(bits, per_channel, ...): the int8 file; made once."""

    @functools.cache
    def make(bits, per_channel, input_type="int8", **options):
        model = quantized_packable(weight_bits=bits, per_channel=per_channel, **options)
        return load(tfbinreg.to_tflite(model, input_type=input_type))

    return make


def quantized_packable(**options):
    """The packable net, finalized."""
    inputs = np.random.default_rng(6).normal(size=(32, 8, 8, 3)).astype(np.float32)
    recipe = tfbinreg.Recipe(activation_bits=4, **options)
    model = tfbinreg.quantize_apply(packable_net(), recipe, calibration_data=inputs)
    tfbinreg.finalize(model, inputs, target="tflm")
    return model


@pytest.fixture(scope="session")
def saved_packable(tmp_path_factory):
    """Path of the packable net at two bits as a .keras file."""
    path = tmp_path_factory.mktemp("packable") / "q.keras"
    quantized_packable(weight_bits=2, per_channel=True).save(path)
    return path


@pytest.fixture(scope="session")
def two_bits(canonical):
    """The file at two bits with a scale per channel."""
    return canonical(2, True)


@pytest.fixture(scope="session")
def two_inputs():
    """The file, at four bits, of a net with an image and six numbers as inputs."""
    keras.utils.set_random_seed(6)
    image, extra = keras.Input((16, 16, 1), name="image"), keras.Input((6,), name="extra")
    x = layers.Flatten()(layers.Conv2D(8, 3, strides=2, activation="relu")(image))
    x = layers.Concatenate()([x, layers.Dense(8, activation="relu")(extra)])
    x = layers.Dense(4, activation="softmax")(layers.Dense(16, activation="relu")(x))
    random = np.random.default_rng(7)
    data = [random.random((32, *shape), "float32") for shape in ((16, 16, 1), (6,))]
    model = tfbinreg.quantize_apply(
        keras.Model([image, extra], x), weight_bits=4, calibration_data=data
    )
    tfbinreg.finalize(model, data, target="tflm")
    return load(tfbinreg.to_tflite(model))


@pytest.fixture
def model_file(int8_file, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(int8_file.data)
    return path
