"""What a trace takes for granted, and that it is traced anew when it is no longer so."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg.layers.sites import activation_sites
from tfbinreg.methods.trace_facts import (
    TraceFacts,
    exceeds,
    shapes_only,
    shapes_suffice,
)
from tfbinreg.training.traced_function import TracedFunction


def conditionals(function):
    """How many conditionals the graph of a concrete function has, with all that it calls."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for own in graph.library.function for node in own.node_def)]
    return sum(node.op in ("If", "StatelessIf") for node in nodes)


def test_a_fact_is_found_in_a_trace_that_collects_them():
    variable, facts, found = tf.Variable(1), TraceFacts(), []

    def look():
        found.append(exceeds(variable, 0))
        return tf.constant(0)

    tf.function(look)()
    assert tf.is_tensor(found.pop())  # nobody collects
    with facts.collected():
        look()
        assert found.pop().numpy() and facts.hold()  # eager: nothing is traced
        variable.assign(0)
        assert facts.hold()  # as nothing was found yet
        tf.function(look)()
        assert tf.is_tensor(found.pop())  # it is not so
        variable.assign(1)
        tf.function(look)()
    assert found == [True] and facts.hold()
    variable.assign(0)
    assert not facts.hold()


def test_scopes_end_with_what_was_before():
    outer, inner, variable = TraceFacts(), TraceFacts(), tf.Variable(1)
    with outer.collected():
        with pytest.raises(KeyError), inner.collected():
            raise KeyError
        tf.function(lambda: tf.cast(exceeds(variable, 0), tf.float32))()
    variable.assign(0)
    assert inner.hold() and not outer.hold()
    assert not shapes_suffice()
    with shapes_only():
        with shapes_only():
            pass
        assert shapes_suffice()
    assert not shapes_suffice()


def test_a_function_is_traced_anew_once_a_fact_is_none():
    variable, found = tf.Variable(1), []

    def look(batch):
        found.append(exceeds(variable, 0))
        return batch

    function = TracedFunction(lambda: tf.function(look))
    for started in (1, 1, 0, 0):
        variable.assign(started)
        function(tf.zeros(()))
    assert found[0] is True and len(found) == 2 and tf.is_tensor(found[1])


def make(samples, calibrated=True):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [
            layers.Input((4, 4, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Activation(keras.activations.swish),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    model = tfbinreg.quantize_apply(
        net, weight_bits=4, calibration_data=samples if calibrated else None
    )
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(0).normal(size=(8, 4, 4, 3)).astype(np.float32)


def trained(model, samples):
    model.fit(samples, np.ones((8, 2)), 4, 2, shuffle=False, verbose=0)
    return model.predict(samples, verbose=0)


def test_training_is_the_same_with_and_without_conditionals(samples, monkeypatch):
    model = make(samples)
    assert len(activation_sites(model)) > 2
    found = trained(model, samples)
    with monkeypatch.context() as patch:
        patch.setattr(TraceFacts, "collected", lambda facts: assert_scope())
        other = make(samples)
        np.testing.assert_array_equal(trained(other, samples), found)
    for own, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(own, theirs)


class assert_scope:  # noqa: N801, stands for a context manager's function
    """A scope in which nothing is collected."""

    def __enter__(self):
        return None

    def __exit__(self, *_):
        return None


@pytest.mark.parametrize("training", [True, False])
def test_there_are_no_conditionals_once_grids_are_started(training, samples):
    found = []
    for calibrated in (True, False):
        model = make(samples, calibrated)
        step = tf.function(lambda inputs, model=model: model(inputs, training=training))
        with TraceFacts().collected():
            found.append(conditionals(step.get_concrete_function(samples)))
    assert found[0] == 0 and found[1] >= len(activation_sites(model))


def test_the_functions_of_keras_are_traced_with_facts(samples):
    model = make(samples)
    trained(model, samples)
    model.evaluate(samples, np.ones((8, 2)), verbose=0)
    started = {(site.variables["initialized"].ref(), 0) for site in activation_sites(model)}
    for function in (model.train_function, model.test_function, model.predict_function):
        assert started <= function._facts._found


def test_grids_that_are_reset_start_again(samples):
    model, uncalibrated = make(samples), make(samples, calibrated=False)
    start = uncalibrated.get_weights()
    trained(model, samples)
    model.set_weights(start)
    before = model.predict(samples, verbose=0)
    np.testing.assert_array_equal(before, uncalibrated.predict(samples, verbose=0))
    np.testing.assert_array_equal(trained(model, samples), trained(uncalibrated, samples))
    assert all(site.variables["initialized"].numpy() for site in activation_sites(model))
    model.set_weights(start)
    for own in (model, uncalibrated):
        own.train_on_batch(samples, np.ones((8, 2)))
    assert all(site.variables["initialized"].numpy() for site in activation_sites(model))


def test_grids_that_a_callback_resets_start_with_the_next_batch(samples):
    model, start = make(samples), make(samples, calibrated=False).get_weights()
    resets = [
        keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: epoch == 1 and model.set_weights(start)
        ),
        keras.callbacks.LambdaCallback(
            on_test_batch_begin=lambda batch, logs: batch == 1 and model.set_weights(start)
        ),
    ]
    data = samples, np.ones((8, 2))
    model.fit(*data, 4, 2, verbose=0, callbacks=resets[:1])
    assert all(site.variables["initialized"].numpy() for site in activation_sites(model))
    tfbinreg.finalize(model, samples)
    model.fit(*data, 4, 1, verbose=0, validation_data=data, callbacks=resets[1:])
    assert not any(site.variables["initialized"].numpy() for site in activation_sites(model))


@pytest.mark.parametrize("step", ["train_step", "test_step", "predict_step"])
def test_functions_of_the_users_own_take_nothing_for_granted(step, samples):
    model, other = make(samples), make(samples, calibrated=False)
    start, labels = other.get_weights(), () if step == "predict_step" else (np.ones((8, 2)),)
    found = []
    for own in (model, other):
        own.optimizer.build(own.trainable_variables)
        function = tf.function(lambda *data, own=own: getattr(own, step)(data))
        if own is model:
            function(samples, *labels)
            model.set_weights(start)
            model.reset_metrics()
        result = function(3.0 * samples, *labels)
        found.append(tf.nest.map_structure(np.asarray, result))
    tf.nest.map_structure(np.testing.assert_array_equal, *found)
    ready = [bool(site.variables["initialized"].numpy()) for site in activation_sites(model)]
    assert all(ready) if step == "train_step" else not any(ready)


def test_evaluation_is_traced_anew_too(samples):
    model = make(samples)
    model.evaluate(samples, np.ones((8, 2)), verbose=0)
    uncalibrated = make(samples, calibrated=False)
    model.set_weights(uncalibrated.get_weights())
    scores = [own.evaluate(samples, np.ones((8, 2)), verbose=0) for own in (model, uncalibrated)]
    assert scores[0] == scores[1]


def test_layers_are_built_where_only_shapes_matter(samples):
    model = make(samples)
    assert all(site.variables for site in activation_sites(model))
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(
        again.predict(samples, verbose=0), model.predict(samples, verbose=0)
    )
