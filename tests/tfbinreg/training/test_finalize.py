import numpy as np
import pytest
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from normalized_net import GAMMAS, build

import tfbinreg
from tfbinreg.deploy.freeze import freeze, freeze_with_offsets
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.network.added_layers import HardSwish


def bias_fractions(model):
    """How far the real biases are from integers, in int32 units, over all layers."""
    frozen = freeze_with_offsets(model)
    worst = 0.0
    for index, offsets in frozen.offsets.items():
        op = frozen.graph.ops[index]
        source = frozen.graph.source_grid(op)
        unit = float(source.scale) * np.asarray(op.kernel.scale, float) / op.kernel.prescale
        offset = offsets.folded(op.kernel.bias.size).offset
        worst = max(worst, float(np.max(np.abs(offset / unit - op.kernel.bias))))
    return worst


@pytest.mark.parametrize("gamma", GAMMAS.values(), ids=GAMMAS.keys())
def test_biases_become_integers_and_codes_stay(gamma):
    model, _ = build(gamma, bias=True)
    before = {op.name: op.kernel for op in freeze(model).ops if op.kernel is not None}
    assert bias_fractions(model) > 0.05
    tfbinreg.finalize(model)
    assert bias_fractions(model) < 0.05  # float32 cannot hold large ones closer
    for op in freeze(model).ops:
        if op.kernel is not None:
            np.testing.assert_array_equal(op.kernel.codes, before[op.name].codes)
            np.testing.assert_array_equal(op.kernel.bias, before[op.name].bias)


def test_without_beta_the_moving_mean_moves():
    model, _inputs = build([1, 1, 1, 1])
    config = model.get_config()
    for layer in config["layers"]:
        if layer["config"]["name"] == "norm":
            layer["config"]["center"] = False
    other = type(model).from_config(config)
    weights = iter(model.get_weights())
    names = [weight.name for weight in model.weights]
    other.set_weights(
        [w for w, name in zip(weights, names, strict=True) if not name.endswith("beta:0")]
    )
    norm = other.get_layer("norm")
    mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    assert bias_fractions(other) > 0.05
    tfbinreg.finalize(other)
    assert bias_fractions(other) < 0.05
    assert np.all(norm.moving_mean.numpy() != mean)
    np.testing.assert_array_equal(norm.moving_variance, variance)


def test_file_and_model_agree_code_by_code_afterwards():
    model, inputs = build([1.0, -0.5, 2.0, 0.1], bias=True)
    tfbinreg.finalize(model, inputs, batches=1, target="litert")
    interpreter = Interpreter(model_content=tfbinreg.to_tflite(model))
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero_point = source["quantization"]
    codes = np.clip(np.floor(inputs / scale + 0.5) + zero_point, -128, 127).astype(np.int8)
    expected = np.rint(model.predict(inputs, verbose=0) / target["quantization"][0])
    for image, row in zip(codes, expected, strict=True):
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        np.testing.assert_array_equal(interpreter.get_tensor(target["index"])[0], row)


def test_a_float_model_is_refused():
    with pytest.raises(ValueError, match="not quantized"):
        tfbinreg.finalize(keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(2)]))


def test_a_step_below_zero_is_shown_as_it_acts(make_net, images):
    model = tfbinreg.quantize_apply(make_net(), calibration_data=images)
    step = kernel_sites(model)[0].step
    step.assign(-step)
    before = model.predict(images, verbose=0)
    tfbinreg.finalize(model)
    assert step.numpy() > 0
    assert np.max(np.abs(model.predict(images, verbose=0) - before)) < 0.05


def too_fine_net(kind):
    """A net whose layer `fine` has far smaller outputs than its inputs' grid can tell apart."""
    inputs = keras.Input((4, 4, 2))
    outputs = keras.layers.Conv2D(3, 3, activation="relu", name="small")(inputs)
    if kind == "difference":
        other = keras.layers.Conv2D(3, 3, activation="relu", name="other")(inputs)
        outputs = [outputs, other]
    fine = {
        "difference": keras.layers.Subtract(name="fine"),
        "hard_swish": HardSwish(name="fine"),
        "kernel": keras.layers.DepthwiseConv2D(1, name="fine"),
        "norm": keras.layers.BatchNormalization(name="fine"),
    }[kind]
    return keras.Model(inputs, keras.layers.Conv2D(2, 2, name="last")(fine(outputs)))


def outputs_of(data, model):
    """LiteRT's outputs for one input."""
    interpreter = Interpreter(model_content=tfbinreg.to_tflite(model, input_type="float32"))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], data[:1])
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.parametrize("method", ["lsq", "tqt"])
@pytest.mark.parametrize("kind", ["hard_swish", "kernel", "norm", "difference"])
def test_steps_that_no_runtime_computes_become_larger(kind, method):
    data = np.random.default_rng(0).normal(size=(32, 4, 4, 2)).astype(np.float32)
    recipe = tfbinreg.Recipe(method=method)
    model = tfbinreg.quantize_apply(too_fine_net(kind), recipe, calibration_data=data)
    (layer,) = [layer for layer in model.layers if layer.name in ("fine", "fine_grid") and hasattr(
        layer, "grid_variables")]  # fmt: skip
    start = layer.quantizer.covered(layer.grid_variables)
    layer.quantizer.start_from(start / 2.0**20, layer.grid_variables)
    with pytest.raises(ValueError, match=r"fine: the step of its outputs is too small.*finalize"):
        tfbinreg.to_tflite(model)
    with pytest.warns(tfbinreg.QuantizationWarning, match="outputs of fine were too small"):
        tfbinreg.finalize(model)
    np.testing.assert_array_equal(outputs_of(data, model), model(data[:1]))
    report = tfbinreg.finalize(model)  # without a warning
    assert report.statistics is None
