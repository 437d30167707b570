"""What `fit` does for methods: a penalty of their own variables, acts between epochs, curvature."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from quick import slow

import tfbinreg
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.methods import roster
from tfbinreg.methods.lsq import LSQ, LsqOptions

OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "amsgrad": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "legacy": lambda: keras.optimizers.legacy.Adam(0.01),
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
}


@dataclasses.dataclass(frozen=True)
class Options(LsqOptions):
    strength: float = 0.5


@keras.utils.register_keras_serializable(package="training_progress")
class Scaled(tfbinreg.LSQWeightQuantizer):
    """LSQ's, which doubles what it is told of the curvature and sets a variable to it."""

    acts_after_steps = True

    def build(self, tensor_shape, name, layer):
        seen = self.add_variable(layer, name, tensor_shape, False, "zeros", "seen")
        return {**super().build(tensor_shape, name, layer), "seen": seen}

    def after_step(self, step):
        try:
            step.variables["seen"].assign(step.curvature())
        except ValueError as error:
            assert "SGD keeps none" in str(error)
        return step.kernel


CALLS = []
METHOD = dataclasses.replace(
    LSQ,
    name="acting",
    options=Options,
    weights=lambda spec, options: Scaled(spec.bits, spec.axis),
    penalty=lambda view, options: tf.square(view.parameters["step"]) / view.weights,
    strength=lambda options: options.strength,
    between_epochs=lambda kernels, epoch, options: CALLS.append((epoch, kernels)),
    about=None,
)


def data():
    random = np.random.default_rng(0)
    return random.normal(size=(16, 4)).astype(np.float32), random.integers(0, 3, 16)


def make(optimizer="adam", **options):
    tfbinreg.register_method(METHOD)
    CALLS.clear()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(5, "relu", name="first"),
            layers.Dense(4, "relu", name="middle"),
            layers.Dense(3, name="head"),
        ]
    )
    rules = (tfbinreg.Rule(layer="middle", method="lsq"),)
    recipe = tfbinreg.Recipe(method="acting", rules=rules, **options)
    model = tfbinreg.quantize_apply(net, recipe, calibration_data=data()[0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(OPTIMIZERS[optimizer](), loss)
    return model


def test_a_penalty_of_a_methods_own_kernels_acts_without_a_schedule():
    model = make()
    first, middle, head = kernel_sites(model)
    assert (first.method, middle.method) == ("acting", "lsq")
    weights = first.size + head.size
    expected = (float(first.step) ** 2 + float(head.step) ** 2) / weights
    assert float(model.penalty("acting")) == pytest.approx(expected, rel=1e-6)
    with tf.GradientTape() as tape:
        loss = model.losses[0]
    assert float(loss) == pytest.approx(0.5 * expected, rel=1e-6)
    steps = [first.step, middle.step, head.step]
    gradients = tape.gradient(loss, steps, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    wanted = [float(first.step) / weights, 0.0, float(head.step) / weights]
    np.testing.assert_allclose([float(g) for g in gradients], wanted, rtol=1e-6)
    curvatures = model.penalty_of("acting").curvatures()
    assert [float(own) for own in curvatures] == [0.0, 0.0, 0.0]  # it pulls no weight


@pytest.mark.slow
def test_a_schedule_may_raise_its_strength():
    model = make(options={"acting": {"strength": 0.0}})
    schedule = tfbinreg.PenaltySchedule("acting", "joint", strength=2.0)
    history = model.fit(*data(), 8, epochs=2, verbose=0, callbacks=[schedule])
    assert history.history["acting_strength"] == [2.0, 2.0]


def test_methods_act_before_each_epoch_also_of_a_training_that_goes_on():
    model = make()
    model.fit(*data(), 8, epochs=2, verbose=0)
    model.fit(*data(), 8, epochs=4, initial_epoch=3, verbose=0)
    assert [epoch for epoch, _ in CALLS] == [0, 1, 3]
    assert all([k.name for k in kernels] == ["first", "head"] for _, kernels in CALLS)
    kernel, site = CALLS[-1][1][0], kernel_sites(model)[0]
    assert kernel.kernel is site.kernel and kernel.quantizer is site.quantizer
    assert kernel.latent.shape == (4, 5) and kernel.variables["step"] is site.step


@pytest.mark.parametrize("optimizer", ["adam", *slow("amsgrad", "legacy")])
def test_the_curvature_is_the_same_within_a_step_and_after_it(optimizer):
    model = make(optimizer)
    model.fit(*data(), 8, epochs=1, verbose=0)
    seen = kernel_sites(model)[0].variables["seen"].numpy()
    np.testing.assert_allclose(CALLS[0][1][0].curvature(), seen, rtol=1e-6)
    assert np.all(seen >= 0.0) and np.any(seen > 0.0)


def test_adams_first_step_is_the_sign_of_the_gradient():
    model = make(options={"acting": {"strength": 0.0}})
    images, labels = data()
    model.fit(images, labels, 16, epochs=1, verbose=0)
    (first, *_) = kernel_sites(model)
    optimizer = model.optimizer
    place = optimizer._index_dict[optimizer._var_key(first.kernel)]
    gradient = optimizer._momentums[place].numpy() / (1.0 - optimizer.beta_1)
    np.testing.assert_allclose(first.variables["seen"], np.abs(gradient), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["amsgrad", *slow("adam", "legacy")])
def test_there_is_no_curvature_before_the_first_step(optimizer, monkeypatch):
    model, seen = make(optimizer), []
    look = dataclasses.replace(
        METHOD,
        between_epochs=lambda kernels, epoch, options: seen.append(kernels[0].curvature()),
    )
    monkeypatch.setitem(roster._methods, "acting", look)
    model.fit(*data(), 16, epochs=2, verbose=0)
    assert seen[0].shape == (4, 5) and not np.any(seen[0]) and np.any(seen[1])


def test_a_frozen_kernel_is_left_alone():
    model = make()
    first, _, head = kernel_sites(model)
    first.layer.trainable = False
    model.compile(OPTIMIZERS["adam"](), model.loss)
    model.fit(*data(), 16, epochs=1, verbose=0)
    assert not np.any(first.variables["seen"]) and np.any(head.variables["seen"])


@pytest.mark.parametrize(
    "optimizer", ["adam", *slow(*(name for name in OPTIMIZERS if name != "adam"))]
)
def test_what_the_optimizer_keeps_starts_again_at_zero(optimizer):
    model = make(optimizer)
    model.fit(*data(), 16, epochs=2, verbose=0)
    first, _, head = kernel_sites(model)
    kernel = CALLS[-1][1][0]
    kernel.restart()

    def slots(variable):
        own = model.optimizer
        if optimizer == "legacy":
            return [own.get_slot(variable, name).numpy() for name in own.get_slot_names()]
        return [v.numpy() for v in own.variables if v.name.endswith(f"/{variable.name}")]

    for variable in (first.kernel, first.step):
        found = slots(variable)
        assert found and all(np.all(slot == 0.0) for slot in found)
    assert any(np.any(slot != 0.0) for slot in slots(head.kernel))


def test_a_restart_before_the_first_step_does_nothing(monkeypatch):
    seen = []

    def restart_all(kernels, epoch, options):
        for kernel in kernels:
            kernel.restart()
        seen.append(epoch + kernels[0].progress)

    restart = dataclasses.replace(METHOD, between_epochs=restart_all)
    model = make()
    monkeypatch.setitem(roster._methods, "acting", restart)
    model.fit(*data(), 16, epochs=2, verbose=0)
    assert int(model.optimizer.iterations) == 2
    assert seen == [0.0, 1.5]


def test_sgd_keeps_no_curvature():
    model = make("sgd")
    model.fit(*data(), 16, epochs=1, verbose=0)
    with pytest.raises(ValueError, match=r"^Method 'acting' of layer .* SGD keeps none"):
        CALLS[0][1][0].curvature()


def test_methods_without_these_parts_stay_out():
    assert roster.penalties_of(tfbinreg.Recipe()) == ("bin_regularization",)
    make()
    assert roster.penalties_of(tfbinreg.Recipe(method="acting")) == ("bin_regularization", "acting")
