"""Where the runtimes place the values of a resized axis; test_integer_model compares results."""

import numpy as np
import pytest

from tflite_tools.arithmetic import interpolation

AREAS = {"half_pixel_centers": True, "align_corners": False}
POINTS = {"half_pixel_centers": False, "align_corners": False}
CORNERS = {"half_pixel_centers": False, "align_corners": True}


@pytest.mark.parametrize("axis", [interpolation.tflm, interpolation.xnnpack])
def test_twice_as_many_values_lie_at_exact_places(axis):
    found = axis(3, 6, **AREAS)
    np.testing.assert_array_equal(found.places, [0, 0.25, 0.75, 1.25, 1.75, 2])
    np.testing.assert_array_equal(found.low, [0, 0, 0, 1, 1, 2])
    np.testing.assert_array_equal(axis(3, 6, **POINTS).places, [0, 0.5, 1, 1.5, 2, 2])
    np.testing.assert_array_equal(axis(3, 5, **CORNERS).places, [0, 0.5, 1, 1.5, 2])
    np.testing.assert_array_equal(axis(3, 1, **CORNERS).places, [0])


def test_rounded_distances_add_up_in_tflm():
    tflm, xnnpack = (own(32, 96, **AREAS) for own in (interpolation.tflm, interpolation.xnnpack))
    assert np.abs(tflm.places - xnnpack.places).max() == 1 / 32


def test_places_that_are_not_known():
    with pytest.raises(ValueError, match="TFLM, resizing 1 values to 55, reads behind the last"):
        interpolation.tflm(1, 55, **POINTS)
    with pytest.raises(ValueError, match="LiteRT, resizing 22 values to 119, rounds as the proc"):
        interpolation.xnnpack(22, 119, **AREAS)
