import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from quick import slow

import tfbinreg
from tfbinreg.layers.sites import activation_sites, kernel_sites
from tflite_tools import read_codes

layers = keras.layers


def dense_net():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            layers.Input((6,), name="numbers"),
            layers.Dense(8, activation="swish", name="dense"),
            layers.Dense(8, activation="relu", name="middle"),
            layers.Dense(3, name="head"),
        ]
    )


def data():
    random = np.random.default_rng(0)
    return random.normal(size=(32, 6)).astype(np.float32), random.integers(0, 3, 32)


def quantized(recipe=None, **options):
    recipe = recipe or tfbinreg.Recipe(weight_bits=4, **options)
    return tfbinreg.quantize_apply(dense_net(), recipe, calibration_data=data()[0])


def fit(model, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if options:
        model.compile(loss=loss, **options)
    return model.fit(*data(), 16, shuffle=False, verbose=0).history


def check_same(one, other, inputs):
    assert [layer.name for layer in one.layers] == [layer.name for layer in other.layers]
    for mine, yours in zip(one.weights, other.weights, strict=True):
        assert mine.name == yours.name and mine is not yours
        np.testing.assert_array_equal(mine, yours, mine.name)
    for training in (False, True):
        outputs = zip(*(tf.nest.flatten(m(inputs, training)) for m in (one, other)), strict=True)
        for mine, yours in outputs:
            np.testing.assert_array_equal(mine, yours)


@pytest.mark.parametrize("file", ["q.keras", *slow(None, "q.h5")])
@pytest.mark.parametrize(
    "recipe",
    [
        tfbinreg.Recipe(weight_bits=3, activation_bits=4, per_channel=True),
        tfbinreg.recipes.hardware_friendly(4),
    ],
    ids=["channels", "folded"],
)
def test_at_equal_bits_the_model_is_the_same(float_net, images, recipe, file, tmp_path):
    model = tfbinreg.quantize_apply(float_net, recipe, calibration_data=images)
    for variable in model.trainable_variables:
        variable.assign(variable * 1.1)
    source = model
    if file is not None:
        model.save(tmp_path / file)
        source = tfbinreg.load_model(tmp_path / file)
    again = tfbinreg.requantize(source)
    check_same(model, again, images)
    for mine, yours in zip(kernel_sites(model), kernel_sites(again), strict=True):
        np.testing.assert_array_equal(mine.codes(), yours.codes())


@pytest.mark.filterwarnings("ignore::tfbinreg.QuantizationWarning")
@pytest.mark.slow
def test_down_from_8_to_2_bits(float_net, images, labels, tmp_path):
    recipe = tfbinreg.Recipe(weight_bits=8, activation_bits=8, first_last_bits=None)
    model = tfbinreg.quantize_apply(float_net, recipe, calibration_data=images)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
    tfbinreg.distill(model, temperature=2.0)
    model.fit(images, labels, 16, verbose=0)
    for bits in (4, 2):
        model.bin_strength.assign(0.5)
        slots = {variable.name: variable.numpy() for variable in model.optimizer.variables}
        latent = {site.name: site.kernel.numpy() for site in kernel_sites(model)}
        before, model = model, tfbinreg.requantize(model, weight_bits=bits, activation_bits=bits)
        assert model.recipe.first_last_bits is None and model.bin_strength.numpy() == 0.5
        assert {site.quantizer.bits for site in kernel_sites(model)} == {bits}
        for site in kernel_sites(model):
            np.testing.assert_array_equal(site.kernel, latent[site.name])
        changed = {step.name.split(":")[0] for step in model.step_variables}
        found = {variable.name: variable.numpy() for variable in model.optimizer.variables}
        assert set(found) == set(slots)
        for name, slot in found.items():
            goes_on = name.split(":")[0].split("/", 1)[-1] not in changed
            if goes_on:
                np.testing.assert_array_equal(slot, slots[name], name)
            elif "kernel_step" in name:
                assert not np.any(slot)
        teacher = model.distillation
        assert teacher.teacher is before.distillation.teacher and teacher.temperature == 2.0
        history = model.fit(images, labels, 16, verbose=0).history
        assert {"loss", "accuracy", "distillation_loss"} <= set(history)
        assert model.optimizer.iterations.numpy() == slots["iteration:0"] + 3
    tfbinreg.finalize(model, images)
    model.save(tmp_path / "q.keras")
    loaded = tfbinreg.load_model(tmp_path / "q.keras")
    np.testing.assert_array_equal(loaded(images), model(images))
    stored = read_codes(tfbinreg.to_tflite(loaded))
    for site in kernel_sites(model):
        np.testing.assert_array_equal(stored[site.name], site.codes())


@pytest.mark.parametrize("method", ["lsq", "tqt"])
def test_activation_grids_keep_what_they_cover(method):
    model = quantized(method=method)
    bits = {"activation_bits": 2, "signed_activation_bits": 4, "first_last_bits": None}
    low = tfbinreg.requantize(model, {**bits, "method": method})
    assert low.recipe.unsigned_input is False
    found = {site.name: site.grid() for site in activation_sites(low)}
    for site in activation_sites(model):
        before, now = site.grid(), found[site.name]
        if method == "lsq":
            assert now.scale * now.qmax == pytest.approx(before.scale * before.qmax, rel=0.1)
        assert 0.5 <= (now.scale * now.qmax) / (before.scale * before.qmax) <= 2.0
    assert found["middle_relu_grid"].bits == 2


@pytest.mark.slow
def test_calibration_data_start_the_grids_anew():
    model = quantized()
    fit(model, optimizer=keras.optimizers.Adam(0.1))
    inputs = data()[0]
    low = tfbinreg.requantize(model, activation_bits=2, calibration_data=inputs)
    kept = tfbinreg.requantize(model, activation_bits=2)
    fresh = quantized(activation_bits=2)
    scales = [{s.name: s.grid().scale for s in activation_sites(m)} for m in (low, kept, fresh)]
    assert scales[0]["numbers_grid"] == scales[2]["numbers_grid"]
    assert scales[0]["dense_silu_grid"] != scales[1]["dense_silu_grid"]
    for step in low.step_variables:
        slots = [v for v in low.optimizer.variables if step.name.split(":")[0] in v.name]
        assert slots and not np.any(slots)


def test_grids_that_have_not_started_start_with_the_first_batch():
    model = tfbinreg.quantize_apply(dense_net(), weight_bits=4)
    low = tfbinreg.requantize(model, activation_bits=3)
    assert not any(site.variables["initialized"].numpy() for site in activation_sites(low))
    fit(low, optimizer="sgd")
    assert all(site.variables["initialized"].numpy() for site in activation_sites(low))


class Ramp(keras.optimizers.schedules.LearningRateSchedule):  # Keras does not know its name
    def __call__(self, step):
        return 0.01 * tf.cast(step + 1, tf.float32)

    def get_config(self):
        return {}


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: keras.optimizers.SGD(0.1), marks=pytest.mark.slow),
        pytest.param(lambda: keras.optimizers.SGD(Ramp(), momentum=0.9), marks=pytest.mark.slow),
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, use_ema=True),
        pytest.param(
            lambda: keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
            marks=pytest.mark.slow,
        ),
        pytest.param(lambda: keras.optimizers.legacy.Adam(0.01), marks=pytest.mark.slow),
    ],
    ids=["sgd", "schedule", "averages", "loss_scale", "legacy"],
)
@pytest.mark.slow
def test_at_equal_bits_training_goes_on_as_if_nothing_had_happened(make):
    options = {"updates": ("freezing",), "options": {"freezing": {"momentum": 0.5, "begin": 0.0}}}
    model = quantized(**options)
    fit(model, optimizer=make(), metrics=[keras.metrics.SparseCategoricalAccuracy("right")])
    again = tfbinreg.requantize(model)
    assert again.optimizer is not model.optimizer
    assert fit(again) == fit(model)
    for mine, yours in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(mine, yours, mine.name)


def test_what_does_not_fit_is_refused():
    model = quantized()
    with pytest.raises(ValueError, match=r"needs a model from tfbinreg\.quantize_apply"):
        tfbinreg.requantize(dense_net())
    with pytest.raises(ValueError, match="Give a recipe or weight_bits, not both"):
        tfbinreg.requantize(model, tfbinreg.Recipe(), weight_bits=2)
    with pytest.raises(ValueError, match=r"(?s)requantize model .*matches no layer"):
        tfbinreg.requantize(model, tfbinreg.Recipe(rules=[tfbinreg.Rule(layer="missing")]))
