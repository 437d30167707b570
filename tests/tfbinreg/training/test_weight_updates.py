"""Updates in `fit`: in order, along the epochs, and resumed."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
import trainable_net

import tfbinreg
from tfbinreg.methods import roster

FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """None."""


@pytest.fixture
def seen(monkeypatch):
    """What two updates of a test saw: (name, progress, step.kernel of `middle`)."""
    calls = []

    def update(name, factor):
        def apply(step, state, options):
            if step.name == "middle":
                tf.py_function(
                    lambda *values: calls.append((name, *(v.numpy() for v in values))),
                    [step.progress, step.kernel],
                    [],
                )
            return step.kernel * factor, state

        return tfbinreg.Method(name=name, options=NoOptions, update=apply)

    own = {name: update(name, factor) for name, factor in (("half", 0.5), ("twice", 2.0))}
    monkeypatch.setattr(roster, "_methods", {**roster._methods, **own})
    return calls


def test_updates_are_applied_in_order_along_the_epochs(seen):
    model = trainable_net.build(0.05, tfbinreg.Recipe(weight_bits=2, updates=("half", "twice")))
    model.fit(*trainable_net.data(), epochs=2, **FIT)
    assert [name for name, _, _ in seen] == ["half", "twice"] * 16
    np.testing.assert_allclose([p for _, p, _ in seen[::2]], np.arange(16) / 16, atol=1e-6)
    for (_, _, first), (_, _, second) in zip(seen[::2], seen[1::2], strict=True):
        np.testing.assert_array_equal(second, 0.5 * first)
    np.testing.assert_array_equal(model.get_layer("quant_middle").layer.kernel, 2.0 * seen[-1][2])


def test_a_dataset_of_unknown_size_moves_on_after_its_first_epoch(seen):
    model = trainable_net.build(0.05, tfbinreg.Recipe(weight_bits=2, updates=("half",)))
    batches = tf.data.Dataset.from_tensor_slices(trainable_net.data()).batch(32)
    unknown = batches.filter(lambda *_: True)
    model.fit(unknown, epochs=2, verbose=0, callbacks=keras.callbacks.CallbackList())
    np.testing.assert_allclose([p for _, p, _ in seen], [0.0, 0.0, 0.5, 0.75])


@pytest.mark.slow
def test_updates_go_on_from_a_backup_as_if_nothing_had_stopped(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise InterruptedError

    own = {"momentum": 0.2, "first_threshold": 0.1, "last_threshold": 0.05, "begin": 0.0}
    recipe = tfbinreg.Recipe(
        weight_bits=2,
        first_last_bits=None,
        updates=("freezing", "trs"),
        options={"freezing": own, "trs": {"gain": 0.3}},
    )

    def train(*callbacks):
        model = trainable_net.build(0.05, recipe)
        model.fit(*trainable_net.data(), epochs=4, callbacks=list(callbacks), **FIT)
        return model

    whole = train()
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(InterruptedError):
        train(backup, Stop())
    resumed = train(keras.callbacks.BackupAndRestore(tmp_path))
    (frozen, _) = whole.updates
    assert np.any(frozen.states["middle"]["frozen"].numpy())
    for one, other in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(one, other, one.name)
