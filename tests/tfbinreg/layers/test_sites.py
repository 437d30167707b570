import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg.core.grid import Grid
from tfbinreg.layers import sites as doors
from tfbinreg.layers.sites import activation_sites, kernel_sites, sites


@pytest.fixture
def small():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [layers.Input((3,), name="row"), layers.Dense(4, name="a"), layers.Dense(2, name="b")]
    )
    return tfbinreg.quantize_apply(net, calibration_data=np.ones((4, 3), np.float32))


def test_kernels_come_in_layer_order_with_the_float_layers_names(quantized_net):
    found = kernel_sites(quantized_net)
    assert [site.name for site in found] == ["conv", "depthwise", "pointwise", "head"]
    for site in found:
        assert site.latent is site.layer.kernels[0].weight
        assert site.step is site.variables["step"]
        assert site.codes().shape == site.latent.shape


def test_each_activation_grid_is_one_site(quantized_net):
    assert [site.name for site in activation_sites(quantized_net)] == [
        "image_grid", "conv_relu_grid", "depthwise_bn_grid", "add_relu_grid",
        "pointwise_relu_grid", "mean_grid", "head_grid",
    ]  # fmt: skip
    assert all(site.latent is None for site in activation_sites(quantized_net))


def test_all_sites_are_kernels_then_activations(quantized_net):
    names = [site.name for site in sites(quantized_net)]
    assert names == [
        site.name for site in kernel_sites(quantized_net) + activation_sites(quantized_net)
    ]


def test_grid_and_codes_speak_of_the_same_numbers(quantized_net):
    for site in kernel_sites(quantized_net):
        grid, codes = site.grid(), site.codes()
        assert grid.bits == site.quantizer.bits
        assert grid.qmin <= codes.min() <= codes.max() <= grid.qmax
        np.testing.assert_array_equal(codes, grid.codes(site.latent.numpy()))


def test_a_float_model_has_no_sites(float_net, quantized_net):
    assert sites(float_net) == []
    with pytest.raises(ValueError, match="'residual' is not quantized: call quantize_apply"):
        doors.require_quantized(float_net)
    doors.require_quantized(quantized_net)


def test_activations_have_no_codes(quantized_net):
    with pytest.raises(ValueError, match="'image_grid' is an activation"):
        activation_sites(quantized_net)[0].codes()


def test_broken_kernels_and_steps_are_named(small):
    doors.check_finite(small)
    first, second = kernel_sites(small)
    first.latent.assign(np.full(first.latent.shape, np.nan))
    second.step.assign(np.inf)
    with pytest.raises(ValueError, match="kernel of 'a' has NaN"):
        first.codes()
    with pytest.raises(ValueError, match="step of 'b' is not finite"):
        second.codes()
    activation_sites(small)[0].step.assign(np.nan)
    with pytest.raises(ValueError, match="step of 'row_grid' is not finite"):
        activation_sites(small)[0].grid()
    listed = r"training diverged: a \(kernel\), b \(step\), row_grid \(step\)\.$"
    with pytest.raises(ValueError, match=listed):
        doors.check_finite(small)


def test_codes_that_the_grid_does_not_have_are_named(small):
    site = kernel_sites(small)[0]
    settled = Grid.codebook((-4, -1, 1, 4), site.grid().scale)
    site.quantizer.settle = lambda variables, name: settled
    with pytest.raises(ValueError, match="quantizer of 'a' makes codes that its grid has not"):
        site.codes()


@pytest.mark.parametrize("given", [None, "q.keras"])
def test_what_is_no_model_is_refused(given):
    with pytest.raises(ValueError, match=rf"takes a model from quantize_apply, not {given!r}"):
        tfbinreg.to_tflite(given)
