"""Nets of convolutions and swish: right files pass `verify` whether or not their models were
finalized, and wrong ones fail."""

import numpy as np
import pytest
from quick import slow

pytest.importorskip("tensorflow")
import tf_keras as keras

import tfbinreg
from tflite_tools.checks.trained_model import verify
from tflite_tools.checks.verdict import Verdict
from tflite_tools.from_keras import convert
from tflite_tools.schema import flatbuffer
from tflite_tools.schema.contents import load

layers = keras.layers
# The bits and the kind of net follow from the seed.
SEEDS = [0, 3, *slow(1, 2)]


def net(seed):
    """Kernels from tiny to large, with and without normalization."""
    keras.utils.set_random_seed(seed)
    spread = keras.initializers.RandomNormal(stddev=(0.05, 0.3, 1.0, 0.1)[seed])
    image = x = keras.Input((6, 6, 3), name="image")
    for number in range(2):
        x = layers.Conv2D(4, 3, kernel_initializer=spread, name=f"conv_{number}")(x)
        if seed % 2:
            x = layers.BatchNormalization()(x)
        x = layers.Activation("swish", name=f"swish_{number}")(x)
    return keras.Model(image, layers.Dense(3, name="head")(layers.Flatten()(x)))


@pytest.fixture(scope="module", params=[SEEDS[0], *slow(*SEEDS[1:])])
def case(request, tmp_path_factory):
    """Inputs, and what a file's activations have to be, of a model that was not finalized."""
    seed = request.param
    images = np.random.default_rng(seed).normal(size=(32, 6, 6, 3)).astype(np.float32)
    recipe = tfbinreg.Recipe(weight_bits=(2, 4, 8, 4)[seed], learned_offset=seed < 2)
    model = tfbinreg.quantize_apply(net(seed), recipe, calibration_data=images)
    path = tmp_path_factory.mktemp("swish") / "q.keras"
    model.save(path)
    with pytest.warns(tfbinreg.QuantizationWarning, match="finalized"):
        file = load(tfbinreg.to_tflite(model))
    return model, file, {"image": images}, convert.reference(path, {"image": images})


def test_a_right_file_passes(case, tmp_path):
    model, file, inputs, reference = case
    assert not reference.exact
    report = verify(file, reference=reference, inputs=inputs)
    assert report["layers"].verdict is Verdict.PASSED, report["layers"].detail
    assert report.passed
    model.finalized.assign(0)
    tfbinreg.finalize(model)
    model.save(tmp_path / "q.keras")
    reference = convert.reference(tmp_path / "q.keras", inputs)
    report = verify(load(tfbinreg.to_tflite(model)), reference=reference, inputs=inputs)
    assert reference.exact and report.passed
    model.finalized.assign(0)


def test_a_wrong_bias_fails(case, edit, tensor_of):
    _, file, inputs, reference = case

    def move(container):
        bias = tensor_of(container, "conv_1/bias")
        output = flatbuffer.scales(tensor_of(container, "conv_1"))
        levels = output[0] / flatbuffer.scales(bias)[0]
        values = flatbuffer.constant(container, bias).copy()
        values[0] += round(2 * levels)  # two levels, in one channel
        flatbuffer.set_constant(container, bias, values)

    report = verify(edit(file, move), reference=reference, inputs=inputs)
    assert report["layers"].verdict is Verdict.FAILED
    assert "conv_1" in report["layers"].layers


def test_a_wrong_product_fails(case, edit):
    _, file, inputs, reference = case

    def square(container):
        operators = container.subgraphs[0].operators
        product = next(op for op in operators if flatbuffer.op_name(container, op) == "MUL")
        product.inputs = [int(product.inputs[0])] * 2

    report = verify(edit(file, square), reference=reference, inputs=inputs)
    assert not report.passed
    assert report["layers"].verdict is Verdict.FAILED
