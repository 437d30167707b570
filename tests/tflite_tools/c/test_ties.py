"""Outputs in the middle of two levels, where the last bit of a factor decides: C is TFLM."""

import numpy as np
import pytest
from file_maker import Maker

from tflite_tools.arithmetic import fixed_point

CASES = 8


def differ(total, *factors):
    """Whether a sum is rounded otherwise with one factor than with another."""
    scaled = {fixed_point.scale(total, *fixed_point.quantize_multiplier(f)) for f in factors}
    return len(scaled) > 1


def dense(random):
    """A kernel of one scale: the product of the scales in float32 would give another level."""
    while True:
        source, weight = random.uniform(0.5, 1.0, 2).astype(np.float32)
        value, code = (int(random.integers(1, 128)) for _ in range(2))
        middle = int(random.integers(10, 120)) + 0.5
        exact = float(source) * float(weight)
        target = np.float32(exact * value * code / middle)
        if differ(value * code, exact / float(target), float(source * weight) / float(target)):
            return source, weight, code, target


def make_dense(maker, random):
    source, weight, code, target = dense(random)
    bias = maker.tensor((1,), (weight * source, 0), data=np.zeros(1, np.int32))
    weights = maker.weights(np.array([[code]]), 8, 1, np.float32([weight]))
    places = [maker.input((1, 256, 1), (float(source), 0)), weights, bias]
    maker.op("FULLY_CONNECTED", places, (256, 1), (float(target), 0), kind="FullyConnectedOptions")


def leaky(random, side):
    """A leaky ReLU whose factor of that side would give another level in float32."""
    while True:
        source, slope = random.uniform(0.1, 0.9, 2).astype(np.float32)
        value = int(random.integers(30, 128)) * side
        middle = int(random.integers(10, 120)) + 0.5
        own = slope if side < 0 else np.float32(1.0)
        target = np.float32(float(source) * float(own) * abs(value) / middle)
        exact = float(source) * float(own) / float(target)
        if differ(value, exact, float(source * own / target)):
            return source, slope, target


def make_leaky(maker, random):
    for side in (1, -1):
        source, slope, target = leaky(random, side)
        place = maker.input((1, 256), (float(source), 0))
        fields = {"alpha": float(slope)}
        grid = (float(target), 0)
        maker.op("LEAKY_RELU", [place], (1, 256), grid, fields, kind="LeakyReluOptions")


@pytest.mark.parametrize("make", [make_dense, make_leaky])
def test_what_lies_in_the_middle_is_rounded_as_in_tflm(make, c_is_tflm):
    maker, random = Maker(), np.random.default_rng(0)
    for _ in range(CASES):
        make(maker, random)
    c_is_tflm(maker.file(), paths=["portable"])
