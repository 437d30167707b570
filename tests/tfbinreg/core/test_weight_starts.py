"""Start values of weight steps."""

import numpy as np
import pytest
from reference import least_squares_step

import tfbinreg
from tfbinreg.core.grid import weight_code_range
from tfbinreg.core.weight_starts import STARTS, start_step, start_step_of_bits


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def error(weights, step, qmin, qmax):
    codes = np.clip(np.floor(weights / step + 0.5), qmin, qmax)
    return np.sum((weights - codes * step) ** 2)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("draw", ["normal", "laplace", "uniform", "lopsided"])
def test_mse_is_the_least_error(bits, draw):
    random = np.random.default_rng(bits)
    weights = np.abs(random.normal(size=60)) if draw == "lopsided" else getattr(random, draw)(
        size=60
    )  # fmt: skip
    weights = weights.astype(np.float32).astype(np.float64)
    qmin, qmax = weight_code_range(bits)
    _, least = least_squares_step(weights.tolist(), qmin, qmax, count=4001)
    found = float(start_step(weights, qmin, qmax, how="mse"))
    # With more codes than weights every few steps are a valley, each about as deep.
    assert error(weights, found, qmin, qmax) <= (1.3 if bits == 8 else 1.02) * least


def test_normal_weights_at_two_bits():
    weights = normal(100_000)
    assert start_step(weights, -2, 1, how="mse") == pytest.approx(1.05, rel=0.03)
    assert start_step(weights, -2, 1, how="lsq") == pytest.approx(1.6, rel=0.01)


def test_range_covers_every_weight():
    weights = np.float32([-1.0, 0.3, 0.4])
    assert start_step(weights, -2, 1, how="range") == np.float32(0.5)
    assert start_step(-weights, -2, 1, how="range") == np.float32(1.0)


@pytest.mark.parametrize("how", STARTS)
def test_channels_are_independent(how):
    kernel = normal(3, 3, 2, 5) * np.float32([1, 10, 0.1, 1, 3])
    steps = start_step(kernel, -8, 7, 3, how=how)
    assert steps.shape == (5,) and steps.dtype == np.float32
    for channel in range(5):
        alone = start_step(kernel[..., channel], -8, 7, how=how)
        assert steps[channel] == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("how", STARTS)
@pytest.mark.parametrize("axis", [None, 1])
def test_zeros_and_broken_weights(how, axis):
    mixed = np.float32([[0.5, 0.0, -1.0], [0.5, 0.0, 1.0]])
    assert np.all(start_step(mixed, -2, 1, axis, how=how) > 0)
    assert not np.any(start_step(np.zeros((2, 3)), -2, 1, axis, how=how))
    assert np.all(np.isnan(start_step(np.full((2, 3), np.inf), -2, 1, axis, how=how)))


def test_large_kernels_are_searched_on_a_sample_and_refined_on_all():
    kernel = normal(3, 3, 64, 256)
    found = float(start_step(kernel, -2, 1, how="mse"))
    nearby = [error(kernel, found * ratio, -2, 1) for ratio in (0.97, 1.0, 1.03)]
    assert nearby[1] == min(nearby)


@pytest.mark.parametrize("how", STARTS)
def test_the_recipe_decides(make_net, how):
    recipe = tfbinreg.Recipe(weight_bits=2, weight_start=how)
    model = tfbinreg.quantize_apply(make_net(), recipe)
    site = next(s for s in tfbinreg.layers.sites.kernel_sites(model) if s.name == "depthwise")
    wanted = start_step(site.latent.numpy(), -2, 1, how=how)
    assert site.step.numpy() == wanted
    assert tfbinreg.Recipe.from_json(recipe.to_json()) == recipe


def test_other_starts_are_refused():
    with pytest.raises(ValueError, match="weight_start must be one of mse, lsq, range, got 'max'"):
        tfbinreg.Recipe(weight_start="max")


@pytest.mark.parametrize("how", STARTS)
def test_signs_start_at_the_mean_which_is_their_least_squared_error(how):
    weights = normal(200).astype(np.float64)
    found = float(start_step_of_bits(weights, 1, how=how))
    assert found == pytest.approx(np.abs(weights).mean(), rel=1e-6)
    tried = np.linspace(0.5, 1.5, 1001) * found
    errors = [np.sum((weights - np.where(weights < 0, -step, step)) ** 2) for step in tried]
    assert tried[np.argmin(errors)] == pytest.approx(found)
    rows = normal(3, 40)
    np.testing.assert_allclose(start_step_of_bits(rows, 1, 0, how=how), np.abs(rows).mean(axis=1))


@pytest.mark.parametrize("how", STARTS)
def test_channels_start_as_kernels_of_their_bits(how):
    kernel, bits = normal(3, 3, 7, 1), (2, 0, 1, 8, 2, 1, 4)
    steps = start_step_of_bits(kernel, bits, 2, how=how)
    assert steps.dtype == np.float32
    alone = [
        start_step_of_bits(kernel[:, :, channel], own, how=how)
        for channel, own in enumerate(bits)
        if own
    ]
    np.testing.assert_array_equal(np.delete(steps, 1), alone)
    assert steps[1] == np.float32(np.mean(np.float32(alone)))
    for own in (3, 8):
        np.testing.assert_array_equal(
            start_step_of_bits(kernel, own, 2, how=how),
            start_step(kernel, *weight_code_range(own), 2, how=how),
        )


def test_channels_without_weights():
    kernel = normal(5, 4)
    kernel[:, 2] = 0.0  # the only one of 3 bits
    steps = start_step_of_bits(kernel, (1, 1, 3, 0), 1, how="mse")
    assert steps[2] == steps[3] == steps[:2].mean()
    assert start_step_of_bits(kernel, (0,) * 4, 1, how="mse").tolist() == [1.0] * 4
    assert not start_step_of_bits(np.zeros((5, 2)), (1, 0), 1, how="mse").any()
    kernel[0, 0] = np.nan
    assert np.isnan(start_step_of_bits(kernel, (1, 2, 3, 0), 1, how="mse")[0])
