"""A schedule that steers a method's strength, with one whose bits fall with the strength."""

import dataclasses

import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg.budget.packed_bytes import packed_bytes
from tfbinreg.core.grid import Grid
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.methods.lsq import LSQ, LsqOptions


@dataclasses.dataclass(frozen=True)
class Options(LsqOptions):
    strength: float = 0.5


@keras.utils.register_keras_serializable(package="budget_schedule")
class Shrinking(tfbinreg.LSQWeightQuantizer):
    """LSQ's on fewer levels the larger the number `lost`, which its penalty makes grow."""

    def build(self, tensor_shape, name, layer):
        lost = self.add_variable(layer, name, (), True, "zeros", "lost")
        return {**super().build(tensor_shape, name, layer), "lost": lost}

    def settle(self, variables, name):
        grid = super().settle(variables, name)
        bits = int(np.clip(np.ceil(8.0 - variables["lost"].numpy()), 2, 8))
        return Grid(bits, True, grid.scale, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, grid.axis)


METHOD = dataclasses.replace(
    LSQ,
    name="shrinking",
    options=Options,
    weights=lambda spec, options: Shrinking(spec.bits, spec.axis),
    penalty=lambda view, options: -view.parameters["lost"],
    strength=lambda options: options.strength,
    about=None,
)


def data():
    random = np.random.default_rng(0)
    return random.normal(size=(16, 20)).astype(np.float32), random.integers(0, 3, 16)


def make(**options):
    tfbinreg.register_method(METHOD)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [layers.Input((20,)), layers.Dense(30, "relu", name="first"), layers.Dense(3, name="head")]
    )
    recipe = tfbinreg.Recipe(method="shrinking", options={"shrinking": options})
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=data()[0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


def test_packed_bytes_are_codes_and_the_constants_of_channels():
    model = make()
    assert packed_bytes(model) == 20 * 30 + 30 * 3 + 9 * 33
    kernel_sites(model)[0].variables["lost"].assign(5.0)  # 3 bits
    assert packed_bytes(model) == 20 * 30 * 3 // 8 + 30 * 3 + 9 * 33


def test_bits_fall_until_the_budget_is_kept_and_no_further():
    model, limit = make(), 600  # 3 bits for the first kernel: 612, 2 bits for it: 537
    schedule = tfbinreg.FlashBudgetSchedule("shrinking", limit, until=0.6, gain=4.0)
    history = model.fit(*data(), 8, epochs=40, verbose=0, callbacks=[schedule]).history
    sizes, strengths = history["packed_bytes"], history["shrinking_strength"]
    assert packed_bytes(model) == sizes[-1] <= limit
    assert sizes[0] > 900 and sizes == sorted(sizes, reverse=True)
    assert strengths[0] == 0.5 and strengths[-1] < max(strengths) / 4  # it rests at the end


def test_no_strength_is_taken_away_above_the_limit():
    model = make()
    schedule = tfbinreg.FlashBudgetSchedule("shrinking", 600)
    schedule.set_model(model)
    schedule.set_params({"epochs": 20})
    schedule.on_train_begin()
    lost, found = kernel_sites(model)[0].variables["lost"], []
    for bits in (4, 3, 2):  # 687, 612 and 537 bytes, all below the target of the first epochs
        lost.assign(8.0 - bits)
        schedule.on_epoch_end(0)
        found.append(float(model.strengths["shrinking"].numpy()))
    assert schedule.target(0) > 687 and found[:2] == [0.5, 0.5] and found[2] < 0.5


def test_targets_fall_at_equal_ratios():
    schedule = tfbinreg.FlashBudgetSchedule("shrinking", 100, until=0.5)
    schedule.params, schedule._first_bytes = {"epochs": 8}, 1600
    assert [round(schedule.target(epoch)) for epoch in range(6)] == [800, 400, 200, 100, 100, 100]
    schedule._first_bytes = 50  # below the limit from the beginning
    assert [schedule.target(epoch) for epoch in range(3)] == [100.0, 100.0, 100.0]


def test_a_budget_that_is_missed_is_told():
    model = make(strength=1e-6)
    schedule = tfbinreg.FlashBudgetSchedule("shrinking", 400)
    with pytest.warns(tfbinreg.QuantizationWarning, match=r"take 987 bytes, 587 more than"):
        model.fit(*data(), 8, epochs=2, verbose=0, callbacks=[schedule])


def test_what_cannot_be_steered_is_refused():
    schedule = tfbinreg.FlashBudgetSchedule("shrinking", 400)
    with pytest.raises(ValueError, match=r"The strength of 'shrinking' is 0: give the method"):
        make(strength=0.0).fit(*data(), 8, verbose=0, callbacks=[schedule])
    with pytest.raises(ValueError, match=r"has no penalty 'msqe'"):
        tfbinreg.FlashBudgetSchedule("msqe", 400).set_model(make())
    with pytest.raises(ValueError, match=r"needs a model from tfbinreg.quantize_apply"):
        schedule.set_model(keras.Sequential([keras.layers.Dense(2)]))


@pytest.mark.parametrize("options, match", [
    ({"limit": 0}, "limit must be at least 1 byte, got 0"),
    ({"until": 0.0}, "until must be above 0 and at most 1, got 0.0"),
    ({"until": 1.5}, "until must be"),
    ({"gain": -1.0}, "gain must be a positive number, got -1.0"),
    ({"gain": float("nan")}, "gain must be"),
])  # fmt: skip
def test_options_out_of_range(options, match):
    with pytest.raises(ValueError, match=match):
        tfbinreg.FlashBudgetSchedule("shrinking", **{"limit": 100, **options})
