import itertools

import numpy as np
import pytest
import tf_keras as keras
import trainable_net

import tfbinreg
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.training.weight_statistics import shares_near_edges


class Codes(keras.callbacks.Callback):
    """Counts the changes of codes from step to step, outside the graph."""

    def on_epoch_begin(self, epoch, logs=None):
        self.shares = {site.name: [] for site in kernel_sites(self.model)}

    def on_train_batch_begin(self, batch, logs=None):
        self.before = {site.name: site.codes() for site in kernel_sites(self.model)}

    def on_train_batch_end(self, batch, logs=None):
        for site in kernel_sites(self.model):
            self.shares[site.name].append(np.mean(site.codes() != self.before[site.name]))


def test_the_log_counts_what_a_look_at_each_step_counts():
    model = trainable_net.build(0.05)
    codes, log = Codes(), tfbinreg.TransitionLog(per_layer=True)
    fit = {"epochs": 3, "batch_size": 8, "verbose": 0}
    history = model.fit(*trainable_net.data(), callbacks=[codes, log], **fit).history
    for name, shares in codes.shares.items():
        found = history[f"code_changes/{name}"]
        assert len(found) == 3 and found[-1] == pytest.approx(np.mean(shares), rel=1e-5)
    # Only the kernel of few bits counts in the mean.
    assert history["code_changes"] == pytest.approx(history["code_changes/middle"])
    assert history["near_edge"] == pytest.approx(history["near_edge/middle"])
    assert max(history["code_changes/middle"]) > 0.0


def test_shares_near_edges():
    model = trainable_net.build()
    (site,) = [site for site in kernel_sites(model) if site.name == "middle"]
    step = float(site.step)
    scaled = np.zeros(site.kernel.shape, np.float32)
    # Edges at -1.5, -0.5 and 0.5 steps; 1.5 is inside the outermost bin.
    for index, value in enumerate([0.46, 0.54, 0.56, -0.52, -1.47, 1.5, -2.5, 0.04]):
        scaled.flat[index] = value
    site.kernel.assign(scaled * step)
    assert shares_near_edges(model)["middle"] == pytest.approx(4 / scaled.size)


def test_all_kernels_count_where_none_has_few_bits():
    model = trainable_net.build(0.05, tfbinreg.Recipe(weight_bits=8))
    log = tfbinreg.TransitionLog()
    history = model.fit(*trainable_net.data(), callbacks=[log], verbose=0).history
    assert history["code_changes"][0] > 0.0 and "code_changes/middle" not in history


def test_a_mixed_kernel_counts_with_its_channels_of_few_bits():
    rules = [tfbinreg.Rule(layer="middle", weight_bits=(0, 8, 2, 8))]
    model = trainable_net.build(0.05, tfbinreg.Recipe(rules=rules))
    seen = []

    def look(*_):
        (site,) = [site for site in kernel_sites(model) if site.name == "middle"]
        seen.append(site.codes()[..., 2])

    watch = keras.callbacks.LambdaCallback(on_train_begin=look, on_train_batch_end=look)
    log = tfbinreg.TransitionLog()
    fit = {"batch_size": 8, "verbose": 0, "callbacks": [watch, log]}
    history = model.fit(*trainable_net.data(), **fit).history
    flips = np.mean([before != after for before, after in itertools.pairwise(seen)])
    assert history["code_changes"] == pytest.approx([flips]) and flips > 0.0


def test_a_float_model_is_refused():
    model = keras.Sequential([keras.layers.Dense(1, input_shape=(2,))])
    with pytest.raises(ValueError, match="TransitionLog needs a model from tfbinreg"):
        tfbinreg.TransitionLog().set_model(model)
