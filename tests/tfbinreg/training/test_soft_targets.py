import numpy as np
import pytest
import reference
import tensorflow as tf
import tf_keras as keras

from tfbinreg.training import soft_targets
from tfbinreg.training.soft_targets import BINARY, CATEGORICAL, OTHER, SIGMOID, SOFTMAX, SQUARED

TWINS = {
    soft_targets.categorical: reference.soft_classes,
    soft_targets.binary: reference.soft_labels,
}


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("loss", TWINS)
def test_losses_and_gradients_are_the_twins(loss, temperature):
    random = np.random.default_rng(0)
    taught, own = random.normal(scale=3.0, size=(2, 5, 4))
    variable = tf.Variable(own, dtype=tf.float32)
    with tf.GradientTape() as tape:
        values = loss(tf.constant(taught, tf.float32), variable, temperature)
    gradient = tape.gradient(values, variable)
    twins = [TWINS[loss](*rows, temperature) for rows in zip(taught, own, strict=True)]
    np.testing.assert_allclose(values, [value for value, _ in twins], rtol=1e-4)
    np.testing.assert_allclose(gradient, [slope for _, slope in twins], atol=1e-5)
    assert np.all(np.abs(loss(variable, variable, temperature)) < 1e-5)


def test_squared():
    taught, own = np.ones((2, 3, 4), np.float32), np.full((2, 3, 4), 3.0, np.float32)
    np.testing.assert_array_equal(soft_targets.squared(taught, own), np.full((2, 3), 4.0))


@pytest.mark.parametrize(
    ("origin", "loss", "activation", "compare"),
    [
        (SOFTMAX, CATEGORICAL, tf.nn.softmax, soft_targets.categorical),
        (SIGMOID, BINARY, tf.sigmoid, soft_targets.binary),
    ],
)
def test_probabilities_soften_like_their_logits(origin, loss, activation, compare):
    taught, own = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)
    ends = [soft_targets.logits(activation(z), origin, loss) for z in (taught, own)]
    np.testing.assert_allclose(compare(*ends, 3.0), compare(taught, own, 3.0), rtol=1e-3, atol=1e-6)
    certain = soft_targets.logits(tf.constant([[0.0, 1.0]], tf.float16), origin, loss)
    assert np.all(np.isfinite(certain)) and certain.dtype == tf.float32
    np.testing.assert_array_equal(soft_targets.logits(taught, OTHER, loss), taught)


def test_origins_are_found_behind_what_moves_numbers_only():
    layers = keras.layers
    inner = keras.Sequential([layers.Input((4,)), layers.Dense(4, activation="softmax")])
    x = keras.Input((4,))
    outputs = [
        layers.Reshape((2, 2))(inner(x)),
        layers.Activation("linear")(layers.Dense(2, activation="sigmoid")(x)),
        tf.nn.softmax(layers.Dense(2)(x)),
        layers.Softmax()(x),
        layers.Dense(2, activation="relu")(x),
        x,
    ]
    found = soft_targets.origins(keras.Model(x, outputs))
    assert found == [SOFTMAX, SIGMOID, SOFTMAX, SOFTMAX, OTHER, OTHER]

    class Subclassed(keras.Model):
        pass

    assert soft_targets.origins(Subclassed()) is None


def test_compiled_losses_tell_what_linear_outputs_are():
    losses = keras.losses
    known = {
        losses.SparseCategoricalCrossentropy(from_logits=True): CATEGORICAL,
        losses.CategoricalFocalCrossentropy(from_logits=True): CATEGORICAL,
        losses.BinaryCrossentropy(from_logits=True): BINARY,
        losses.Huber(): SQUARED,
        losses.MeanSquaredError(): SQUARED,
        losses.CategoricalCrossentropy(): None,
        losses.Poisson(): None,
        None: None,
    }
    for loss, name in known.items():
        assert soft_targets.loss_of_output(OTHER, loss) == name
        assert soft_targets.loss_of_output(SOFTMAX, loss) == CATEGORICAL
        assert soft_targets.loss_of_output(SIGMOID, loss) == BINARY
