"""Every kind of operation: TFLM, given the model's activations, makes the model's next ones."""

import re

import numpy as np
import pytest
import tf_keras as keras
from operation_nets import NETS, converted, fresh
from quick import slow

import tfbinreg
from tfbinreg.deploy.deployed import Deployed
from tfbinreg.network.layer_kinds import KINDS, Role
from tflite_tools.checks import operator_checks as operators
from tflite_tools.checks import trained_model
from tflite_tools.checks.static import check_codes
from tflite_tools.checks.trained_model import Reference
from tflite_tools.checks.verdict import Verdict
from tflite_tools.running import runtime
from tflite_tools.schema import contents as models
from tflite_tools.schema import flatbuffer

layers = keras.layers


ELSEWHERE = {"InputLayer", "Conv2D", "DepthwiseConv2D", "Dense", "ReLU", "MaxPooling2D"} | {
    "Flatten", "GlobalAveragePooling2D"
}  # fmt: skip


def verified(quantized, data):
    """The file passes its own checks, with the model's codes and with the manifest's."""
    codes = {name: coded.codes for name, coded in tfbinreg.integer_codes(quantized).items()}
    file = models.load(data)
    report = trained_model.verify(file, reference=Reference(codes=codes), samples_count=8)
    assert report.passed, report
    check = check_codes(file, None)
    assert check.verdict is Verdict.PASSED, check


# test_deployed compares all of them as wholes.
QUICK = ("AveragePooling2D", "Softmax")


@pytest.mark.parametrize(
    "name", [*(n for n in NETS if n in QUICK), *slow(*(n for n in NETS if n not in QUICK))]
)
def test_operators_do_what_the_layers_do(name, images):
    quantized, data = converted(fresh(NETS[name]), images)
    model = models.load(data)
    wanted = set(re.split(r" or | \+ ", KINDS[name.split()[0]].op)) if name != "silu" else {"MUL"}
    assert wanted & ({op.name for op in model.main.ops} | {"none"})
    assert all(op.name not in ("QUANTIZE", "DEQUANTIZE") for op in model.main.ops)
    activations = {
        layer: np.asarray(values)
        for layer, values in Deployed(quantized).activations([images[:16]]).items()
    }
    check = operators.check_layers(
        model, activations, runtime_name=runtime.TFLM, exact=True, time_limit=60
    )
    assert check.verdict is Verdict.PASSED, check
    verified(quantized, data)


FIXED = {
    "Average": lambda x: layers.Average()([x, layers.Conv2D(3, 1)(x)]),
    "Rescaling": layers.Rescaling(1 / 16, offset=-1),
    "BatchNormalization": layers.BatchNormalization(),
    "Normalization": layers.Normalization(mean=[0.5] * 3, variance=[2.0] * 3),
}


@pytest.mark.parametrize("name", FIXED)
def test_kernels_that_are_not_trained_are_verified(name, images):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Flatten()(layers.Conv2D(4, 3, padding="same")(fresh(FIXED[name])(image)))
    model = keras.Model(image, layers.Dense(3)(x))
    quantized = tfbinreg.quantize_apply(model, weight_bits=2, calibration_data=images)
    tfbinreg.finalize(quantized, images)
    data = tfbinreg.to_tflite(quantized)
    fixed = models.load(data).require_manifest().fixed
    assert len(fixed) == 1
    verified(quantized, data)
    container = flatbuffer.read(data)
    tensor = next(
        t for t in container.subgraphs[0].tensors if flatbuffer.text(t.name) == fixed[0].tensor
    )
    values = flatbuffer.constant(container, tensor).copy()
    values.flat[0] ^= 1
    flatbuffer.set_constant(container, tensor, values)
    check = check_codes(models.written(container), None)
    assert check.verdict is Verdict.FAILED
    assert f"{fixed[0].name}: the codes do not match" in check.detail


@pytest.mark.slow
def test_several_relus_of_one_convolution(images):
    def twice(x):
        return layers.Add()([layers.Conv2D(6, 1)(layers.ReLU()(x)), layers.ReLU()(x)])

    _, data = converted(twice, images)  # to_tflite compares the codes
    ops = [op.name for op in models.load(data).main.ops]
    assert ops.count("CONV_2D") == 2
    assert "RELU" not in ops


def test_every_kind_is_here():
    named = {name.split()[0] for name in NETS}
    # What acts in training only is in test_training_layers.
    kept = {
        name for name, kind in KINDS.items() if kind.role is not Role.REWRITE and kind.op != "none"
    }
    assert kept - ELSEWHERE <= named
