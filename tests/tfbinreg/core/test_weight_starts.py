"""Start values of weight steps."""

import numpy as np
import pytest
from reference import least_squares_step

import tfbinreg
from tfbinreg.core.grid import weight_code_range
from tfbinreg.core.weight_starts import STARTS, start_step


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
