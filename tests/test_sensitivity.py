import numpy as np
import pytest

from tfbinreg import Recipe, Rule
from tfbinreg.sensitivity import WIDTHS, _rounded, best_step, sensitivities


def test_every_kernel_is_measured_at_every_width(float_net, images):
    recipe = Recipe(rules=[Rule(layer="head", weight_bits=5)])
    found = {part.layer: part for part in sensitivities(float_net, images, recipe=recipe)}
    assert list(found) == ["conv", "depthwise", "pointwise", "head"]
    assert (found["conv"].parameters, found["conv"].channels) == (3 * 3 * 3 * 4, 4)
    assert set(found["conv"].moved) == set(WIDTHS)
    assert (found["head"].moved, found["head"].fixed) == ({5: 0.0}, True)


@pytest.mark.parametrize("bits", WIDTHS)
def test_rounding_has_few_levels_and_little_error(bits):
    kernel = np.random.default_rng(0).normal(size=500).astype(np.float32)
    values = _rounded(kernel, best_step(kernel, bits), bits)
    assert len(np.unique(values)) <= 2**bits
    assert np.mean((values - kernel) ** 2) < {2: 0.2, 3: 0.06, 4: 0.02, 8: 1e-4}[bits]
    assert best_step(np.zeros(3, np.float32), bits) == 1.0
