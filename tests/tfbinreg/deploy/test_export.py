"""The canonical file: structure, numbers, manifest, agreement with the Keras model."""

import json

import numpy as np
import pytest
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter

import tfbinreg
import tflite_tools
from tflite_tools.schema import flatbuffer, manifest

layers = keras.layers


def block(x, filters, stride=1):
    x = layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
    return layers.ReLU(6.0)(layers.BatchNormalization()(x))


def build():
    """Every kind of layer the exporter knows."""
    keras.utils.set_random_seed(0)
    inputs = layers.Input((16, 16, 3))
    x = skip = block(inputs, 8, 2)
    x = layers.ZeroPadding2D(((0, 1), (1, 0)))(x)
    x = layers.DepthwiseConv2D(2, name="depthwise")(x)
    x = layers.Add()([layers.BatchNormalization()(x), skip])
    x = layers.SeparableConv2D(8, 3, padding="same", activation="relu", name="separable")(x)
    x = layers.Dropout(0.1)(layers.AveragePooling2D()(x))
    x = layers.ReLU(name="alone")(layers.Conv2D(8, 1, dilation_rate=2)(x))
    x = layers.MaxPooling2D()(x)
    left = layers.Flatten()(layers.GlobalAveragePooling2D(keepdims=True)(x))
    right = layers.Reshape((8,))(layers.GlobalMaxPooling2D(keepdims=True)(x))
    x = layers.Dense(16, activation="relu")(layers.Add()([left, right]))
    return keras.Model(inputs, layers.Dense(5, activation="softmax")(x), name="net")


@pytest.fixture(scope="module", params=[(2, 8), (4, 4), (8, 8)], ids=["W2A8", "W4A4", "W8A8"])
def trained(request):
    weight_bits, activation_bits = request.param
    model = build()
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([w + random.uniform(-0.4, 0.4, w.shape) for w in layer.get_weights()])
    inputs = random.uniform(0, 1, (200, 16, 16, 3)).astype(np.float32)
    quantized = tfbinreg.quantize_apply(
        model,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        calibration_data=inputs,
    )
    return quantized, inputs, tfbinreg.to_tflite(quantized)


def run(content, inputs):
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    if source["dtype"] == np.int8:
        scale, zero_point = source["quantization"]
        inputs = np.clip(np.floor(inputs / scale + 0.5) + zero_point, -128, 127).astype(np.int8)
    outputs = []
    for image in inputs:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"])[0])
    return np.stack(outputs)


def test_codes_in_the_file_are_the_trained_ones(trained):
    quantized, _, content = trained
    stored = tflite_tools.read_codes(content)
    codes = tfbinreg.integer_codes(quantized)
    assert stored.keys() == codes.keys() and len(codes) == 7
    for name, tensor in codes.items():
        np.testing.assert_array_equal(stored[name], tensor.codes)


def test_every_operator_is_integer(trained):
    model = flatbuffer.read(trained[2])
    (graph,) = model.subgraphs
    for op in graph.operators:
        used = flatbuffer.indices(op.inputs) + flatbuffer.indices(op.outputs)
        assert {flatbuffer.type_name(graph.tensors[i]) for i in used} <= {"INT8", "INT32"}
    names = [flatbuffer.op_name(model, op) for op in graph.operators]
    assert "QUANTIZE" not in names and "DEQUANTIZE" not in names


def test_scales_are_the_trained_ones_to_the_last_bit(trained):
    quantized, _, content = trained
    tensors = {flatbuffer.text(t.name): t for t in flatbuffer.read(content).subgraphs[0].tensors}
    for name, coded in tfbinreg.integer_codes(quantized).items():
        prescale = max(1, 64 // 2 ** (coded.bits - 1))
        scale = np.atleast_1d(coded.scale) / np.float32(prescale)
        np.testing.assert_array_equal(tensors[f"{name}/kernel"].quantization.scale, scale)


def test_outputs_agree_with_the_keras_model(trained):
    quantized, inputs, content = trained
    expected = quantized.predict(inputs, verbose=0)
    actual = (run(content, inputs).astype(np.float32) + 128) / 256
    assert np.mean(np.abs(actual - expected)) <= 1 / 256
    decided = np.sort(expected)[:, -1] - np.sort(expected)[:, -2] > 2 / 256
    assert np.mean(actual.argmax(-1)[decided] == expected.argmax(-1)[decided]) >= 0.99


def test_low_bit_activations_keep_to_their_levels(trained):
    _quantized, inputs, content = trained
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
    (source,) = interpreter.get_input_details()
    scale, zero_point = source["quantization"]
    entries = manifest.find(flatbuffer.read(content)).activations
    seen = {entry.tensor: set() for entry in entries}
    for image in inputs[:20]:
        codes = np.clip(np.floor(image / scale + 0.5) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], codes[None])
        interpreter.invoke()
        for name, values in seen.items():
            values.update(np.unique(interpreter.get_tensor(details[name]["index"])).tolist())
    for entry in entries:
        allowed = range(entry.zero_point + entry.qmin, entry.zero_point + entry.qmax + 1)
        assert seen[entry.tensor] <= set(allowed), entry


def test_float_inputs_and_outputs(trained):
    quantized, inputs, content = trained
    floating = tfbinreg.to_tflite(quantized, input_type="float32")
    outputs = run(floating, inputs[:20])
    assert outputs.dtype == np.float32
    integers = (run(content, inputs[:20]).astype(np.float32) + 128) / 256
    np.testing.assert_array_equal(outputs, integers)
    model = flatbuffer.read(floating)
    names = [flatbuffer.op_name(model, op) for op in model.subgraphs[0].operators]
    assert names.count("QUANTIZE") == names.count("DEQUANTIZE") == 1


def test_the_manifest_tells_how_the_file_was_made(trained):
    quantized, _, content = trained
    header = manifest.find(flatbuffer.read(content))
    assert header.recipe == json.loads(quantized.recipe.to_json())
    assert {"tfbinreg", "tensorflow", "tf_keras"} <= header.versions.keys()
    digests = {
        name: manifest.codes_digest(tensor.codes)
        for name, tensor in tfbinreg.integer_codes(quantized).items()
    }
    assert {entry.name: entry.sha256 for entry in header.layers} == digests


def test_conversion_is_deterministic_and_survives_saving(trained, tmp_path):
    quantized, _, content = trained
    quantized.save(tmp_path / "q.keras")
    assert tfbinreg.to_tflite(tfbinreg.load_model(tmp_path / "q.keras")) == content


def test_unknown_input_type_is_refused(trained):
    with pytest.raises(ValueError, match="int8, float32"):
        tfbinreg.to_tflite(trained[0], input_type="uint4")


@pytest.mark.parametrize("kernel", [np.full((3, 3, 1, 4), 0.7), np.full((3, 3, 1, 4), -1e-6)])
def test_constant_kernels_convert(kernel):
    model = keras.Sequential(
        [layers.Input((6, 6, 1)), layers.Conv2D(4, 3, name="conv"), layers.Flatten(),
         layers.Dense(2)]
    )  # fmt: skip
    model.get_layer("conv").kernel.assign(kernel)
    inputs = np.random.default_rng(0).normal(size=(50, 6, 6, 1)).astype(np.float32)
    recipe = tfbinreg.Recipe(weight_bits=3, first_last_bits=None)
    quantized = tfbinreg.quantize_apply(model, recipe, calibration_data=inputs)
    codes = tflite_tools.read_codes(tfbinreg.to_tflite(quantized))["conv"]
    assert len(np.unique(codes)) == 1 and np.sign(codes.flat[0]) == np.sign(kernel.flat[0])


@pytest.mark.parametrize("input_type", ["int8", "float32"])
def test_inputs_and_outputs_keep_the_models_order(input_type):
    keras.utils.set_random_seed(0)
    right, left = layers.Input((4,), name="right"), layers.Input((6,), name="left")
    joined = layers.Add()([layers.Dense(5, name="a")(left), layers.Dense(5, name="b")(right)])
    first = layers.Dense(2, name="first")(layers.ReLU()(joined))
    second = layers.Dropout(0.5)(layers.Dense(3, name="second")(left))
    model = keras.Model([left, right], [second, first])
    random = np.random.default_rng(0)
    inputs = [random.normal(size=(32, 6)), random.normal(size=(32, 4))]
    inputs = [array.astype(np.float32) for array in inputs]
    quantized = tfbinreg.quantize_apply(model, calibration_data=inputs)
    content = tfbinreg.to_tflite(quantized, input_type=input_type)
    interpreter = Interpreter(model_content=content)
    shapes = [tuple(detail["shape"]) for detail in interpreter.get_input_details()]
    assert shapes == [(1, 6), (1, 4)]
    assert [tuple(d["shape"]) for d in interpreter.get_output_details()] == [(1, 3), (1, 2)]


def test_input_and_output_types_are_independent(trained):
    quantized, inputs, content = trained
    mixed = tfbinreg.to_tflite(quantized, input_type="float32", output_type="int8")
    outputs = run(mixed, inputs[:20])
    assert outputs.dtype == np.int8
    np.testing.assert_array_equal(outputs, run(content, inputs[:20]))
    with pytest.raises(ValueError, match="output_type must be one of int8, float32"):
        tfbinreg.to_tflite(quantized, output_type="uint8")
