"""Random nets out of every kind of layer: file, runtimes and C compute what the model computes.

A failure prints the smallest net it was shrunk to, as a program. RANDOM_NETS=1000 tries more.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Any

import numpy as np
import pytest
from exactness import RUNTIMES, check_c, equal, levels, one
from hypothesis import HealthCheck, given, settings
from random_layers import VOCABULARY
from random_nets import MERGES, Net, nets
from random_operations import OPERATIONS
from tensorflow import nest

import tfbinreg
from tfbinreg.frontend.program import layer_name
from tfbinreg.network.layer_kinds import KINDS
from tflite_tools.running import runtime, samples
from tflite_tools.schema import contents as models

CALIBRATED, TESTED = 24, 32
FEW, MANY = 12, int(os.environ.get("RANDOM_NETS", "300"))
WITH_C = 2  # seeds, of ten, of the nets that are compiled too, which takes longest
# What is rightly refused of nets out of supported layers; everything else has to work.
REFUSED = (
    r"shares its grid with tensors without this limit",
    r"is used several times, and each place would fold another kernel",
    r"its kernel \(1, 1\) is smaller than its strides.* LiteRT's rounding is not known there",
)


def test_the_vocabulary_has_every_kind_of_layer():
    # Resizing and UpSampling2D become ResizeBilinear.
    made = {"InputLayer", "Augmentation", "ResizeBilinear"}
    assert {*KINDS} - made <= {*VOCABULARY, *OPERATIONS, *MERGES}


@dataclasses.dataclass
class Tally:
    """How many nets were tried, and how many of them were rightly refused."""

    tried: int = 0
    refused: int = 0


def named(error: ValueError, net: Net) -> bool:
    """Whether an error names a layer of the net, or an operation, which has no name in it."""
    names = re.findall(r"name='(.*?)'", repr(net))
    if "Cannot quantize" not in str(error):  # once it is quantized, they are as tf_keras takes them
        names = [layer_name(name) for name in names]
    return any(name in str(error) for name in names) or "nested" in str(error)


def refusal(net: Net, error: ValueError) -> bool:
    """Whether a net is rightly refused."""
    return named(error, net) and any(re.search(known, str(error)) for known in REFUSED)


def check(net: Net, tally: Tally) -> None:
    """0 differences between each target's integer model and what it stands for."""
    tally.tried += 1
    inputs = net.data(TESTED, 1)
    try:
        calibration = one(net.data(CALIBRATED, 0))
        built = net.build()
        recipe = net.recipe_for(built)
        model = tfbinreg.quantize_apply(built, recipe, calibration_data=calibration)
        tfbinreg.finalize(model)
        data = tfbinreg.to_tflite(model)
    except ValueError as error:
        if not refusal(net, error):
            raise
        tally.refused += 1
        return
    file = models.load(data)
    stored = samples.stored(file, dict(zip(samples.input_names(file), inputs, strict=True)))
    for target, name in RUNTIMES.items():
        tfbinreg.finalize(model, target=target)
        expected = levels(model(one(inputs)), file)  # eagerly: nothing has to be traced
        equal(runtime.run(file, stored, runtime=name).outputs, expected, name)
        if target == "tflm" and net.seed < WITH_C:
            check_c(file, stored, expected)
    if net.seed % 2:
        check_short_constants(model, inputs, with_c=net.seed < WITH_C)


def check_short_constants(model: Any, inputs: list[np.ndarray], with_c: bool) -> None:
    """0 differences with constants of three bytes, which are another file."""
    tfbinreg.finalize(model, target="tflm", short_constants=True)
    file = models.load(tfbinreg.to_tflite(model))
    stored = samples.stored(file, dict(zip(samples.input_names(file), inputs, strict=True)))
    expected = levels(model(one(inputs)), file)
    equal(runtime.run(file, stored, runtime=runtime.TFLM).outputs, expected, "short constants")
    if with_c:
        check_c(file, stored, expected)


def run(count: int) -> None:
    """Checks that many nets, of which one in four may be refused."""
    tally = Tally()

    @settings(max_examples=count, suppress_health_check=list(HealthCheck))
    @given(nets())
    def property_of_all(net: Net) -> None:
        check(net, tally)

    property_of_all()
    assert tally.tried >= count
    assert tally.refused <= tally.tried / 4


def test_some_nets():
    run(FEW)


@pytest.mark.slow
@settings(max_examples=FEW, suppress_health_check=list(HealthCheck))
@given(nets())
def test_at_equal_bits_nets_stay_as_they_are(net: Net) -> None:
    calibration, inputs = one(net.data(CALIBRATED, 0)), one(net.data(TESTED, 1))
    try:
        built = net.build()
        recipe = net.recipe_for(built)
        model = tfbinreg.quantize_apply(built, recipe, calibration_data=calibration)
    except ValueError as error:
        assert refusal(net, error)
        return
    again = tfbinreg.requantize(model)
    assert [weight.name for weight in again.weights] == [weight.name for weight in model.weights]
    equal(*(nest.flatten(own(inputs)) for own in (again, model)), "requantized")


@pytest.mark.slow
def test_many_nets():
    run(MANY)
