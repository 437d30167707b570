import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg.layers.sites import kernel_sites, sites


def build(recipe=None, **bin_options):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((6,)), layers.Dense(8, activation="relu", name="dense"),
         layers.Dense(8, name="dense_1"), layers.ReLU(), layers.Dense(3, name="head")]
    )  # fmt: skip
    random = np.random.default_rng(0)
    inputs = random.normal(size=(64, 6)).astype(np.float32)
    recipe = recipe or tfbinreg.Recipe(weight_bits=2)
    if bin_options:
        recipe = recipe.with_options("bin_regularization", **bin_options)
    quantized = tfbinreg.quantize_apply(model, recipe, calibration_data=inputs)
    return quantized, inputs, random.normal(size=(64, 3)).astype(np.float32)


def test_weight_decay_spares_the_steps():
    model, inputs, targets = build()
    steps = [step.numpy() for step in model.step_variables]
    kernels = [weight.numpy() for weight in model.trainable_variables if "kernel:" in weight.name]
    # A vanishing gradient and a strong decay: only the decay moves anything.
    model.compile(keras.optimizers.experimental.SGD(1e-3, weight_decay=0.5), "mse", loss_weights=0)
    model.fit(inputs, targets, epochs=1, verbose=0)
    assert [step.numpy() for step in model.step_variables] == steps
    decayed = [weight.numpy() for weight in model.trainable_variables if "kernel:" in weight.name]
    for before, after in zip(kernels, decayed, strict=True):
        assert np.linalg.norm(after) < np.linalg.norm(before)


def test_weight_decay_spares_the_steps_after_loading(tmp_path):
    model, inputs, targets = build()
    model.compile(keras.optimizers.AdamW(1e-4, weight_decay=0.1), "mse")
    model.fit(inputs, targets, epochs=1, verbose=0)
    model.save(tmp_path / "q.keras")
    loaded = tfbinreg.load_model(tmp_path / "q.keras")
    optimizer = loaded.optimizer
    assert not any(optimizer._use_weight_decay(step) for step in loaded.step_variables)
    assert optimizer._use_weight_decay(loaded.trainable_variables[0])


def test_a_used_optimizer_with_weight_decay_is_refused():
    optimizer = keras.optimizers.AdamW(1e-4, weight_decay=0.1)
    optimizer.build([])
    with pytest.raises(ValueError, match="new optimizer"):
        build()[0].compile(optimizer, "mse")


@pytest.mark.parametrize("rate", [1e-3, 10.0])
def test_steps_stay_usable_whatever_the_optimizer_does(rate):
    model, inputs, targets = build()
    model.compile(keras.optimizers.Adam(rate), "mse")
    model.fit(inputs, targets, epochs=3, verbose=0)
    for site in sites(model):
        assert site.grid().scale > 0


@pytest.mark.parametrize("rate", [0.0, 0.125])
@pytest.mark.parametrize("make", [keras.optimizers.Adam, keras.optimizers.SGD])
def test_steps_move_at_their_own_rate(make, rate):
    """After a batch they have moved by the factor, and the weights as without it."""
    moved = {}
    for own in (1.0, rate):
        recipe = tfbinreg.Recipe(weight_bits=2, activation_bits=4, step_rate=own)
        model, inputs, targets = build(recipe)
        before = [step.numpy() for step in model.step_variables]
        model.compile(make(0.01), "mse")
        model.fit(inputs, targets, batch_size=len(inputs), verbose=0)
        after = [step.numpy() for step in model.step_variables]
        ids = {id(step) for step in model.step_variables}
        others = [v.numpy() for v in model.trainable_variables if id(v) not in ids]
        moved[own] = np.subtract(after, before), others
    assert np.all(moved[1.0][0] != 0) and len(before) == 6
    np.testing.assert_allclose(moved[rate][0], rate * moved[1.0][0], rtol=1e-4, atol=1e-8)
    for slow, plain in zip(moved[rate][1], moved[1.0][1], strict=True):
        np.testing.assert_array_equal(slow, plain)


def test_recipe_and_options_are_part_of_the_configuration():
    rules = (tfbinreg.Rule(layer="dense.*", weight_bits=5),)
    options = {"bin_regularization": {"detach_step": False, "scale_free": True}}
    recipe = tfbinreg.Recipe(weight_bits=3, rules=rules, options=options)
    model = build()[0]
    again = type(model).from_config(model.get_config())
    assert again.recipe == model.recipe
    float_model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(3, name="dense")])
    other = tfbinreg.quantize_apply(float_model, recipe)
    again = type(other).from_config(other.get_config())
    assert again.recipe == recipe
    assert len(again.losses) == 1


def test_models_saved_before_keep_the_papers_penalty():
    model = build()[0]
    config = model.get_config()
    config["tfbinreg"]["bin_options"] = {"detach_step": True, "scale_free": False}
    expected = {"detach_step": True, "scale_free": False, "bounded_pull": False}
    recipe = type(model).from_config(config).recipe
    assert recipe.options == {"bin_regularization": expected}


@pytest.mark.parametrize("detach_step", [True, False])
def test_detached_steps_get_no_gradient_from_the_penalty(detach_step):
    model = build(detach_step=detach_step)[0]
    model.bin_strength.assign(1.0)
    steps = [variable for variable in model.step_variables if "kernel_step" in variable.name]
    with tf.GradientTape() as tape:
        loss = tf.add_n(model.losses)
    gradients = [float(gradient) for gradient in tape.gradient(loss, steps)]
    assert all(gradient == 0 for gradient in gradients) == detach_step


def test_middle_layers_can_be_cut_out():
    model, inputs, _ = build()
    probe = keras.Model(model.input, model.layers[3].output)
    assert probe.predict(inputs, verbose=0).shape[0] == 64


def test_rules_weigh_the_penalty_of_a_layer():
    plain, _, _ = build()
    penalties = []
    for weight in (0.0, 1.0, 3.0):
        recipe = tfbinreg.Recipe(
            weight_bits=2, rules=[tfbinreg.Rule(layer="dense_1", bin_weight=weight)]
        )
        model = build(recipe=recipe)[0]
        model.bin_strength.assign(0.5)
        variables = [site.kernel for site in kernel_sites(model)]
        with tf.GradientTape() as tape:
            loss = model.penalty_loss("bin_regularization")
        gradients = tape.gradient(loss, variables)
        assert np.any(gradients[1]) == (weight > 0) and np.any(gradients[0])
        np.testing.assert_allclose(loss, 0.5 * model.penalty("bin_regularization"), rtol=1e-6)
        penalties.append(float(model.penalty("bin_regularization")))
    none, one, three = penalties
    assert one == pytest.approx(float(plain.penalty("bin_regularization")))
    assert three - none == pytest.approx(3 * (one - none), rel=1e-5)


def test_training_after_finalize_tells_that_inference_is_the_files_no_longer(tmp_path):
    model, inputs, targets = build()
    model.compile("sgd", "mse")
    model.fit(inputs, targets, verbose=0)
    with pytest.warns(tfbinreg.QuantizationWarning, match="saved without having been finalized"):
        model.save(tmp_path / "q.keras")
    with pytest.warns(tfbinreg.QuantizationWarning, match="converted without having been final"):
        tfbinreg.to_tflite(model)
    tfbinreg.finalize(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", tfbinreg.QuantizationWarning)
        model.save(tmp_path / "q.keras")
        tfbinreg.to_tflite(model)
        tfbinreg.load_model(tmp_path / "q.keras").save(tmp_path / "again.keras")
    with pytest.warns(tfbinreg.QuantizationWarning, match="Call finalize again"):
        model.fit(inputs, targets, verbose=0)
    assert not model.finalized.numpy()
