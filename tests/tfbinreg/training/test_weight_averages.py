import numpy as np
import pytest
import tf_keras as keras
import trainable_net

import tfbinreg


def test_validation_sees_the_averages_and_training_goes_on_with_the_weights():
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(("train", self.model.trainable_variables[0].numpy()))

        def on_test_batch_end(self, batch, logs=None):
            seen.append(("test", self.model.trainable_variables[0].numpy()))

    images, labels = trainable_net.data()
    results = []
    for callbacks in ([], [tfbinreg.EvaluateAverages(), Watch()]):
        model = trainable_net.build(0.05)
        optimizer = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5)
        model.compile(optimizer, "sparse_categorical_crossentropy")
        start = model.trainable_variables[0].numpy()
        fit = {"epochs": 2, "batch_size": 32, "shuffle": False, "verbose": 0}
        data = (images, labels)
        model.fit(*data, callbacks=callbacks, validation_data=(images[:8], labels[:8]), **fit)
        results.append(model.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
    average = start
    for what, value in seen:
        if what == "train":
            average = 0.5 * average + 0.5 * value
        else:
            np.testing.assert_allclose(value, average, rtol=1e-5, atol=1e-7)
    assert [what for what, _ in seen] == ["train", "train", "test"] * 2
    np.testing.assert_allclose(model.trainable_variables[0], average, rtol=1e-5, atol=1e-7)
    model.evaluate(images, labels, verbose=0)  # by itself it evaluates the weights there are
    np.testing.assert_array_equal(model.get_weights()[0], results[1][0])


def test_an_optimizer_without_averages_is_refused():
    model = trainable_net.build()
    with pytest.raises(ValueError, match="compile with use_ema=True"):
        model.fit(*trainable_net.data(), callbacks=[tfbinreg.EvaluateAverages()], verbose=0)
