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


def make(calibrated=True, **options):
    tfbinreg.register_method(METHOD)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [layers.Input((20,)), layers.Dense(30, "relu", name="first"), layers.Dense(3, name="head")]
    )
    recipe = tfbinreg.Recipe(method="shrinking", options={"shrinking": options})
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=data()[0] if calibrated else None)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


def test_packed_bytes_are_codes_and_the_constants_of_channels():
    model = make()
    assert packed_bytes(model) == 20 * 30 + 30 * 3 + 6 * 33
    kernel_sites(model)[0].variables["lost"].assign(5.0)  # 3 bits
    assert packed_bytes(model) == 20 * 30 * 3 // 8 + 30 * 3 + 6 * 33


def test_bits_fall_until_the_budget_is_kept_and_no_further():
    model, limit = make(), 500  # 3 bits for the first kernel: 513, 2 bits for it: 438
    schedule = tfbinreg.FlashBudgetSchedule("shrinking", limit, until=0.6, gain=4.0)
    history = model.fit(*data(), 8, epochs=40, verbose=0, callbacks=[schedule]).history
    sizes, strengths = history["packed_bytes"], history["shrinking_strength"]
    assert packed_bytes(model) == sizes[-1] <= limit
    assert sizes[0] > 800 and sizes == sorted(sizes, reverse=True)
    assert strengths[0] > 0.5 and strengths[-1] < max(strengths) / 4  # it rests at the end


def test_no_strength_is_taken_away_above_the_limit():
    model = make()
    schedule = tfbinreg.FlashBudgetSchedule("shrinking", 500)
    schedule.set_model(model)
    schedule.set_params({"epochs": 20})
    schedule.on_train_begin()
    lost, found = kernel_sites(model)[0].variables["lost"], []
    for bits in (4, 3, 2):  # 588, 513 and 438 bytes, all below the target of the first epochs
        lost.assign(8.0 - bits)
        schedule.on_epoch_begin(0)
        schedule.on_epoch_end(0)
        found.append(float(model.strengths["shrinking"].numpy()))
    assert schedule.target(1) > 588 and found[:2] == [0.5, 0.5] and found[2] < 0.5


def test_targets_fall_at_equal_ratios():
    schedule = tfbinreg.FlashBudgetSchedule("shrinking", 100, until=0.5)
    schedule.params, schedule._first_bytes = {"epochs": 8}, 1600
    assert [round(schedule.target(epoch)) for epoch in (0, 0.5, 1, 2, 3, 4, 5)] == [
        1600, 1131, 800, 400, 200, 100, 100,
    ]  # fmt: skip
    for first in range(101, 1000):
        schedule._first_bytes = first
        assert schedule.target(4) == 100
    schedule._first_bytes = 50  # below the limit from the beginning
    assert [schedule.target(epoch) for epoch in range(3)] == [100.0, 100.0, 100.0]


def steered(*, steps, looks, gain=2.0, batches=None):
    """The strengths after each batch and the end of one of two epochs whose bytes stay 888."""
    model = make()
    schedule = tfbinreg.FlashBudgetSchedule("shrinking", 444, until=1.0, gain=gain, looks=looks)
    schedule.set_model(model)
    schedule.set_params({"epochs": 2, "steps": steps})
    schedule.on_train_begin()
    schedule.on_epoch_begin(0)
    found = []
    for batch in range(steps or 4) if batches is None else batches:
        schedule.on_train_batch_end(batch)
        found.append(float(model.strengths["shrinking"].numpy()))
    schedule.on_epoch_end(0)
    return [*found, float(model.strengths["shrinking"].numpy())]


def test_bytes_are_looked_at_within_an_epoch():
    # After half an epoch of two the target is 888 / 2^(1/4), after a whole one 888 / 2^(1/2).
    half, whole = 0.5 * 2 ** (2 / 4 / 2), 0.5 * 2 ** (2 / 4 / 2 + 2 / 2 / 2)
    assert steered(steps=4, looks=2) == pytest.approx([0.5, half, half, half, whole])
    assert steered(steps=4, looks=2, batches=(1, 3)) == pytest.approx([half, half, whole])
    assert steered(steps=None, looks=2)[:-1] == [0.5] * 4  # an epoch of unknown length
    assert steered(steps=1, looks=10)[0] == 0.5  # fewer steps than looks
    assert steered(steps=4, looks=4, gain=1e6)[-1] == pytest.approx(0.5 * 100 ** (5 / 2))


def test_from_until_on_the_strength_grows_however_little_is_missing():
    model = make()
    schedule = tfbinreg.FlashBudgetSchedule("shrinking", 880, until=0.5)  # 8 bytes are too many
    schedule.set_model(model)
    schedule.set_params({"epochs": 4})
    schedule.on_train_begin()
    found = []
    for epoch in range(3):
        schedule.on_epoch_begin(epoch)
        schedule.on_epoch_end(epoch)
        found.append(float(model.strengths["shrinking"].numpy()))
    assert 0.5 < found[0] < 0.52 and found[1] == pytest.approx(100**1.25 * found[0])
    assert found[2] == pytest.approx(100**2.5 * found[0])


def test_what_the_estimate_leaves_out_is_counted():
    model, told = make(), []
    schedule = tfbinreg.FlashBudgetSchedule(
        "shrinking", 2000, count=lambda counted: told.append(counted) or 3000
    )
    with pytest.warns(tfbinreg.QuantizationWarning, match=r"take 3000 bytes, 1000 more than"):
        history = model.fit(*data(), 8, verbose=0, callbacks=[schedule]).history
    assert history["packed_bytes"] == [3000] and told == [model, model]
    assert schedule._beyond == 3000 - packed_bytes(model)


def test_counts_that_say_nothing_are_refused():
    for counted in (None, 0, float("nan")):
        schedule = tfbinreg.FlashBudgetSchedule("shrinking", 9, count=lambda _, own=counted: own)
        with pytest.raises(ValueError, match=rf"count must give a whole number.*got {counted}"):
            make().fit(*data(), 8, verbose=0, callbacks=[schedule])
    schedule = tfbinreg.FlashBudgetSchedule("shrinking", np.int64(9), looks=np.int64(3), count=id)
    with pytest.raises(ValueError, match="pass calibration_data to quantize_apply"):
        make(calibrated=False).fit(*data(), 8, verbose=0, callbacks=[schedule])


def test_a_budget_that_is_missed_is_told():
    model = make(strength=1e-6)
    schedule = tfbinreg.FlashBudgetSchedule("shrinking", 400)
    with pytest.warns(tfbinreg.QuantizationWarning, match=r"take 888 bytes, 488 more than"):
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
    ({"limit": 0}, "limit must be a whole number of bytes from 1 on, got 0"),
    ({"limit": "16KB"}, "limit must be a whole number of bytes from 1 on, got '16KB'"),
    ({"limit": float("nan")}, "limit must be"),
    ({"until": "0.5"}, "until must be"),
    ({"gain": True}, "gain must be"),
    ({"count": 5}, "count must be a function that takes the model.*got 5"),
    ({"until": 0.0}, "until must be above 0 and at most 1, got 0.0"),
    ({"until": 1.5}, "until must be"),
    ({"gain": -1.0}, "gain must be a positive number, got -1.0"),
    ({"gain": float("nan")}, "gain must be"),
    ({"looks": 0}, "looks must be a whole number from 1 on, got 0"),
    ({"looks": 2.5}, "looks must be"),
])  # fmt: skip
def test_options_out_of_range(options, match):
    with pytest.raises(ValueError, match=match):
        tfbinreg.FlashBudgetSchedule("shrinking", **{"limit": 100, **options})
