"""Folding and integer codes, on models whose BatchNormalization is anything but friendly."""

import numpy as np
import pytest
import tf_keras as keras
from normalized_net import GAMMAS, build
from quick import slow

import tfbinreg
from tfbinreg.core.grid import Grid
from tfbinreg.deploy.freeze import freeze
from tfbinreg.layers.sites import activation_sites, kernel_sites


def folded_output(frozen, model, inputs):
    """Run conv + bias with the frozen numbers in float64, before the output grid."""
    op = next(op for op in frozen.ops if op.name == "conv")
    source = frozen.ops[op.inputs[0]].grid
    kernel = op.kernel.codes.astype(np.float64)
    out = 4
    rows = kernel.reshape(-1, out)
    scale = np.broadcast_to(np.asarray(op.kernel.scale, np.float64), (out,))
    bias = op.kernel.bias * float(source.scale) * scale / op.kernel.prescale
    codes = np.clip(np.floor(inputs / source.scale + 0.5), source.qmin, source.qmax)
    windows = np.lib.stride_tricks.sliding_window_view(codes, (3, 3), axis=(1, 2))
    patches = windows.transpose(0, 1, 2, 4, 5, 3)  # n, y, x, 3, 3, channels
    if op.kind == "DepthwiseConv2D":
        patches = np.repeat(patches, 2, axis=-1).reshape(*patches.shape[:3], 9, out)
        product = np.einsum("nyxkc,kc->nyxc", patches, rows)
    else:
        product = patches.reshape(*patches.shape[:3], -1) @ rows
    return product * float(source.scale) * scale + bias


def keras_output(model, inputs):
    """The same tensor of the Keras model: the normalized, not yet quantized output of conv."""
    probe = keras.Model(model.inputs, model.get_layer("norm").output)
    return probe.predict(inputs, verbose=0)


@pytest.mark.parametrize("gamma", GAMMAS.values(), ids=GAMMAS.keys())
@pytest.mark.parametrize("options", [
    {"per_channel": True}, {"depthwise": True},
    *slow({}, {"depthwise": True, "per_channel": True}, {"bias": True}, {"weight_bits": 8}),
], ids=str)  # fmt: skip
def test_folded_numbers_give_the_keras_output(gamma, options):
    model, inputs = build(gamma, **options)
    frozen = freeze(model)
    expected = keras_output(model, inputs)
    actual = folded_output(frozen, model, inputs)
    kernel = frozen.ops[1].kernel
    bias_unit = float(frozen.ops[0].grid.scale) * float(np.max(kernel.scale)) / kernel.prescale
    rounding = 0.5 * bias_unit + 1e-5 * np.max(np.abs(expected))  # of the bias, and float32's
    assert np.max(np.abs(actual - expected)) < rounding


def test_negative_gamma_negates_codes_and_zero_gamma_clears_them():
    model, _ = build([1.0, 0.5, 0.0, 1.0])
    model.get_layer("norm").gamma.assign([-1.0, 0.5, 0.0, 1.0])  # as training may
    trained = kernel_sites(model)[0].codes()
    deployed = tfbinreg.integer_codes(model)["conv"].codes
    np.testing.assert_array_equal(deployed[..., 0], -trained[..., 0])
    np.testing.assert_array_equal(deployed[..., 1], trained[..., 1])
    assert not deployed[..., 2].any() and trained[..., 2].any()


def test_without_batch_normalization_codes_and_scale_are_the_trained_ones():
    model, _ = build([1, 1, 1, 1], weight_bits=3)
    head = tfbinreg.integer_codes(model)["head"]
    site = next(site for site in kernel_sites(model) if site.name == "head")
    np.testing.assert_array_equal(head.codes, site.codes())
    assert head.scale == site.grid().scale and head.bits == 3 and head.zero_point == 0
    assert head.codes.dtype == np.int8 and head.codes.shape == (4, 3)


def test_two_bit_codes_times_scale_is_the_kernel_the_model_runs():
    model, _ = build([1, 1, 1, 1])
    site = kernel_sites(model)[0]
    quantized = site.quantizer(site.latent.value(), False, site.variables).numpy()
    np.testing.assert_allclose(site.grid().values(site.codes()), quantized, rtol=1e-6)


@pytest.mark.parametrize("name", ["beta", "moving_variance"])
def test_batch_normalization_that_is_not_finite_is_refused_by_name(name):
    model, _ = build([1.0, 1.0, 1.0, 1.0])
    getattr(model.get_layer("norm"), name).assign([0.5, np.nan, 0.5, 0.5])
    with pytest.raises(ValueError, match="conv: its bias or batch normalization has NaN"):
        freeze(model)


def test_a_bias_beyond_32_bits_is_refused_by_name():
    model, _ = build([1.0, 1.0, 1.0, 1e-4])
    norm = model.get_layer("norm")
    norm.beta.assign([0.0, 0.0, 0.0, 1e8])
    with pytest.raises(ValueError, match="conv: the bias of output channel 3 does not fit 32 bits"):
        freeze(model)


def test_never_initialised_activations_are_refused_by_name():
    model, _inputs = build([1, 1, 1, 1])
    activation_sites(model)[1].variables["initialized"].assign(0)
    with pytest.raises(ValueError, match=r"re_lu.*never initialised"):
        freeze(model)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_steps_and_kernels_are_named_together(value):
    model, _ = build([1, 1, 1, 1])
    first, last = kernel_sites(model)
    first.step.assign(value)
    last.latent.assign(np.full(last.latent.shape, value))
    with pytest.raises(ValueError, match=r"conv \(step\), head \(kernel\)"):
        freeze(model)


def test_a_float_model_is_refused():
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="not quantized"):
        freeze(model)


def test_signed_activations_below_eight_bits_are_refused_by_name():
    _model, inputs = build([1, 1, 1, 1])
    head = keras.Sequential(
        [keras.layers.Input((8, 8, 2)), keras.layers.Conv2D(2, 1, name="a"),
         keras.layers.Conv2D(2, 1, name="b"), keras.layers.Flatten(), keras.layers.Dense(2)]
    )  # fmt: skip
    recipe = tfbinreg.Recipe(signed_activation_bits=4)
    quantized = tfbinreg.quantize_apply(head, recipe, calibration_data=inputs)
    with pytest.raises(ValueError, match="a_grid: a signed activation of 4 bits"):
        freeze(quantized)


def test_activations_that_are_not_evenly_spaced_are_refused_by_name():
    model, _inputs = build([1, 1, 1, 1])
    site = activation_sites(model)[1]
    site.quantizer.settle = lambda variables, name: Grid.codebook((-8, -1, 1, 8), 0.1)
    with pytest.raises(ValueError, match=rf"{site.name}.*: an activation with a codebook"):
        freeze(model)
