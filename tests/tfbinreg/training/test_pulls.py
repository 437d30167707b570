"""The pull of a penalty: measured, and chosen by strength "auto"."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from quick import slow
from trainable_net import build, data

import tfbinreg
from tfbinreg import _compat
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.training.pulls import check_measurable, rates_of_epochs

SGD = keras.optimizers.SGD
LEGACY = keras.optimizers.legacy
DECAY = keras.optimizers.schedules.CosineDecay(0.05, 260)
STEPS = 64


def two_kernels(penalty, optimizer, *, rules=(), fold=False, **options):
    """Kernels of 54 and 3072 random weights that nothing but the penalty moves."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    net = keras.Sequential([
        layers.Input((4, 4, 6)),
        layers.DepthwiseConv2D(3, use_bias=False, name="small"),
        layers.BatchNormalization(momentum=1.0, gamma_initializer=keras.initializers.Constant(3.0)),
        layers.Flatten(),
        layers.Dense(128, name="large"),
    ])  # fmt: skip
    recipe = tfbinreg.Recipe(
        weight_bits=3, first_last_bits=None, penalties=(penalty,), options={penalty: options},
        rules=rules, fold_batch_norm=fold,
    )  # fmt: skip
    model = tfbinreg.quantize_apply(net, recipe)
    for index, site in enumerate(kernel_sites(model)):
        random = np.random.default_rng(index).normal(size=site.kernel.shape)
        site.kernel.assign((0.02, 2.0)[index] * random)
        site.layer.initialize_steps()
    model.compile(optimizer, lambda target, output: 0.0 * tf.reduce_sum(output, axis=-1))
    return model


def pull(model, *callbacks, epochs=4, **options):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(STEPS, 4, 4, 6)).astype(np.float32)
    fit = {"shuffle": False, "verbose": 0, "callbacks": list(callbacks), **options}
    return model.fit(inputs, np.zeros((STEPS, 128)), 1, epochs, **fit).history


def distances(model, beyond=True):
    """The root mean square distance of each kernel's weights from their levels, in steps; without
    those `beyond` the outermost levels if they are left alone."""
    found = []
    for site in kernel_sites(model):
        grid = site.grid()
        ratio = site.latent.numpy() / grid.scale
        inside = (ratio >= grid.qmin) & (ratio <= grid.qmax)
        far = ratio - np.floor(np.clip(ratio, grid.qmin, grid.qmax) + 0.5)
        found.append(np.sqrt(np.mean(np.square(far[inside | beyond]))))
    return np.array(found)


@pytest.mark.parametrize("penalty, strategy, optimizer, options", [
    pytest.param("dampening", "joint", SGD(0.01), {}, marks=pytest.mark.slow),
    ("dampening", "cosine", SGD(DECAY), {"fold": True}),
    pytest.param("msqe", "joint", SGD(DECAY), {}, marks=pytest.mark.slow),
    pytest.param("msqe", "joint", SGD(0.01, 0.8), {}, marks=pytest.mark.slow),
    pytest.param("msqe", "alternating", LEGACY.SGD(0.01, decay=0.02), {"scale_free": True},
                 marks=pytest.mark.slow),
    pytest.param("bin_regularization", "ramp", SGD(0.05), {"fold": True}, marks=pytest.mark.slow),
    ("bin_regularization", "two_stage", SGD(0.01), {"bounded_pull": False}),
])  # fmt: skip
def test_kernels_of_any_size_come_equally_near_their_levels(penalty, strategy, optimizer, options):
    model = two_kernels(penalty, optimizer, **options)
    before = distances(model, penalty != "dampening")
    # Those of bins of several sizes change within an epoch.
    wanted, epochs = (1.0, 16) if penalty == "bin_regularization" else (2.0, 4)
    switch = 1 if strategy == "two_stage" else None
    schedule = tfbinreg.PenaltySchedule(penalty, strategy, switch, "auto", pull=wanted)
    pull(model, schedule, epochs=epochs)
    left = distances(model, penalty != "dampening") / before
    # Momentum still owes what the last steps pulled.
    tolerance = 0.1 if optimizer.get_config()["momentum"] else 0.04
    np.testing.assert_allclose(left, np.exp(-wanted), rtol=tolerance)
    np.testing.assert_array_equal(model.strength_factors[penalty], 1.0)  # at rest after training


def test_a_given_strength_does_not_pull_equally_and_the_log_says_so():
    model = two_kernels("dampening", SGD(0.05))
    before = distances(model, False)
    schedule = tfbinreg.PenaltySchedule("dampening", "joint", strength=0.1, log_pull=True)
    history = pull(model, schedule)
    left = distances(model, False) / before
    told = [sum(history[f"dampening_pull/{name}"]) for name in ("small", "large")]
    np.testing.assert_allclose(left, np.exp(np.negative(told)), rtol=0.01)
    assert told[0] > 2 * told[1]
    assert sum(history["dampening_pull"]) == pytest.approx(np.mean(told), rel=1e-6)


def test_rules_are_factors_of_the_pull_and_frozen_kernels_are_left_alone():
    rule = tfbinreg.Rule(layer="large", penalty_weights={"msqe": 0.5})
    model = two_kernels("msqe", SGD(0.01), rules=(rule,))
    before = distances(model)
    pull(model, tfbinreg.PenaltySchedule("msqe", "joint", strength="auto"))
    np.testing.assert_allclose(distances(model) / before, np.exp([-1.0, -0.5]), rtol=0.04)
    model.get_layer("quant_small").trainable = False
    model.compile(SGD(0.01), "mse")
    kernel_sites(model)[1].kernel.assign(tf.zeros((24, 128)))  # on levels already
    history = pull(model, tfbinreg.PenaltySchedule("msqe", "joint", strength="auto"), epochs=1)
    assert history["msqe_pull/small"] == history["msqe_pull/large"] == [0.0]


@pytest.mark.slow
def test_the_numbers_of_a_resumed_training_are_those_of_one_that_went_on():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 2

    def schedule():
        return tfbinreg.PenaltySchedule("bin_regularization", "ramp", strength="auto", pull=3.0)

    whole, resumed = (build(keras.optimizers.schedules.CosineDecay(0.02, 24)) for _ in range(2))
    fit = {"epochs": 6, "shuffle": False, "verbose": 0}
    history = whole.fit(*data(), 16, callbacks=[schedule()], **fit).history
    first = resumed.fit(*data(), 16, callbacks=[schedule(), Stop()], **fit).history
    rest = resumed.fit(*data(), 16, callbacks=[schedule()], initial_epoch=3, **fit).history
    assert len(first["loss"]) == len(rest["loss"]) == 3
    for values, *parts in zip(history.values(), first.values(), rest.values(), strict=True):
        assert values == [value for part in parts for value in part]
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_history_has_every_layer_and_the_logs_a_mean_without_a_new_trace():
    class Logs(keras.callbacks.Callback):
        seen = ()

        def on_epoch_end(self, epoch, logs=None):
            self.seen = tuple(logs)

    model, logs = build(0.01), Logs()
    callback = tfbinreg.BinRegularization("two_stage", 1, "auto", log_pull=True)
    options = {"epochs": 3, "shuffle": False, "verbose": 0, "callbacks": [callback, logs]}
    history = model.fit(*data(), 16, **options).history
    assert "bin_regularization_pull" in logs.seen
    assert not any("/" in key for key in logs.seen)  # for the progress bar shows them all
    for site in kernel_sites(model):
        pulls = history[f"bin_regularization_pull/{site.name}"]
        np.testing.assert_allclose(pulls, [0.0, 0.5, 0.5], rtol=0.05)
    assert model.train_function.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    "optimizer",
    [keras.optimizers.AdamW(1e-3), *slow(keras.optimizers.Adam(1e-3), LEGACY.Adam(1e-3))],
)
@pytest.mark.slow
def test_adam_needs_steps_before_and_pulls_then(optimizer):
    recipe = tfbinreg.Recipe(weight_bits=2, first_last_bits=None)
    errors = {}
    for strength in ("auto", 0.0):
        model = build(recipe=recipe)
        model.compile(type(optimizer).from_config(optimizer.get_config()), "mse")
        fit = {"epochs": 6, "shuffle": False, "verbose": 0}
        joint = tfbinreg.BinRegularization("joint", strength="auto")
        with pytest.raises(ValueError, match="gradients of steps before, and there were none yet"):
            model.fit(*data(), 1, callbacks=[joint], **fit)
        later = tfbinreg.BinRegularization("cosine", strength=strength, log_pull=True)
        history = model.fit(*data(), 1, callbacks=[later], **fit).history
        errors[strength] = history["quantization_error"][-1]
        wanted = 1.0 if strength else 0.0
        assert history["bin_regularization_pull"][0] == 0
        assert sum(history["bin_regularization_pull"]) == pytest.approx(wanted, rel=0.1)
    assert errors["auto"] < 0.8 * errors[0.0]


def test_a_short_training_by_default_rests_in_its_first_epoch():
    model = build(recipe=tfbinreg.Recipe(weight_bits=2, first_last_bits=None))
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    ramp = tfbinreg.BinRegularization("ramp", strength="auto", pull=0.5)
    pulls = model.fit(*data(), 1, epochs=2, verbose=0, callbacks=[ramp]).history[
        "bin_regularization_pull"
    ]
    assert pulls[0] == 0 and pulls[1] == pytest.approx(0.5, rel=0.1)
    history = model.fit(*data(), 1, epochs=1, verbose=0, callbacks=[ramp]).history
    assert history["bin_regularization_pull"][0] > 0  # there is no other epoch


def test_a_pull_that_adam_cannot_have_is_told():
    model = build(recipe=tfbinreg.Recipe(weight_bits=2, first_last_bits=None))
    model.compile(keras.optimizers.Adam(1e-6), "mse")
    later = tfbinreg.BinRegularization("cosine", strength="auto")
    with pytest.warns(tfbinreg.QuantizationWarning, match="Adam cannot pull the weights of .*mid"):
        model.fit(*data(), 16, 4, verbose=0, callbacks=[later])


@pytest.mark.parametrize("optimizer", [
    SGD(0.1, 0.9), SGD(0.1, 0.9, nesterov=True), LEGACY.SGD(0.1, 0.5),
    keras.optimizers.Adam(0.1, amsgrad=True, epsilon=0.5), LEGACY.Adam(0.1),
    *slow(
        SGD(0.1), keras.optimizers.Adam(0.1), keras.optimizers.AdamW(0.1, weight_decay=0.0),
        LEGACY.Adam(0.1, amsgrad=True, epsilon=0.5),
        keras.mixed_precision.LossScaleOptimizer(SGD(0.1)),
    ),
])  # fmt: skip
def test_a_lasting_gradient_moves_a_variable_as_told(optimizer):
    variable = tf.Variable([1.0, 2.0])
    gradient = tf.constant([0.3, 0.3])
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for _ in range(200):
        before = variable.numpy()
        inner.apply_gradients([(gradient, variable)])
    told = 0.1 * 0.3 * _compat.step_of_gradient(optimizer, variable, [variable])
    np.testing.assert_allclose(before - variable.numpy(), told, rtol=1e-3)


@pytest.mark.parametrize("rate, decay", [
    (keras.optimizers.schedules.PiecewiseConstantDecay([3, 7], [1.0, 0.5, 0.25]), 0.0),
    (keras.optimizers.schedules.CosineDecay(1.0, 12), 0.0),
    (0.5, 0.0), (0.5, 0.1),
])  # fmt: skip
@pytest.mark.parametrize("epoch, first", [(0, 0), (2, 6), (1, 20), (2, 0)])
def test_rates_are_summed_exactly(rate, decay, epoch, first):
    kind = LEGACY.SGD if decay else SGD
    optimizer = kind(rate, **({"decay": decay} if decay else {}))
    optimizer.iterations.assign(first)
    numbers = np.maximum(0, np.arange(12).reshape(4, 3) + first - 3 * epoch)
    expected = [
        sum(float(rate(i)) if callable(rate) else rate / (1 + decay * i) for i in row)
        for row in numbers
    ]
    np.testing.assert_allclose(rates_of_epochs(optimizer, epoch, 4, 3), expected, rtol=1e-5)


@pytest.mark.slow
def test_what_cannot_be_measured_is_refused():
    def fit(model, penalty, inputs=None, **options):
        schedule = tfbinreg.PenaltySchedule(penalty, "joint", strength="auto")
        model.fit(*(inputs or data()), callbacks=[schedule], verbose=0, **options)

    recipe = tfbinreg.Recipe(weight_bits=2, penalties=("kure", "msqe"))
    with pytest.raises(ValueError, match="'kure' pulls weights to no level"):
        fit(build(recipe=recipe), "kure")
    batches = tf.data.Dataset.from_generator(
        lambda: iter([data()] * 2),
        output_signature=(tf.TensorSpec((None, 6, 6, 1)), tf.TensorSpec((None,), tf.int64)),
    )
    with pytest.raises(ValueError, match="give fit steps_per_epoch"):
        fit(build(recipe=recipe), "msqe", [batches])
    fit(build(recipe=recipe), "msqe", [batches], steps_per_epoch=2)
    model = build(recipe=recipe)
    model.compile(keras.optimizers.RMSprop(), "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="known for SGD, Adam and AdamW, not for RMSprop"):
        fit(model, "msqe")
    with pytest.raises(ValueError, match="Compile model"):
        check_measurable(keras.models.clone_model(model), "msqe", 3)
