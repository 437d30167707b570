"""Constants of three bytes a channel: what moves, by how much, and that C has them."""

import re

import numpy as np
import pytest
import tf_keras as keras
from normalized_net import GAMMAS, build

import tfbinreg
from tfbinreg.deploy.freeze import freeze
from tflite_tools.arithmetic import multipliers
from tflite_tools.c import generate
from tflite_tools.running import runtime, samples
from tflite_tools.schema.contents import load


def kernels(model, short):
    graph = freeze(model, short_constants=short)
    return {
        op.name: (op.kernel, float(graph.source_grid(op).scale), float(op.grid.scale))
        for op in graph.ops
        if op.kernel is not None
    }


def forms(file):
    """The flags of the layers in the C of a file."""
    text = generate.generate(file).files["model.c"]
    return [int(form) for form in re.findall(r"\.form = (\d+)", text)]


@pytest.mark.parametrize("gamma", GAMMAS.values(), ids=GAMMAS.keys())
def test_outputs_move_by_a_fraction_of_a_level(gamma):
    model, _ = build(gamma, bias=True, depthwise=True)
    plain, short = (kernels(model, own) for own in (False, True))
    for name, (kernel, source, target) in short.items():
        before = plain[name][0]
        np.testing.assert_array_equal(kernel.codes, before.codes)
        np.testing.assert_allclose(kernel.scale, before.scale, rtol=8.5 / 256)
        levels = source / target / kernel.prescale
        moved = kernel.bias * kernel.scale * levels - before.bias * before.scale * levels
        # An eighth of a level, and half a unit of the plain bias.
        assert np.all(np.abs(moved) <= 0.125 + 0.5 * before.scale * levels + 1e-6)


@pytest.mark.parametrize("options", [{}, {"depthwise": True}], ids=str)
def test_model_file_and_c_agree(options, tmp_path):
    model, inputs = build(GAMMAS["negative"], **options)
    report = tfbinreg.finalize(model, inputs, target="tflm", short_constants=True)
    assert report.long_constants == () and "three bytes a channel" in str(report)
    model.save(tmp_path / "q.keras")
    again = tfbinreg.load_model(tmp_path / "q.keras")
    outputs = again.predict(inputs, verbose=0)
    np.testing.assert_array_equal(outputs, model.predict(inputs, verbose=0))
    content = tfbinreg.to_tflite(again)
    assert content == tfbinreg.to_tflite(model)
    file = load(content)
    assert any(form & 128 for form in forms(file))
    if runtime.available(runtime.TFLM):
        [name] = samples.input_names(file)
        [codes] = runtime.run(
            file, samples.stored(file, {name: inputs}), runtime=runtime.TFLM
        ).outputs
        grid = file.main.tensors[file.main.outputs[0]].quantization
        np.testing.assert_array_equal(codes, np.rint(outputs / grid.scale[0]) + grid.zero_point[0])
    tfbinreg.finalize(model, target="tflm")
    assert not any(form & 128 for form in forms(load(tfbinreg.to_tflite(model))))


def test_finalizing_twice_changes_nothing():
    model, _ = build(GAMMAS["positive"], bias=True)
    tfbinreg.finalize(model, target="tflm", short_constants=True)
    first = tfbinreg.to_tflite(model)
    tfbinreg.finalize(model, target="tflm", short_constants=True)
    assert tfbinreg.to_tflite(model) == first


def test_biases_hold_the_zero_points_where_they_can():
    """A convolution with a border has its own biases, one without those C folds."""
    layers = keras.layers
    model = keras.Sequential([layers.Input((6, 6, 3))])
    for padding in ("same", "valid"):
        model.add(layers.Conv2D(8, 3, padding=padding))
        model.add(layers.BatchNormalization())
        model.add(layers.ReLU())
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(np.random.default_rng(0).uniform(0.5, 2.0, 8))
    images = np.random.default_rng(1).normal(size=(32, 6, 6, 3)).astype(np.float32)
    quantized = tfbinreg.quantize_apply(model, weight_bits=4, calibration_data=images)
    report = tfbinreg.finalize(quantized, images, target="tflm", short_constants=True)
    assert report.long_constants == ()
    same, valid = forms(load(tfbinreg.to_tflite(quantized)))
    assert same & 132 == 128 and valid & 132 == 132


def test_scales_that_are_too_far_apart_stay():
    model, _ = build([1.0, 2e-5, 1.0, 0.1])
    report = tfbinreg.finalize(model, target="tflm", short_constants=True)
    kernel, *scales = kernels(model, True)["conv"]
    assert np.ptp([shift for _, shift in multipliers.kernel(kernel.stored_scale, *scales)]) > 15
    assert report.long_constants == ("conv",) and "stay long: conv" in str(report)
    assert not any(form & 128 for form in forms(load(tfbinreg.to_tflite(model))))


def test_they_take_the_target_of_c():
    model, _ = build(GAMMAS["positive"])
    with pytest.raises(ValueError, match="has to be the target, not 'litert'"):
        tfbinreg.finalize(model, short_constants=True)
