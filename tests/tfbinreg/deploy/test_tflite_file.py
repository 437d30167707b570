"""The file's layout is the stock converter's; names and outputs are the user's."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from operation_nets import NETS, converted, fresh
from quick import slow

import tfbinreg
from tfbinreg.core.grid import Grid
from tfbinreg.deploy import tflite_file
from tfbinreg.deploy.freeze import freeze
from tfbinreg.deploy.frozen import FrozenGraph, FrozenOp
from tflite_tools.schema import contents as models
from tflite_tools.schema import flatbuffer

layers = keras.layers
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
# The stock converter knows no such option, or writes it in another of several equal ways.
FREE = {"newShape", "beginMask", "endMask", "axis", "potScaleInt16", "quantSpec"}


def described(data):
    """Operators, options, shapes and connections of a file, without names and numbers."""
    graph = models.load(data).main
    place = {tensor: number for number, op in enumerate(graph.ops) for tensor in op.outputs}
    return [
        (
            op.name,
            {name: value for name, value in op.options.items() if name not in FREE},
            [place.get(i) for i in op.inputs if graph.tensors[i].data is None],
            [graph.tensors[i].shape for i in (*op.inputs, *op.outputs)],
        )
        for op in graph.ops
    ]


# It adds three tensors, cuts, moves a pooling across an operator and writes functions of one value
# in ways of its own.
OTHERWISE = ("Add", "Slice", "Cropping2D", "ChannelAffine", "ValueFunction")
QUICK = ("Concatenate", "PReLU")
SLOW = [name for name in NETS if name not in (*QUICK, *OTHERWISE)]


@pytest.mark.parametrize("name", [*QUICK, *slow(*SLOW)])
def test_layout_is_the_stock_converters(name, images, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    stock = importlib.import_module("stock")
    quantized, data = converted(fresh(NETS[name]), images)
    reference = stock.stock_converter(freeze(quantized)).convert()
    assert described(data) == described(reference)


@pytest.mark.slow
def test_versions_are_the_stock_converters(images, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    stock = importlib.import_module("stock")
    for name in ("Activation", "Concatenate", "Conv2DTranspose", "Multiply", "Slice", "Reshape"):
        quantized, data = converted(fresh(NETS[name]), images)
        reference = stock.stock_converter(freeze(quantized)).convert()
        assert versions(data) == versions(reference), name


def versions(data):
    container = flatbuffer.read(data)
    return {
        flatbuffer.op_name(container, op): container.operatorCodes[op.opcodeIndex].version
        for op in container.subgraphs[0].operators
    }


def test_equal_outputs_and_inputs_as_outputs_have_tensors_of_their_own():
    image = keras.Input((6, 6, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(image)
    model = keras.Model(image, [x, layers.MaxPooling2D(2)(x), layers.MaxPooling2D(2)(x), x, image])
    data = np.random.default_rng(0).normal(size=(16, 6, 6, 3)).astype(np.float32)
    quantized = tfbinreg.quantize_apply(model, calibration_data=data)
    interpreter = Interpreter(model_content=tfbinreg.to_tflite(quantized))
    details = interpreter.get_output_details()
    shapes = [tuple(detail["shape"][1:]) for detail in details]
    assert shapes == [(4, 4, 4), (2, 2, 4), (2, 2, 4), (4, 4, 4), (6, 6, 3)]
    assert len({detail["index"] for detail in details}) == 5
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    values = np.random.default_rng(1).integers(-128, 128, source["shape"]).astype(np.int8)
    interpreter.set_tensor(source["index"], values)
    interpreter.invoke()
    outputs = [interpreter.get_tensor(detail["index"]) for detail in details]
    np.testing.assert_array_equal(outputs[0], outputs[3])
    np.testing.assert_array_equal(outputs[1], outputs[2])
    np.testing.assert_array_equal(outputs[4], values)


@pytest.mark.parametrize("name", ["hey:)", "x y", "größe", "_acc"])
def test_any_name_is_kept(name):
    inputs = keras.Input((6,), name=name)
    model = keras.Model(inputs, layers.Dense(3, name="a/b")(inputs))
    quantized = tfbinreg.quantize_apply(
        model, calibration_data=np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    )
    interpreter = Interpreter(model_content=tfbinreg.to_tflite(quantized))
    assert [detail["name"] for detail in interpreter.get_input_details()] == [name]
    assert [detail["name"] for detail in interpreter.get_output_details()] == ["a/b"]
    assert interpreter.get_signature_list()["serving_default"]["inputs"] == [name]


def test_sizes_that_are_not_known_are_named():
    grid = Grid(8, True, np.array(0.1), -128, 127)
    graph = FrozenGraph(
        ops=(FrozenOp("image", "InputLayer", (), grid, (None, 4, 1)),),
        inputs=(0,), outputs=(0,), input_names=("image",), output_names=("image",),
    )  # fmt: skip
    with pytest.raises(ValueError, match="not known: image"):
        tflite_file.write(graph)
