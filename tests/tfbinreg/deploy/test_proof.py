"""A file that is not what was frozen does not leave `to_tflite`, whatever part of it is wrong."""

import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg.deploy import export, proof, tflite_file
from tfbinreg.deploy.freeze import freeze
from tflite_tools.schema import flatbuffer, manifest

layers = keras.layers


@pytest.fixture(scope="module")
def quantized():
    """Two inputs, two outputs, and operators with every kind of parameter."""
    keras.utils.set_random_seed(0)
    image, extra = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="extra")
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = layers.PReLU("normal", shared_axes=(1, 2), name="prelu")(x)
    x = layers.Conv2DTranspose(4, 2, 2, activation="relu", name="up")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(layers.ZeroPadding2D(1, name="pad")(x))
    x = layers.Add(name="add")([layers.Dense(4, name="left")(x), extra])
    y = layers.Activation("gelu", name="gelu")(x)
    model = keras.Model([image, extra], [layers.Dense(3, name="first")(y), x])
    random = np.random.default_rng(0)
    data = [random.normal(size=(32, 8, 8, 3)), random.normal(size=(32, 4))]
    data = [array.astype(np.float32) for array in data]
    recipe = tfbinreg.Recipe(weight_bits=4, activation_bits=4, per_channel=True)
    return tfbinreg.quantize_apply(model, recipe, calibration_data=data)


def tensor(container, name):
    (graph,) = container.subgraphs
    return next(t for t in graph.tensors if flatbuffer.text(t.name) == name)


def operator(container, name):
    return next(
        op for op in container.subgraphs[0].operators if flatbuffer.op_name(container, op) == name
    )


def change_constant(name):
    def damage(container):
        found = tensor(container, name)
        values = flatbuffer.constant(container, found).copy()
        values.flat[0] ^= 16
        flatbuffer.set_constant(container, found, values)

    return damage


def change_scale(name):
    def damage(container):
        found = tensor(container, name).quantization
        found.scale = np.nextafter(np.asarray(found.scale, np.float32), np.float32(9))

    return damage


def change_zero_point(name):
    def damage(container):
        found = tensor(container, name).quantization
        found.zeroPoint = np.asarray(found.zeroPoint) + 1

    return damage


def change_option(name, field, value):
    def damage(container):
        assert getattr(operator(container, name).builtinOptions, field) != value
        setattr(operator(container, name).builtinOptions, field, value)

    return damage


def swap_inputs_of_add(container):
    operator(container, "ADD").inputs = list(operator(container, "ADD").inputs)[::-1]


def swap(what):
    def damage(container):
        graph = container.subgraphs[0]
        setattr(graph, what, list(getattr(graph, what))[::-1])

    return damage


def rename(name):
    def damage(container):
        tensor(container, name).name = "other"

    return damage


def rename_in_signature(container):
    container.signatureDefs[0].outputs[0].name = "other"


def change_manifest(container):
    header = flatbuffer.metadata(container, manifest.METADATA_NAME)
    changed = header.replace(b'"bits": 4', b'"bits": 3', 1)
    assert changed != header
    flatbuffer.set_metadata(container, manifest.METADATA_NAME, changed)


def drop_manifest(container):
    container.metadata = []


def repeat_operator(container):
    graph = container.subgraphs[0]
    graph.operators = [*graph.operators, graph.operators[-1]]


def leave_relu_out(container):
    conv, relu = operator(container, "TRANSPOSE_CONV"), operator(container, "RELU")
    assert list(relu.inputs) == list(conv.outputs)
    conv.outputs = relu.outputs
    container.subgraphs[0].operators.remove(relu)


def change_operator(container):
    operator(container, "ADD").opcodeIndex = operator(container, "MEAN").opcodeIndex


def change_shape(container):
    tensor(container, "mean").shape = [4, 1]


def change_cast(container):
    operator(container, "CAST").opcodeIndex = operator(container, "MEAN").opcodeIndex


def leave_places_out(container):
    graph = container.subgraphs[0]
    adds = [op for op in graph.operators if flatbuffer.op_name(container, op) == "ADD"]
    graph.operators.remove(adds[-1])


DAMAGE = {
    "codes": (change_constant("conv/kernel"), "conv: codes differs"),
    "codes of a plain kernel": (change_constant("left/kernel"), "left: codes differs"),
    "bias": (change_constant("conv/bias"), "conv: bias differs"),
    "slopes": (change_constant("prelu/alpha"), "prelu: slopes differs"),
    "table": (change_constant("gelu/table"), "gelu: table differs"),
    "first place": (change_constant("gelu/add/first"), "gelu: the constants of ADD differ"),
    "type of places": (change_option("CAST", "outDataType", 4), "gelu: outDataType is 4, not 2"),
    "operator of places": (change_cast, "gelu: operator is 'MEAN', not 'CAST'"),
    "no places": (leave_places_out, "gelu: it has no ADD"),
    "paddings": (change_constant("pad/paddings"), "pad: pad/paddings differs"),
    "axes": (change_constant("mean/axes"), "mean: mean/axes differs"),
    "scale of weights": (change_scale("up/kernel"), "up: scale of the weights differs"),
    "scale of a bias": (change_scale("first/bias"), "first: scale of the bias differs"),
    "scale of slopes": (change_scale("prelu/alpha"), "prelu: scale of the slopes differs"),
    "zero point of weights": (change_zero_point("conv/kernel"), "zero point of the weights"),
    "scale": (change_scale("add"), "add: scale differs"),
    "scale of an input": (change_scale("image"), "image: scale differs"),
    "scale before a ReLU": (change_scale("up/linear"), "up: scale differs"),
    "ReLU": (leave_relu_out, "up: ReLU is 'TRANSPOSE_CONV', not 'RELU'"),
    "zero point": (change_zero_point("mean"), "mean: zero point differs"),
    "shape": (change_shape, "mean: shape is"),
    "stride": (change_option("CONV_2D", "strideW", 2), "conv: strideW is 2, not 1"),
    "padding": (change_option("CONV_2D", "padding", 0), "conv: padding is 0, not 1"),
    "activation": (
        change_option("CONV_2D", "fusedActivationFunction", 0),
        "conv: fusedActivationFunction is 0, not 1",
    ),
    "operator": (change_operator, "add: operator is 'MEAN', not 'ADD'"),
    "connection": (swap_inputs_of_add, "add: inputs is"),
    "order of inputs": (swap("inputs"), "inputs is"),
    "order of outputs": (swap("outputs"), "outputs is"),
    "name": (rename("conv"), "conv: the file has no such tensor"),
    "name in the signature": (rename_in_signature, "names of the outputs is"),
    "operator too many": (repeat_operator, "the file has"),
    "bits in the manifest": (change_manifest, "manifest is"),
    "manifest": (drop_manifest, "no tfbinreg manifest"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_every_part_is_proved(quantized, name, monkeypatch):
    damage, message = DAMAGE[name]

    def write(graph, **options):
        container = flatbuffer.read(tflite_file.write(graph, **options))
        damage(container)
        return flatbuffer.write(container)

    monkeypatch.setattr(export, "write", write)
    with pytest.raises(RuntimeError, match="is not what was frozen") as error:
        tfbinreg.to_tflite(quantized)
    assert message in str(error.value)


def test_a_file_that_litert_does_not_take_is_not_returned(quantized, monkeypatch):
    class Refusing:
        def __init__(self, model_content):
            pass

        def allocate_tensors(self):
            raise RuntimeError("failed to prepare")

    monkeypatch.setattr(proof, "Interpreter", Refusing)
    with pytest.raises(RuntimeError, match="LiteRT does not take the file: failed to prepare"):
        tfbinreg.to_tflite(quantized)


def test_what_was_written_passes(quantized):
    graph = freeze(quantized)
    for types in ("int8", "float32"):
        proof.prove(tflite_file.write(graph, input_type=types, output_type=types), graph)
