import contextlib
import zipfile

import keras as keras_3
import numpy as np
import pytest
import tf_keras as keras
from quick import slow

import tfbinreg
from tfbinreg.layers.sites import activation_sites
from tfbinreg.training.saving import load_float_model

FORMATS = ["q.keras", "q.h5", "folder"]


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def state(model):
    return {weight.name: weight.numpy() for weight in model.weights}


@pytest.fixture(scope="module")
def net(make_trained):
    """A trained net in the middle of the bin regularization."""
    model = make_trained()
    model.bin_strength.assign(0.25)
    return model


@pytest.fixture(scope="module", params=["q.keras", *slow("q.h5", "folder")])
def saved(request, net, tmp_path_factory):
    """The path of `net`, saved in each format."""
    path = tmp_path_factory.mktemp("saved") / request.param
    with quiet(request.param):
        net.save(path)
    return path


@contextlib.contextmanager
def quiet(name):
    """Keras says that .h5 is an old format."""
    if not name.endswith(".h5"):
        yield
        return
    with pytest.warns(UserWarning, match="HDF5"):
        yield


@pytest.fixture(scope="module")
def loaded(saved):
    return tfbinreg.load_model(saved)


def test_outputs_are_equal_to_the_last_bit(loaded, net, images):
    same([loaded(images)], [net(images)])
    same([loaded.predict(images, verbose=0)], [net.predict(images, verbose=0)])


def test_everything_travels(loaded, net):
    assert type(loaded) is tfbinreg.QuantizedModel
    assert loaded.recipe == net.recipe
    assert loaded.recipe.per_channel
    options = {"detach_step": False, "scale_free": True}
    assert loaded.recipe.options == {"bin_regularization": options}
    assert float(loaded.bin_strength) == 0.25
    assert list(state(loaded)) == list(state(net))
    same(state(loaded).values(), state(net).values())


def test_the_penalty_is_attached_once(loaded, net):
    assert len(loaded.losses) == 1
    np.testing.assert_array_equal(
        loaded.penalty("bin_regularization"), net.penalty("bin_regularization")
    )
    # A SavedModel comes back without its optimizer, whose rate bounds the pull.
    bounded = getattr(loaded, "optimizer", None) is not None
    expected = net.losses[0] if bounded else 0.25 * net.penalty("bin_regularization")
    np.testing.assert_array_equal(loaded.losses[0], expected)
    assert 0 < float(net.losses[0]) <= 0.25 * float(net.penalty("bin_regularization"))


def test_steps_are_not_started_again(saved, images):
    model = tfbinreg.load_model(saved)
    flags = [int(site.variables["initialized"]) for site in activation_sites(model)]
    assert flags == [1] * 7
    before = [site.step.numpy() for site in activation_sites(model)]
    model(100 * images, training=True)
    same([site.step.numpy() for site in activation_sites(model)], before)


@pytest.mark.parametrize("name", FORMATS[:2])
def test_an_unset_flag_is_saved_too(name, float_net, images, tmp_path):
    model = tfbinreg.quantize_apply(float_net)
    with quiet(name):
        model.save(tmp_path / name)
    model = tfbinreg.load_model(tmp_path / name)
    assert not any(int(site.variables["initialized"]) for site in activation_sites(model))
    model(images, training=True)
    assert all(int(site.variables["initialized"]) for site in activation_sites(model))


@pytest.mark.parametrize("name", ["q.keras", *slow("q.h5")])
@pytest.mark.slow
def test_training_goes_on_as_if_it_had_not_stopped(name, float_net, images, labels, tmp_path):
    def fit(model, epochs):
        model.fit(images, labels, batch_size=16, shuffle=False, epochs=epochs, verbose=0)

    def fresh():
        keras.utils.set_random_seed(0)
        model = tfbinreg.quantize_apply(float_net, weight_bits=2)
        model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
        model.bin_strength.assign(0.5)
        return model

    whole = fresh()
    fit(whole, 2)
    half = fresh()
    fit(half, 1)
    with quiet(name):
        half.save(tmp_path / name)
    resumed = tfbinreg.load_model(tmp_path / name)
    fit(resumed, 1)
    same(resumed.get_weights(), whole.get_weights())
    same([v.numpy() for v in resumed.optimizer.variables],
         [v.numpy() for v in whole.optimizer.variables])  # fmt: skip


@pytest.mark.parametrize("name", ["w.h5", "w.weights.h5", "checkpoint"])
def test_weights_alone(name, trained_net, float_net, images, tmp_path):
    trained_net.save_weights(tmp_path / name)
    other = tfbinreg.quantize_apply(float_net, trained_net.recipe)
    other.load_weights(tmp_path / name)
    same(state(other).values(), state(trained_net).values())
    same([other(images)], [trained_net(images)])


def test_keras_loads_it_in_the_scope(trained_net, images, tmp_path):
    trained_net.save(tmp_path / "q.keras")
    with tfbinreg.quantize_scope():
        model = keras.models.load_model(tmp_path / "q.keras")
    assert model.recipe == trained_net.recipe
    same([model(images)], [trained_net(images)])


def test_own_classes_are_known_by_name():
    own = type("Own", (keras.layers.Layer,), {})
    with tfbinreg.quantize_scope({"Own": own}):
        assert keras.utils.get_registered_object("Own") is own
        known = keras.utils.get_registered_object("LSQQuantizeConfig")
    assert known is tfbinreg.LSQQuantizeConfig
    assert keras.utils.get_registered_object("Own") is None


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
@pytest.mark.parametrize("own", [keras, keras_3], ids=["tf_keras", "keras3"])
def test_float_models_are_opened_by_the_keras_that_saved_them(own, name, tmp_path):
    model = own.Sequential([own.layers.Input((4,)), own.layers.Dense(3, name="head")])
    with quiet(name) if own is keras else contextlib.nullcontext():
        model.save(tmp_path / name)
    opened = load_float_model(tmp_path / name)
    assert isinstance(opened, own.Model)
    quantized = tfbinreg.quantize_apply(str(tmp_path / name))
    kernel = quantized.get_layer("quant_head").layer.kernel
    np.testing.assert_array_equal(kernel, model.get_weights()[0])


@pytest.mark.parametrize("content", [None, b"", b"PK no archive"])
def test_what_is_no_float_model(content, tmp_path):
    path = tmp_path / "net.keras"
    if content is not None:
        path.write_bytes(content)
    message = "No model at" if content is None else "cannot be read as a Keras model"
    with pytest.raises(ValueError, match=message):
        tfbinreg.plan(path)


class TestErrors:
    def test_missing(self, tmp_path):
        with pytest.raises(ValueError, match=r"No model at .*none\.keras"):
            tfbinreg.load_model(tmp_path / "none.keras")

    def test_not_quantized(self, float_net, tmp_path):
        float_net.save(tmp_path / "float.keras")
        with pytest.raises(ValueError, match="'residual' is not quantized: call quantize_app"):
            tfbinreg.load_model(tmp_path / "float.keras")

    @pytest.mark.parametrize("suffix", ["keras", "h5"])
    def test_not_quantized_of_keras_3(self, suffix, tmp_path):
        model = keras_3.Sequential([keras_3.Input((4,)), keras_3.layers.Dense(2)])
        path = tmp_path / f"float.{suffix}"
        model.save(path)
        with pytest.raises(
            ValueError, match="is not quantized: call quantize_apply first"
        ) as caught:
            tfbinreg.load_model(path)
        assert len(str(caught.value)) < 200

    @pytest.mark.parametrize("name", FORMATS[:2])
    def test_truncated(self, name, trained_net, tmp_path):
        path = tmp_path / name
        with quiet(name):
            trained_net.save(path)
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(ValueError, match="cannot be read as a Keras model"):
            tfbinreg.load_model(path)

    def test_damaged_inside(self, trained_net, tmp_path):
        path = tmp_path / "q.keras"
        trained_net.save(path)
        content = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            middle = archive.getinfo("config.json").header_offset + 500
        content[middle : middle + 8] = b"\0" * 8
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as a Keras model"):
            tfbinreg.load_model(path)

    @pytest.mark.parametrize("content", [b"", b"no model"])
    def test_other_files_and_folders(self, content, tmp_path):
        (tmp_path / "other.keras").write_bytes(content)
        with pytest.raises(ValueError, match=r"other\.keras' cannot be read"):
            tfbinreg.load_model(tmp_path / "other.keras")
        with pytest.raises(ValueError, match="cannot be read as a Keras model"):
            tfbinreg.load_model(tmp_path)


class TestPartsAndWholes:
    """A model cut out of a quantized one, and one wrapped around it."""

    @pytest.fixture(scope="class")
    def whole(self, float_net):
        return tfbinreg.quantize_apply(float_net)

    @pytest.fixture(scope="class")
    def part(self, whole):
        return keras.Model(whole.input, whole.layers[-3].output, name="part")

    @pytest.fixture(scope="class")
    def around(self, whole):
        image = keras.Input((8, 8, 3))
        return keras.Model(image, keras.layers.Dense(2)(whole(image)), name="around")

    def test_a_part_is_refused_without_a_circle(self, part):
        with pytest.raises(ValueError, match="'part' is made of layers of a quantized model"):
            tfbinreg.to_tflite(part)
        with pytest.raises(ValueError, match="part: already quantized; start from the float"):
            tfbinreg.quantize_apply(part)

    def test_what_is_around_is_refused_without_a_circle(self, around, tmp_path):
        with pytest.raises(ValueError, match=r"'around' .* holds residual, which is"):
            tfbinreg.to_tflite(around)
        with pytest.raises(ValueError, match="holds the quantized model 'residual'; start from"):
            tfbinreg.quantize_apply(around)
        around.save(tmp_path / "around.keras")
        with pytest.raises(ValueError, match=r"'around' .* holds residual, which is"):
            tfbinreg.load_model(tmp_path / "around.keras")


def test_a_model_can_be_loaded_without_its_optimizer(trained_net, tmp_path):
    trained_net.save(tmp_path / "q.keras")
    loaded = tfbinreg.load_model(tmp_path / "q.keras", compile=False, safe_mode=False)
    assert getattr(loaded, "optimizer", None) is None
    assert tfbinreg.load_model(tmp_path / "q.keras").optimizer is not None
