"""CPQ in a model: quantizers, DropBits, learned bits on their way to logs and files."""

import dataclasses

import numpy as np
import pytest
import reference
import tensorflow as tf
import tf_keras as keras
from built_quantizers import batch, built

import tfbinreg
from tfbinreg.budget.sensitivity import sensitivities
from tfbinreg.deploy.freeze import freeze
from tfbinreg.deploy.quantization_card import quantization_card
from tfbinreg.layers.sites import activation_sites, kernel_sites
from tfbinreg.methods import drop_bits
from tfbinreg.methods.contract import GridSpec, KernelSpec, KernelView
from tfbinreg.methods.cpq import CPQ, CpqOptions, open_gates
from tfbinreg.methods.cpq_quantizers import (
    CPQActivationQuantizer,
    CPQWeightQuantizer,
    DropBitsWeightQuantizer,
)
from tflite_tools.c import generate, host_run
from tflite_tools.running import samples
from tflite_tools.schema.codes import read_codes
from tflite_tools.schema.contents import load

OPEN, CLOSED = 0.1, -0.1  # log alpha is 30 times as much


def data():
    random = np.random.default_rng(0)
    return random.normal(size=(32, 6, 6, 2)).astype(np.float32), random.integers(0, 3, 32)


def make(options=None, rate=0.01, **recipe):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [
            layers.Input((6, 6, 2)),
            layers.Conv2D(4, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flat"),
            layers.Dense(3, name="head"),
        ]
    )
    own = {"drop_bits": True, "strength": 0.1, **(options or {})}
    recipe = tfbinreg.Recipe(
        weight_bits=4, first_last_bits=None, method="cpq", options={"cpq": own}, **recipe
    )
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=data()[0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    return model


def train(model, epochs=1, **options):
    return model.fit(*data(), 8, epochs=epochs, shuffle=False, verbose=0, **options)


def quantizer_of(bits, axis=None, channel_axis=-1, **options):
    spec = KernelSpec(bits=bits, axis=axis, channel_axis=channel_axis)
    return CPQ.weights(spec, CpqOptions(**options))


def test_options_outside_their_range():
    for name, wrong in {
        "backward": "straight",
        "activation_backward": None,
        "granularity": "group",
        "width": 0.0,
        "activation_width": -1.0,
        "keep": 1.0,
        "gain": 0.0,
        "most_bits": 9,
        "strength": -1.0,
        "seed": 0.5,
    }.items():
        with pytest.raises(ValueError, match=f"^{name} must "):
            CpqOptions(**{name: wrong})
    with pytest.raises(ValueError, match="needs drop_bits"):
        CpqOptions(strength=1.0)


def test_which_kernels_have_gates():
    dropped = {"drop_bits": True, "granularity": "channel"}
    assert type(quantizer_of(3)) is CPQWeightQuantizer
    assert [type(quantizer_of(bits, **dropped)) for bits in (2, 5)] == [CPQWeightQuantizer] * 2
    own = quantizer_of(4, **dropped)
    assert type(own) is DropBitsWeightQuantizer and own.axis == -1 and own.by_channel
    assert quantizer_of(4, drop_bits=True).axis is None
    assert type(quantizer_of(8, **dropped, most_bits=8)) is DropBitsWeightQuantizer
    assert not own.learns_bits and quantizer_of(3, drop_bits=True, strength=1.0).learns_bits
    again = type(own).from_config(own.get_config())
    assert again == own and hash(again) == hash(own)


@pytest.mark.parametrize("backward", ["multiclass_ste", "expected_value"])
def test_the_width_starts_in_proportion_to_the_step_and_both_stay_positive(backward):
    quantizer, variables = built(quantizer_of(3, 1, backward=backward), (6, 4))
    ratio = {"multiclass_ste": 1 / 3, "expected_value": 1 / 6}[backward]
    np.testing.assert_allclose(np.exp(variables["log_width"]), [ratio] * 4, rtol=1e-6)
    quantizer.initialize(variables, batch(0).numpy())
    expected = ratio * variables["step"].numpy()
    np.testing.assert_allclose(np.exp(variables["log_width"]), expected, rtol=1e-5)
    variables["step"].assign([-0.5, 0.0, 1e-12, 0.5])
    variables["log_width"].assign([-200.0, -200.0, 0.0, 50.0])
    with tf.GradientTape() as tape:
        quantized = quantizer(batch(1), True, variables)
        loss = tf.reduce_sum(quantized * batch(2))
    assert np.all(quantizer.scale(variables) > 0.0)
    found = tape.gradient(loss, list(variables.values()))
    assert all(np.all(np.isfinite(part)) for part in (quantized, *found))
    assert quantizer_of(3, width=0.25).width == 0.25 and quantizer_of(5).width == 0.5


def test_how_many_weights_move_against_their_gradient():
    quantizer, variables = built(quantizer_of(4, backward="multiclass_ste"), (500, 40))
    kernel = batch(3, (500, 40))
    quantizer.initialize(variables, kernel.numpy())
    share = quantizer.figures(kernel, variables)["opposed"]
    codes = quantizer.codes(kernel, variables)
    beyond = np.abs(kernel / quantizer.scale(variables)) > np.abs(codes)
    inner = (codes > -8) & (codes < 7)
    # On the far side of an inner level, as seen from 0.
    assert share == pytest.approx(np.mean(inner & beyond & (codes != 0)), abs=0.01)
    plain, own = built(quantizer_of(4), (500, 40))
    plain.initialize(own, kernel.numpy())
    assert plain.figures(kernel, own) == {"opposed": 0.0}


@pytest.mark.parametrize("signed", [False, True])
def test_an_activation_starts_as_lsqs_and_trains_step_and_width(signed):
    spec = GridSpec(bits=3, signed=signed)
    quantizer, variables = built(CPQ.activations(spec, CpqOptions()))
    assert type(quantizer) is CPQActivationQuantizer
    assert type(quantizer).from_config(quantizer.get_config()) == quantizer
    values = batch(4)
    with tf.GradientTape() as tape:
        tape.watch(values)
        quantized = quantizer(values, True, variables)
        loss = tf.reduce_sum(quantized * batch(5))
    like, its = built(tfbinreg.LSQActivationQuantizer(3, signed))
    np.testing.assert_array_equal(quantized, like(values, True, its))
    assert np.exp(variables["log_width"]) == pytest.approx(float(variables["step"]) / 3)
    to_values, to_step, to_width = tape.gradient(
        loss, [values, variables["step"], variables["log_width"]]
    )
    assert float(to_step) != 0.0 and float(to_width) != 0.0
    assert signed or not np.any(to_values[values < 0.0])  # it contains the ReLU
    fixed = CPQ.activations(dataclasses.replace(spec, fixed=True), CpqOptions())
    assert not any(variable.trainable for variable in built(fixed)[1].values())
    many = dataclasses.replace(spec, bits=5)
    assert type(CPQ.activations(many, CpqOptions())) is tfbinreg.LSQActivationQuantizer


def test_the_penalty_counts_gates_that_are_likely_open():
    log_alpha = np.array([[1.0, -1.0, 0.5], [-2.0, 0.0, 2.0]], np.float32)
    latent = tf.zeros([5, 3])
    for gates in (log_alpha, log_alpha[:, 0]):
        variable = tf.Variable(gates / 5.0)
        view = KernelView("dense", latent, None, weights=60, parameters={"gates": variable})
        with tf.GradientTape() as tape:
            value = open_gates(view, CpqOptions(gain=5.0))
        rows = gates.reshape(2, -1)
        expected = sum(np.mean([reference.open_probability(own) for own in row]) for row in rows)
        assert float(value) == pytest.approx(0.25 * expected, abs=1e-4)
        assert np.all(tape.gradient(value, variable) > 0.0)
    assert float(open_gates(dataclasses.replace(view, parameters={}), CpqOptions())) == 0.0


def test_draws_differ_from_pass_to_pass_and_inference_has_none():
    quantizer, variables = built(quantizer_of(4, drop_bits=True, keep=0.5), (40, 30))
    quantizer.initialize(variables, batch(6, (40, 30)).numpy())
    kernel = batch(6, (40, 30))
    passes = [quantizer(kernel, True, variables).numpy() for _ in range(40)]
    reached = [int(np.rint(np.max(q) / variables["step"].numpy())) for q in passes]
    assert reached[0] == 7 and set(reached) == {1, 3, 7}  # of 4, 2 and 3 bits
    assert variables["draws"].numpy()[1] == 40
    still = quantizer(kernel, False, variables)
    np.testing.assert_array_equal(still, quantizer(kernel, False, variables))
    np.testing.assert_array_equal(still, quantizer.grid_now(variables).codes(kernel)
                                  * variables["step"])  # fmt: skip
    variables["draws"].assign([variables["draws"].numpy()[0], 9])
    np.testing.assert_array_equal(quantizer(kernel, True, variables), passes[9])


@pytest.mark.parametrize("by_channel", [False, True])
def test_the_loss_trains_gates_too(by_channel):
    options = {"granularity": "channel"} if by_channel else {}
    quantizer, variables = built(quantizer_of(3, drop_bits=True, keep=0.5, **options), (400, 6))
    kernel = batch(7, (400, 6))
    quantizer.initialize(variables, kernel.numpy())
    slopes = []
    for _ in range(4):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(quantizer(kernel, True, variables) - kernel))
        slopes.append(tape.gradient(loss, variables["gates"]).numpy())
    # An open gate brings the weights nearer to themselves.
    assert np.all(np.array(slopes) <= 0.0) and np.min(slopes) < 0.0
    assert slopes[0].shape == ((1, 6) if by_channel else (1,))


def test_bits_fall_as_the_penalty_grows_and_are_logged():
    model = make({"strength": 0.01}, rate=0.005)
    log = tfbinreg.QuantizerLog(per_layer=True)
    assert train(model, 2, callbacks=[log]).history["weight_bits"] == [4.0, 4.0]
    schedule = tfbinreg.PenaltySchedule("cpq", "joint", strength=30.0)
    history = train(model, 12, callbacks=[schedule, log]).history
    assert history["weight_bits"][0] == 4.0 and history["weight_bits"][-1] == 2.0
    assert np.all(np.diff(history["weight_bits"]) <= 0.0)
    assert np.all(np.diff(history["cpq_loss"]) < 0.0)
    assert history["weight_bits/conv"][-1] == 2.0 and history["opposed"][-1] == 0.0


def test_without_a_strength_all_bits_stay_at_inference():
    model = make({"strength": 0.0})
    assert float(model.losses[0]) == 0.0
    for site in kernel_sites(model):
        site.variables["gates"].assign(tf.fill(site.variables["gates"].shape, CLOSED))
        assert site.grid().bits == 4 and np.max(site.codes()) > 3


@pytest.mark.slow
def test_a_training_that_goes_on_draws_what_it_would_have_drawn(tmp_path):
    model = make({"keep": 0.5})
    train(model)
    tfbinreg.finalize(model, data()[0])
    model.save(tmp_path / "q.keras")
    again = tfbinreg.load_model(tmp_path / "q.keras")
    with pytest.warns(tfbinreg.QuantizationWarning, match="Training ends"):
        train(model)
        train(again)
    assert kernel_sites(again)[0].variables["draws"].numpy()[1] == 8
    for mine, yours in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, yours)


LEARNED = {
    "layer": ({"conv": [OPEN, CLOSED], "head": [CLOSED, OPEN]}, {"conv": 3, "head": 2}),
    "channel": (
        {
            "conv": [[OPEN, CLOSED, OPEN, OPEN], [CLOSED, OPEN, CLOSED, CLOSED]],
            "head": [[CLOSED, OPEN, OPEN], [OPEN, OPEN, CLOSED]],
        },
        {"conv": (3, 2, 3, 3), "head": (2, 4, 3)},
    ),
}


FOLDED = {"fold_batch_norm": True, "bias_bits": 8}


@pytest.mark.parametrize(
    ("granularity", "recipe"),
    [
        ("channel", {}),
        pytest.param("layer", FOLDED, marks=pytest.mark.slow),
        pytest.param("layer", {}, marks=pytest.mark.slow),
        pytest.param("channel", FOLDED, marks=pytest.mark.slow),
    ],
)
def test_learned_bits_reach_files_and_c(granularity, recipe):
    log_alphas, expected = LEARNED[granularity]
    model = make({"granularity": granularity}, **recipe)
    for site in kernel_sites(model):
        site.variables["gates"].assign(log_alphas[site.name])
        bits, grid = expected[site.name], site.grid()
        assert (grid.channel_bits or grid.bits) == bits and grid.bits == np.max(bits)
        now = site.quantizer.grid_now(site.variables)
        np.testing.assert_array_equal(now.codes(tf.convert_to_tensor(site.latent)), site.codes())
        for own, codes in zip(np.atleast_1d(bits), np.atleast_2d(site.codes().T), strict=False):
            low, high = drop_bits.nested_ranges(4)[own - 2]
            assert low <= codes.min() and codes.max() <= high
    images = data()[0]
    tfbinreg.finalize(model, images, target="tflm")
    file = tfbinreg.to_tflite(model)  # compared with LiteRT's
    content = load(file)
    entries = {layer.name: layer for layer in content.require_manifest().layers}
    for name, bits in expected.items():
        assert (entries[name].channel_bits or entries[name].bits) == bits
    sites = kernel_sites(model)
    average = sum(s.grid().code_bits(s.size) for s in sites) / sum(s.size for s in sites)
    card = quantization_card(freeze(model))
    assert card["weights"]["average_bits"] == pytest.approx(average, abs=1e-3)
    for name, coded in tfbinreg.integer_codes(model).items():
        np.testing.assert_array_equal(read_codes(file)[name], coded.codes)
    stored = samples.stored(content, {samples.input_names(content)[0]: images[:4]})
    (output,) = host_run.run(generate.generate(content).files, content, stored)
    (grid,) = [content.main.tensors[index].quantization for index in content.main.outputs]
    wanted = np.rint(model.predict(images[:4], verbose=0) / grid.scale[0]) + grid.zero_point[0]
    np.testing.assert_array_equal(output, wanted)


@pytest.mark.slow
def test_statistics_are_measured_without_draws():
    model = make(fold_batch_norm=True)  # calibrated
    train(model)
    drawn = kernel_sites(model)[0].variables["draws"].numpy()
    assert drawn[1] == 4
    tfbinreg.finalize(model, data())
    np.testing.assert_array_equal(kernel_sites(model)[0].variables["draws"], drawn)


def test_a_quantizer_of_fewer_bits_borrows_the_gates():
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(4, name="dense")])
    recipe = tfbinreg.Recipe(
        method="cpq", options={"cpq": {"drop_bits": True, "most_bits": 8, "strength": 1.0}}
    )
    (found,) = sensitivities(net, np.random.default_rng(0).normal(size=(64, 6)), recipe=recipe)
    assert found.moved[2] > found.moved[4] > found.moved[8] == 0.0


def test_inputs_of_a_model_are_on_fixed_grids():
    model = make()
    assert any(site.quantizer.fixed for site in activation_sites(model))
