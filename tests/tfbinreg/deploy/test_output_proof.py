"""A file with which LiteRT computes something else does not leave `to_tflite`."""

import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg.deploy import export, output_proof, tflite_file
from tfbinreg.deploy.freeze import freeze
from tfbinreg.deploy.output_proof import prove_outputs
from tflite_tools.schema import flatbuffer

layers = keras.layers


@pytest.fixture(scope="module")
def quantized():
    keras.utils.set_random_seed(0)
    image, extra = keras.Input((6, 6, 3), name="image"), keras.Input((4,), name="extra")
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = layers.Dense(4, name="left")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model([image, extra], [layers.Add(name="sum")([x, extra]), layers.Softmax()(x)])
    random = np.random.default_rng(0)
    data = [random.normal(size=(32, 6, 6, 3)), random.normal(size=(32, 4))]
    model = tfbinreg.quantize_apply(
        model, weight_bits=2, calibration_data=[array.astype(np.float32) for array in data]
    )
    tfbinreg.finalize(model)
    return model


@pytest.mark.parametrize("output_type", ["int8", "float32"])
@pytest.mark.parametrize("input_type", ["int8", "float32"])
def test_what_was_written_computes_it(quantized, input_type, output_type):
    graph = freeze(quantized)
    prove_outputs(tflite_file.write(graph, input_type=input_type, output_type=output_type), graph)


def test_other_numbers_are_found_even_if_every_part_seemed_right(quantized, monkeypatch):
    def write(graph, **options):
        container = flatbuffer.read(tflite_file.write(graph, **options))
        bias = next(
            t for t in container.subgraphs[0].tensors if flatbuffer.text(t.name) == "left/bias"
        )
        values = flatbuffer.constant(container, bias)
        flatbuffer.set_constant(container, bias, values + 5000)
        return flatbuffer.write(container)

    monkeypatch.setattr(export, "write", write)
    monkeypatch.setattr(export, "prove", lambda data, graph: None)
    with pytest.raises(RuntimeError, match=r"does not compute what was frozen.*'sum': \d+ codes"):
        tfbinreg.to_tflite(quantized)


def test_a_graph_litert_rounds_in_its_own_way_is_not_run(quantized, monkeypatch):
    def refuse(graph, arithmetic):
        raise ValueError("not known")

    monkeypatch.setattr(output_proof, "IntegerModel", refuse)
    prove_outputs(b"", freeze(quantized))
