"""Keras 3's own optimizers, losses, metrics and callbacks do what they do with a Keras 3 model."""

import keras as keras3
import numpy as np
import pytest
import tf_keras

import tfbinreg
from tfbinreg.frontend.keras3_objects import to_tf_keras

schedules = keras3.optimizers.schedules
RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(24, 5)).astype("float32"), RANDOM.integers(0, 3, 24)

OPTIMIZERS = {
    "sgd": lambda k: k.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda k: k.optimizers.Adam(0.1, beta_1=0.8, amsgrad=True, clipnorm=0.01),
    "adamw": lambda k: k.optimizers.AdamW(0.1, weight_decay=0.1, global_clipnorm=0.1),
    "adamax": lambda k: k.optimizers.Adamax(0.1, clipvalue=0.01),
    "adagrad": lambda k: k.optimizers.Adagrad(0.1, initial_accumulator_value=0.2),
    "adadelta": lambda k: k.optimizers.Adadelta(1.0, rho=0.9),
    "rmsprop": lambda k: k.optimizers.RMSprop(0.1, momentum=0.5, centered=True),
    "ftrl": lambda k: k.optimizers.Ftrl(0.1, l1_regularization_strength=0.01),
    "lion": lambda k: k.optimizers.Lion(0.01),
    "adafactor": lambda k: k.optimizers.Adafactor(0.1),
    "cosine": lambda k: k.optimizers.SGD(k.optimizers.schedules.CosineDecay(0.3, 4, alpha=0.1)),
    "restarts": lambda k: k.optimizers.SGD(k.optimizers.schedules.CosineDecayRestarts(0.3, 2)),
    "steps": lambda k: k.optimizers.SGD(
        k.optimizers.schedules.PiecewiseConstantDecay([1, 2], [0.3, 0.1, 0.03])
    ),
    "exponential": lambda k: k.optimizers.SGD(
        k.optimizers.schedules.ExponentialDecay(0.3, 2, 0.5, staircase=True)
    ),
}


def trained(keras, optimizer):
    """The kernel of a small float model after four steps."""
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, activation="softmax")])
    start = np.random.default_rng(1).normal(size=(5, 3)).astype("float32")
    model.set_weights([start, np.zeros(3, "float32")])
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(X, Y, batch_size=6, epochs=1, shuffle=False, verbose=0)
    return np.asarray(model.layers[-1].kernel)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_and_schedules_take_the_same_steps(name):
    make = OPTIMIZERS[name]
    ours = to_tf_keras(make(keras3), "compile")
    assert type(ours).__module__.startswith("tf_keras.")
    np.testing.assert_allclose(
        trained(tf_keras, ours), trained(keras3, make(keras3)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "optimizer",
    [
        keras3.optimizers.Nadam(0.1, epsilon=1e-3),
        keras3.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
    ],
)
def test_options_stay_where_the_two_kerases_start_differently(optimizer):
    """Nadam's momentum and the averages of weights start from other values in tf_keras."""
    given, made = optimizer.get_config(), to_tf_keras(optimizer, "compile").get_config()
    shared = set(given) & set(made)
    assert {"learning_rate", "use_ema", "ema_momentum", "ema_overwrite_frequency"} < shared
    assert {key: made[key] for key in shared} == {key: given[key] for key in shared}


LOSSES = {
    "huber": keras3.losses.Huber(delta=0.3, name="mine"),
    "cosine": keras3.losses.CosineSimilarity(axis=0),
    "smooth": keras3.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2),
    "focal": keras3.losses.BinaryFocalCrossentropy(gamma=1.0, apply_class_balancing=True),
    "sum": keras3.losses.MeanSquaredError(reduction="sum"),
    "each": keras3.losses.MeanAbsoluteError(reduction=None),
    "function": keras3.losses.kl_divergence,
    "metric function": keras3.metrics.mean_squared_error,
}
METRICS = {
    "auc": keras3.metrics.AUC(num_thresholds=20, curve="PR", name="area"),
    "top": keras3.metrics.TopKCategoricalAccuracy(k=2),
    "binary": keras3.metrics.BinaryAccuracy(threshold=0.3),
    "precision": keras3.metrics.Precision(class_id=1, thresholds=[0.2, 0.5]),
    "iou": keras3.metrics.BinaryIoU([1], threshold=0.4),
    "cosine": keras3.metrics.CosineSimilarity(axis=0),
    "f1": keras3.metrics.F1Score(average="macro"),
    "recall": keras3.metrics.RecallAtPrecision(0.5),
}
TRUTH = np.eye(3, dtype="float32")[Y]
GUESS = RANDOM.uniform(0.05, 0.95, (24, 3)).astype("float32")


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_the_same(name):
    ours = to_tf_keras(LOSSES[name], "compile")
    assert ours.__module__.startswith("tf_keras.")
    np.testing.assert_allclose(ours(TRUTH, GUESS), LOSSES[name](TRUTH, GUESS), rtol=1e-5)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_the_same(name):
    ours, theirs = to_tf_keras(METRICS[name], "compile"), METRICS[name]
    assert type(ours).__module__.startswith("tf_keras.") and ours.name == theirs.name
    for metric in (ours, theirs):
        metric.update_state(TRUTH, GUESS)
    np.testing.assert_allclose(ours.result(), theirs.result(), rtol=1e-5)


def test_callbacks_keep_their_options(tmp_path):
    folder = str(tmp_path)
    found = to_tf_keras(
        [
            keras3.callbacks.EarlyStopping("loss", 0.1, 3, mode="min", restore_best_weights=True),
            keras3.callbacks.ModelCheckpoint(f"{folder}/a.keras", "loss", save_best_only=True),
            keras3.callbacks.ReduceLROnPlateau("loss", 0.3, 2, min_lr=0.01),
            keras3.callbacks.LearningRateScheduler(schedules.CosineDecay(0.1, 3)),
            keras3.callbacks.CSVLogger(f"{folder}/log", separator=";", append=True),
            keras3.callbacks.TensorBoard(folder, profile_batch=(2, 3)),
            keras3.callbacks.BackupAndRestore(folder),
            keras3.callbacks.LambdaCallback(on_epoch_end=max),
            keras3.callbacks.TerminateOnNaN(),
            tfbinreg.BinRegularization("joint"),
        ],
        "fit",
    )
    stop, best, slower, rate, log, board, *_, own = found
    assert all(callback.__module__.startswith("tf_keras.") for callback in found[:-1])
    assert (stop.monitor, stop.patience, stop.restore_best_weights) == ("loss", 3, True)
    assert (best.monitor, best.save_best_only) == ("loss", True)
    assert (slower.factor, slower.patience, slower.min_lr) == (0.3, 2, 0.01)
    assert isinstance(rate.schedule, tf_keras.optimizers.schedules.CosineDecay)
    assert (log.sep, log.append) == (";", True)
    assert (board._start_batch, board._stop_batch) == (2, 3)
    assert isinstance(own, tfbinreg.BinRegularization)


class OwnMetric(keras3.metrics.Mean):
    pass


class OwnSchedule(schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1

    def get_config(self):
        return {}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (OwnMetric(), "OwnMetric.*import tf_keras and derive it from tf_keras.metrics.Metric"),
        (keras3.optimizers.Lamb(), "Lamb: tf_keras does not have it"),
        (keras3.losses.Dice(), "Dice: tf_keras does not have it"),
        (keras3.optimizers.SGD(gradient_accumulation_steps=2), "no gradient_accumulation_steps=2"),
        (keras3.optimizers.SGD(OwnSchedule()), "OwnSchedule.*no stock object"),
        (keras3.callbacks.TerminateOnNaN(raise_error=True), "no raise_error=True"),
    ],
)
def test_what_tf_keras_does_not_have_is_refused(value, message):
    with pytest.raises(ValueError, match=f"(?s)Cannot compile model 'net'.*{message}"):
        to_tf_keras({"one": [value]}, "compile model 'net'")


def test_everything_refused_is_listed_and_the_rest_is_left_alone():
    with pytest.raises(ValueError, match=r"(?s)Lamb.*OwnMetric"):
        to_tf_keras([keras3.optimizers.Lamb(), {"a": OwnMetric()}], "compile")
    given = {"a": "mse", "b": [tf_keras.metrics.Mean(), None, max, np.ones(2)]}
    found = to_tf_keras(given, "compile")
    assert found["a"] == "mse" and all(map(lambda x, y: x is y, found["b"], given["b"]))


def test_a_quantized_model_takes_them_all(tmp_path):
    head = keras3.layers.Dense(3, activation="softmax", name="head")
    model = tfbinreg.quantize_apply(keras3.Sequential([keras3.Input((5,)), head]), weight_bits=4)
    model.compile(
        keras3.optimizers.AdamW(schedules.CosineDecay(0.01, 10), weight_decay=0.1),
        {"head": keras3.losses.SparseCategoricalCrossentropy()},
        metrics={"head": [keras3.metrics.SparseCategoricalAccuracy(name="right"), "accuracy"]},
    )
    best = keras3.callbacks.ModelCheckpoint(str(tmp_path / "q.keras"), "right", mode="max")
    stop = keras3.callbacks.EarlyStopping("val_loss", patience=1)
    history = model.fit(X, Y, validation_data=(X, Y), verbose=0, callbacks=[best, stop]).history
    assert {"right", "accuracy", "val_right"} <= set(history)
    model.evaluate(X, Y, verbose=0, callbacks=[keras3.callbacks.LambdaCallback()])
    loaded = tfbinreg.load_model(tmp_path / "q.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert loaded.optimizer.weight_decay == 0.1


def test_loss_scaling_stays():
    inner = keras3.optimizers.SGD(0.1)
    scaled = keras3.optimizers.LossScaleOptimizer(inner, initial_scale=64.0, dynamic_growth_steps=7)
    ours = to_tf_keras(scaled, "compile")
    assert isinstance(ours, tf_keras.mixed_precision.LossScaleOptimizer)
    assert (float(ours.loss_scale), ours.dynamic_growth_steps) == (64.0, 7)
