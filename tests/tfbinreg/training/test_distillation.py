import keras as keras_3
import numpy as np
import pytest
import reference
import tensorflow as tf
import tf_keras as keras
from quick import combinations, slow

import tfbinreg
from tfbinreg.training.soft_targets import squared

layers = keras.layers
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(*, softmax=False, seed=0, kind=keras, width=8):
    """A float model of three classes."""
    kind.utils.set_random_seed(seed)
    parts = [
        kind.layers.Input((6,), name="numbers"),
        kind.layers.Dense(width, activation="relu", name="dense"),
        kind.layers.Dense(width, activation="relu", name="middle"),
        kind.layers.Dense(3, name="head"),
    ]
    return kind.Sequential([*parts, kind.layers.Softmax(name="softmax")] if softmax else parts)


def data(count=32):
    random = np.random.default_rng(0)
    return random.normal(size=(count, 6)).astype(np.float32), random.integers(0, 3, count)


def student(loss=CROSSENTROPY, *, softmax=False, rate=0.1, **options):
    model = tfbinreg.quantize_apply(net(softmax=softmax), weight_bits=2, calibration_data=data()[0])
    model.compile(keras.optimizers.SGD(rate), loss, **options)
    return model


def fit(model, epochs=1, batch=16, **options):
    inputs, labels = data()
    options = {"shuffle": False, "verbose": 0, **options}
    return model.fit(inputs, labels, batch, epochs=epochs, **options).history


def expected(model, teacher, temperature, weights=1.0):
    """The distillation loss of logits by the twin, in training, of one batch of all data."""
    taught, own = (np.float64(part) for part in (teacher(data()[0]), model(data()[0], True)))
    rows = zip(taught, own, strict=True)
    losses = np.array([reference.soft_classes(*row, temperature)[0] for row in rows])
    return np.mean(weights * losses)


@combinations(
    lambda softmax, taught_softmax: softmax and not taught_softmax,
    softmax=[False, True],
    taught_softmax=[False, True],
)
def test_the_loss_is_the_twins_whatever_form_the_outputs_have(softmax, taught_softmax):
    teacher = net(softmax=taught_softmax, seed=1)
    loss = "sparse_categorical_crossentropy" if softmax else CROSSENTROPY
    model, alone = (student(loss, softmax=softmax, rate=0.0) for _ in range(2))
    logits = keras.Model(teacher.input, teacher.get_layer("head").output)
    own = keras.Model(model.input, model.get_layer("head_grid").output)
    wanted = expected(own, logits, 3.0)
    tfbinreg.distill(model, teacher, weight=0.5, task_weight=0.25, temperature=3.0)
    history, task = fit(model, batch=32), fit(alone, batch=32)["loss"][0]
    assert history["distillation_loss"] == pytest.approx([wanted], rel=1e-3)
    assert history["loss"] == pytest.approx([0.5 * wanted + 0.25 * task], rel=1e-3)


def test_the_float_model_teaches_by_default_and_stays_as_it_was():
    source = net()
    before = source.get_weights()
    model = tfbinreg.quantize_apply(source, weight_bits=2, calibration_data=data()[0])
    source.set_weights([weight + 1.0 for weight in before])
    tfbinreg.distill(model)
    model.compile("sgd", CROSSENTROPY)
    teacher = model.distillation.teacher
    assert teacher is model.float_model()
    fit(model)
    for weight, value in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    taken = {id(weight) for weight in model.weights}
    assert not taken & {id(weight) for weight in teacher.weights}


@pytest.mark.slow
def test_only_the_student_gets_gradients():
    model, teacher = student(), net(seed=1)
    tfbinreg.distill(model, teacher, task_weight=0.0)
    kernels = [variable.numpy() for variable in model.trainable_variables]
    taught = teacher.get_weights()
    fit(model)
    moved = zip(model.trainable_variables, kernels, strict=True)
    assert all(np.any(variable.numpy() != kernel) for variable, kernel in moved)
    for weight, value in zip(teacher.get_weights(), taught, strict=True):
        np.testing.assert_array_equal(weight, value)
    model.train_on_batch(*data())
    batch = tuple(map(tf.constant, data()))
    with tf.GradientTape() as tape:
        tape.watch(teacher.trainable_variables)
        loss = model.distillation.train_step(model, batch)["distillation_loss"]
    assert not any(g is not None for g in tape.gradient(loss, teacher.trainable_variables))


@pytest.mark.slow
def test_a_teacher_is_replaced_and_removed_whenever():
    plain, model = student(), student()
    first = fit(plain)
    assert fit(model) == first
    tfbinreg.distill(model, net(seed=1))
    assert "distillation_loss" in fit(model)
    for layer, other in zip(model.weights, plain.weights, strict=True):
        layer.assign(other)
    model.optimizer.iterations.assign(plain.optimizer.iterations)
    tfbinreg.distill(model, net(seed=2), weight=0.0)
    unweighted, again = fit(model), fit(plain)
    assert unweighted.pop("distillation_loss")[0] > 0 and unweighted == again
    tfbinreg.distill(model, teacher=False)
    assert model.distillation is None and fit(model) == fit(plain)


@pytest.mark.slow
def test_evaluation_is_that_of_the_task():
    model, alone = student(rate=0.0), student(rate=0.0)
    tfbinreg.distill(model, net(seed=1))
    history = fit(model, epochs=2, validation_data=data())
    assert set(history) == {"loss", "distillation_loss", "val_loss"}
    assert history["val_loss"] == fit(alone, epochs=2, validation_data=data())["val_loss"]
    assert history["distillation_loss"][0] == pytest.approx(history["distillation_loss"][1])
    assert model.evaluate(*data(), verbose=0) == alone.evaluate(*data(), verbose=0)


@pytest.mark.slow
def test_steps_per_execution_and_eager_steps_compute_the_same():
    histories = []
    for options in ({}, {"steps_per_execution": 2}, {"run_eagerly": True}):
        model = student(**options)
        tfbinreg.distill(model, net(seed=1))
        histories.append(fit(model, epochs=2))
    for other in histories[1:]:
        for name, values in histories[0].items():
            assert other[name] == pytest.approx(values, rel=1e-5)


def test_sample_weights_act_on_the_distillation_too():
    model, teacher = student(rate=0.0), net(seed=1)
    weights = np.linspace(0.0, 2.0, 32)
    wanted = expected(model, teacher, 4.0, weights)
    tfbinreg.distill(model, teacher, task_weight=0.0)
    history = fit(model, batch=32, sample_weight=weights)
    assert history["distillation_loss"] == pytest.approx([wanted], rel=1e-4)
    assert history["loss"] == pytest.approx([wanted], rel=1e-4)


def test_inputs_without_targets_are_enough_without_a_task():
    model = student()
    tfbinreg.distill(model, net(seed=1), task_weight=0.0)
    losses = model.fit(data()[0], epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    tfbinreg.distill(model, net(seed=1))
    with pytest.raises(ValueError, match="Target data is missing"):
        model.fit(data()[0], verbose=0)


def two_outputs(seed=0):
    keras.utils.set_random_seed(seed)
    inputs = {"one": keras.Input((6,), name="one"), "other": keras.Input((4,), name="other")}
    x = layers.Concatenate()([layers.Dense(4)(x) for x in inputs.values()])
    outputs = {
        "kind": layers.Dense(3, activation="softmax", name="kind"),
        "size": layers.Dense(2, name="size"),
    }
    return keras.Model(inputs, {name: layer(x) for name, layer in outputs.items()})


@pytest.mark.slow
def test_several_inputs_and_outputs():
    random = np.random.default_rng(0)
    inputs = {name: random.normal(size=(16, n)) for name, n in (("one", 6), ("other", 4))}
    targets = {"kind": random.integers(0, 3, 16), "size": random.normal(size=(16, 2))}
    model = tfbinreg.quantize_apply(two_outputs(), weight_bits=2, calibration_data=inputs)
    losses = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
    model.compile(keras.optimizers.SGD(0.0), losses, loss_weights={"size": 3.0})
    teacher = two_outputs(seed=1)
    swapped = dict(reversed(teacher.input.items()))
    teacher = keras.Model(list(swapped.values()), teacher.output)
    taught = teacher([inputs[name] for name in swapped])
    own = model({name: tf.constant(x, tf.float32) for name, x in inputs.items()}, training=True)
    size = float(np.mean(squared(taught["size"], own["size"])))
    logs = {}
    for loss in ("auto", {"size": "mse"}, {"size": lambda p, q: tf.reduce_max(abs(p - q), -1)}):
        tfbinreg.distill(model, teacher, loss=loss)
        history = model.fit(inputs, targets, 16, verbose=0, shuffle=False).history
        logs[str(loss)[:6]] = history
    kind = logs["auto"]["distillation_loss"][0] - 3.0 * size
    assert logs["{'size"]["distillation_loss"][0] != pytest.approx(3.0 * size)
    rows = zip(*(np.log(np.float64(part["kind"])) for part in (taught, own)), strict=True)
    assert kind == pytest.approx(np.mean([reference.soft_classes(*r, 4.0)[0] for r in rows]), 1e-3)
    tfbinreg.distill(model, teacher, loss={"size": keras.losses.MeanSquaredError()})
    history = model.fit(inputs, targets, 16, verbose=0).history
    assert history["distillation_loss"] == pytest.approx([3.0 * size], rel=1e-4)
    model.compile("sgd", {"kind": "sparse_categorical_crossentropy"})
    tfbinreg.distill(model, teacher)
    history = model.fit(inputs, {"kind": targets["kind"]}, 16, verbose=0).history
    assert history["distillation_loss"] == pytest.approx([kind], rel=1e-3)


@pytest.mark.slow
def test_teachers_of_keras_3_and_of_no_graph():
    teacher = net(seed=1)
    other = net(seed=1, kind=keras_3)
    other.set_weights(teacher.get_weights())

    class Subclassed(keras.Model):
        def call(self, inputs, training=None):
            return teacher(inputs)

    histories = []
    for own in (teacher, other, Subclassed()):
        model = student()
        tfbinreg.distill(model, own)
        histories.append(fit(model)["distillation_loss"])
    np.testing.assert_allclose(histories, [histories[0]] * 3, rtol=1e-5)


def test_mixed_precision_stays_finite():
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = student(softmax=True, loss="sparse_categorical_crossentropy")
        keras.mixed_precision.set_global_policy("float32")
        tfbinreg.distill(model, net(softmax=True, seed=1), temperature=1.0)
        keras.mixed_precision.set_global_policy("mixed_float16")
        history = fit(model, epochs=3)
    finally:
        keras.mixed_precision.set_global_policy(before)
    assert np.all(np.isfinite([history["loss"], history["distillation_loss"]]))


@pytest.mark.slow
def test_a_quantized_teacher_teaches():
    teacher = tfbinreg.quantize_apply(net(seed=1), weight_bits=8, calibration_data=data()[0])
    model = student()
    tfbinreg.distill(model, teacher)
    assert fit(model)["distillation_loss"][0] > 0


@pytest.mark.parametrize("file", ["q.keras", *slow("q.h5", "folder")])
def test_the_teacher_is_not_saved_and_training_goes_on(file, tmp_path):
    whole, model = student(), student()
    plain = student()
    for each in (whole, model):
        tfbinreg.distill(each, net(seed=1))
    longer = fit(whole, epochs=2)
    fit(model)
    path = tmp_path / file
    with pytest.warns(tfbinreg.QuantizationWarning, match="finalized"):
        model.save(path)
    loaded = tfbinreg.load_model(path)
    assert [weight.name for weight in loaded.weights] == [weight.name for weight in plain.weights]
    assert loaded.distillation is None
    with pytest.raises(ValueError, match="no float model to learn from, since it was loaded"):
        tfbinreg.distill(loaded)
    if file == "folder":
        loaded.compile(keras.optimizers.SGD(0.1), CROSSENTROPY)
    tfbinreg.distill(loaded, net(seed=1))
    history = fit(loaded)
    assert history["distillation_loss"] == pytest.approx(longer["distillation_loss"][1:], rel=1e-6)


@pytest.mark.slow
def test_a_small_net_learns_more_with_its_teacher():
    random = np.random.default_rng(0)
    centres, kinds = random.normal(size=(12, 6)), random.integers(0, 12, 3000)
    inputs = (centres[kinds] + 0.5 * random.normal(size=(3000, 6))).astype(np.float32)
    truth = kinds % 3
    labels = np.where(random.uniform(size=3000) < 0.4, random.integers(0, 3, 3000), truth)
    recipe = tfbinreg.Recipe(weight_bits=3, activation_bits=3, first_last_bits=None)
    for seed in range(3):
        teacher = net(seed=seed, width=64)
        teacher.compile(keras.optimizers.Adam(0.01), CROSSENTROPY)
        teacher.fit(inputs[:1500], labels[:1500], 50, epochs=4, verbose=0)
        right = []
        for own in (False, teacher):
            small = net(seed=seed, width=16)
            model = tfbinreg.quantize_apply(small, recipe, calibration_data=inputs[:256])
            model.compile(keras.optimizers.Adam(0.01), CROSSENTROPY)
            tfbinreg.distill(model, own, task_weight=0.0, temperature=2.0)
            model.fit(inputs[:200], labels[:200], 50, epochs=20, verbose=0)
            right.append(np.mean(np.argmax(model(inputs[1500:]), -1) == truth[1500:]))
        assert right[1] > right[0]  # by 3 to 6 points


def test_what_does_not_fit_is_refused():
    model = student()
    subclassed = keras.Sequential([layers.Dense(5)])
    wrong = [
        (net(), {}, "needs a model from tfbinreg.quantize_apply"),
        (model, {"teacher": model}, "cannot be its own teacher"),
        (model, {"weight": -1.0}, "weight must be a number from 0 on, got -1.0"),
        (model, {"task_weight": float("inf")}, "task_weight must be a number from 0 on"),
        (model, {"temperature": 0.0}, "temperature must be positive, got 0.0"),
        (model, {"loss": "kl"}, "loss must be 'auto', 'categorical', 'binary', 'mse' or a func"),
        (model, {"loss": {"heads": "mse"}}, "names outputs 'heads', the model has 'head'"),
        (model, {"loss": {}}, "compares no output"),
    ]
    for one, options, message in wrong:
        with pytest.raises(ValueError, match=message):
            tfbinreg.distill(one, **options)
    other = keras.Sequential([layers.Input((5,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=r"inputs of shape \(5,\), the model inputs of \(6,\)"):
        tfbinreg.distill(model, other)
    other = keras_3.Sequential([keras_3.layers.Input((6,)), keras_3.layers.Dense(4)])
    with pytest.raises(ValueError, match=r"outputs of shape \(4,\), the model outputs of \(3,\)"):
        tfbinreg.distill(model, other)
    with pytest.raises(TypeError, match=r"must be a Keras model, got builtins\.str"):
        tfbinreg.distill(model, "teacher.keras")
    assert model.distillation is None
    tfbinreg.distill(model, subclassed)
    with pytest.raises(ValueError, match=r"outputs of shape \(5,\), the model outputs of \(3,\)"):
        fit(model)


def test_a_loss_that_cannot_be_chosen_is_refused_when_it_is_known():
    model = student(loss="sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="'head' holds logits or other numbers cannot be told"):
        tfbinreg.distill(model)
    model = tfbinreg.quantize_apply(net(), weight_bits=2, calibration_data=data()[0])
    tfbinreg.distill(model, net(seed=1))
    model.compile("sgd", lambda targets, outputs: tf.reduce_mean(outputs, -1))
    with pytest.raises(ValueError, match="cannot be told"):
        fit(model)
    tfbinreg.distill(model, net(seed=1), loss="categorical")
    assert fit(model)["distillation_loss"][0] > 0


def test_a_teacher_on_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras_3.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match="has to run on TensorFlow, not on torch"):
        tfbinreg.distill(student(), net(kind=keras_3))
