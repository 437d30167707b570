"""Every kind of operation: TFLM, given the model's activations, makes the model's next ones."""

import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg.deployed import Deployed
from tfbinreg.kinds import KINDS, Role
from tflite_tools import flatbuffer, runtime, verify
from tflite_tools import layers as operators
from tflite_tools import model as models
from tflite_tools.checks import check_codes
from tflite_tools.verdict import Verdict
from tflite_tools.verify import Reference

layers = keras.layers


def silu(x):
    return layers.Activation("swish")(x)


def squeeze_and_excite(x):
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(6, 1, activation="sigmoid")(gate)
    return layers.Multiply()([x, gate])


def hard_gate(x):
    gate = layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)
    return layers.Multiply()([layers.MaxPooling2D(1)(x), gate])


def dense_block(x):
    for _ in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, layers.Conv2D(3, 3, padding="same")(y)])
    return layers.AveragePooling2D(2)(x)


def one_dimensional(x):
    x = layers.Reshape((16, 24))(x)
    x = layers.SeparableConv1D(6, 3, padding="same", activation="relu")(x)
    return layers.MaxPooling1D(2)(layers.BatchNormalization()(x))


NETS = {
    "Activation": lambda x: layers.Activation("tanh")(layers.Activation("sigmoid")(x)),
    "Add": lambda x: layers.Add()([x, layers.ReLU()(layers.Conv2D(6, 1)(x)), x]),
    "AveragePooling2D": layers.AveragePooling2D(3, 1, padding="same"),
    "BatchNormalization": lambda x: layers.BatchNormalization()(layers.MaxPooling2D(2)(x)),
    "ChannelAffine": hard_gate,
    "Concatenate": dense_block,
    "Conv2DTranspose": layers.Conv2DTranspose(5, 3, 2, "same", activation="relu"),
    "Conv2DTranspose linear": layers.Conv2DTranspose(5, 2, 2),
    "Cropping2D": layers.Cropping2D(((1, 0), (2, 1))),
    "Dropout": layers.Dropout(0.5),
    "GlobalMaxPooling2D": layers.GlobalMaxPooling2D(),
    "HardSwish": lambda x: x * layers.ReLU(6.0)(x + 3.0) / 6.0,
    "LeakyReLU": layers.LeakyReLU(0.1),
    "Multiply": squeeze_and_excite,
    "PReLU": layers.PReLU("normal", shared_axes=(1, 2)),
    "Reshape": one_dimensional,
    "Slice": lambda x: x[:, 1:, ::2, :],
    "Softmax": layers.Softmax(),
    "SpatialDropout2D": layers.SpatialDropout2D(0.5),
    "Subtract": lambda x: layers.Subtract()([x, layers.Conv2D(6, 1)(x)]),
    "UpSampling2D": layers.UpSampling2D((2, 1)),
    "ZeroPadding2D": layers.ZeroPadding2D(1),
    "silu": silu,
}
ELSEWHERE = {"InputLayer", "Conv2D", "DepthwiseConv2D", "Dense", "ReLU", "MaxPooling2D"} | {
    "Flatten", "GlobalAveragePooling2D"
}  # fmt: skip


def fresh(wire):
    """A layer of the table anew, so that no model has called it before."""
    return type(wire).from_config(wire.get_config()) if hasattr(wire, "get_config") else wire


def converted(wire, images):
    """A quantized model with `wire` in its middle, trained a step, and its file."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(image))
    x = layers.Flatten()(wire(x))
    model = keras.Model(image, layers.Dense(3)(x), name="net")
    quantized = tfbinreg.quantize_apply(model, calibration_data=images)
    quantized.compile(keras.optimizers.SGD(0.01), "mse")
    quantized.fit(images, np.zeros((len(images), 3)), verbose=0)
    tfbinreg.finalize(quantized, images, target="tflm")
    return quantized, tfbinreg.to_tflite(quantized)


def verified(quantized, data):
    """The file passes its own checks, with the model's codes and with the manifest's."""
    codes = {name: coded.codes for name, coded in tfbinreg.integer_codes(quantized).items()}
    report = verify.verify(data, reference=Reference(codes=codes), samples_count=8)
    assert report.passed, report
    check = check_codes(data, models.load(data), None)
    assert check.verdict is Verdict.PASSED, check


@pytest.mark.parametrize("name", NETS)
def test_operators_do_what_the_layers_do(name, images):
    quantized, data = converted(fresh(NETS[name]), images)
    model = models.load(data)
    wanted = set(KINDS[name.split()[0]].op.split(" or ")) if name != "silu" else {"MUL"}
    assert wanted & ({op.name for op in model.main.ops} | {"none"})
    assert all(op.name not in ("QUANTIZE", "DEQUANTIZE") for op in model.main.ops)
    activations = {
        layer: np.asarray(values)
        for layer, values in Deployed(quantized).activations([images[:16]]).items()
    }
    check = operators.check_layers(
        data, model, activations, runtime_name=runtime.TFLM, exact=True, time_limit=60
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
    changed = flatbuffer.write(container)
    check = check_codes(changed, models.load(changed), None)
    assert check.verdict is Verdict.FAILED
    assert f"{fixed[0].name}: the codes do not match" in check.detail


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
