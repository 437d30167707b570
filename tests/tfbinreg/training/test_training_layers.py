"""Layers that act in training only: augmentation, noise and regularization of activations."""

import keras as keras_3
import numpy as np
import pytest
import tf_keras as keras
from quick import slow

import tfbinreg
from tfbinreg.frontend.normalize import normalize
from tfbinreg.layers.kernel import QuantizeActivation

BOTH = pytest.mark.parametrize(
    "own", [keras_3, pytest.param(keras, marks=pytest.mark.slow)], ids=["Keras 3", "tf_keras"]
)


def chain(own, *front):
    layers = own.layers
    return own.Sequential(
        [
            own.Input((8, 8, 3), name="image"),
            *front,
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Flatten(name="flat"),
            layers.Dense(3, name="head"),
        ]
    )


def augmentation(own):
    layers = own.layers
    common = [
        layers.RandomFlip(name="flip"),
        layers.RandomRotation(0.1, name="turn"),
        layers.RandomZoom(0.1, name="zoom"),
        layers.RandomTranslation(0.1, 0.1, name="move"),
        layers.RandomContrast(0.2, name="contrast"),
        layers.RandomBrightness(0.2, (0.0, 1.0), name="brightness"),
        layers.RandomCrop(8, 8, name="crop"),
        layers.GaussianNoise(0.1, name="noise"),
    ]
    if own is keras_3:
        flips = layers.Pipeline([layers.RandomFlip(), layers.RandomInvert()], name="flips")
        common += [layers.RandomErasing(value_range=(0, 1), name="erase"), flips]
    return common


@BOTH
def test_augmentation_varies_the_input_before_its_grid(own, images):
    front = augmentation(own)
    model = tfbinreg.quantize_apply(chain(own, *front), calibration_data=images)
    names = [layer.name for layer in model.layers]
    assert names[: len(front) + 2] == ["image", *[layer.name for layer in front], "image_grid"]
    grid = keras.Model(model.input, model.get_layer("image_grid").output)
    once, again, still = (grid(images, training=t).numpy() for t in (True, True, False))
    assert np.any(once != again) and np.any(once != still)
    step = float(model.get_layer("image_grid").grid_variables["step"])
    np.testing.assert_allclose(once, np.round(once / step) * step, atol=1e-5)
    np.testing.assert_allclose(still, images, atol=0.51 * step)


@BOTH
def test_augmentation_behind_constants_comes_before_their_grid(own, images):
    front = [own.layers.Rescaling(0.5, 0.1, name="scaled"), own.layers.RandomFlip(name="flip")]
    model = tfbinreg.quantize_apply(chain(own, *front), calibration_data=images)
    names = [layer.name for layer in model.layers]
    assert names[:5] == ["image", "image_grid", "scaled", "flip", "flip_grid"]
    assert model.get_layer("flip_grid").quantizer.fixed


def test_augmentation_of_one_of_two_branches_comes_after_the_grid():
    image = keras.Input((8, 8, 3), name="image")
    turned = keras.layers.RandomFlip(name="flip")(image)
    branches = [keras.layers.Conv2D(4, 3)(x) for x in (image, turned)]
    model = tfbinreg.quantize_apply(keras.Model(image, keras.layers.Add()(branches)))
    assert [layer.name for layer in model.layers][:3] == ["image", "image_grid", "flip"]


@BOTH
def test_it_is_not_in_the_file(own, images, labels):
    noise = [own.layers.GaussianDropout(0.1), own.layers.AlphaDropout(0.1)]
    noise.append(own.layers.ActivityRegularization(l2=0.01))
    model = tfbinreg.quantize_apply(
        chain(own, *augmentation(own), own.layers.Conv2D(4, 3), *noise), calibration_data=images
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, labels, verbose=0)
    tfbinreg.finalize(model)
    kinds = {op.kind for op in tfbinreg.deploy.freeze.freeze(model).ops}
    assert kinds == {"InputLayer", "Conv2D", "Flatten", "Dense"}


@BOTH
@pytest.mark.parametrize("name", ["q.keras", *slow("q.h5", "folder")])
def test_saved_loaded_and_trained_on(own, name, images, labels, tmp_path, recwarn):
    model = tfbinreg.quantize_apply(
        chain(own, own.layers.RandomFlip(seed=1, name="flip"), own.layers.RandomZoom(0.1)),
        calibration_data=images,
    )
    model.save(tmp_path / name)
    loaded = tfbinreg.load_model(tmp_path / name)
    np.testing.assert_array_equal(loaded(images), model(images))
    loaded.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    loaded.fit(images, labels, verbose=0)
    flip = loaded.get_layer("flip")
    assert np.any(flip(images, training=True).numpy() != flip(images, training=True).numpy())


@BOTH
def test_activity_is_regularized_behind_the_activation(own, images):
    front = [
        own.layers.Conv2D(4, 3, activation="relu", activity_regularizer="l1", name="first"),
        own.layers.ReLU(activity_regularizer="l2", name="second"),
        own.layers.ActivityRegularization(l1=0.1, l2=0.2, name="third"),
    ]
    model = chain(own, *front)
    normal, _ = normalize(model)
    model(images), normal(images)
    assert len(normal.losses) == 3
    expected = [float(loss) for loss in model.losses]
    np.testing.assert_allclose([float(loss) for loss in normal.losses], expected, rtol=1e-5)
    quantized = tfbinreg.quantize_apply(model, weight_bits=8, calibration_data=images)
    quantized(images)
    found = sum(float(loss) for loss in quantized.losses)
    np.testing.assert_allclose(found, sum(expected), rtol=0.05)


@BOTH
def test_kernels_are_regularized_and_constrained_as_before(own, images, labels):
    options = {"kernel_regularizer": "l2", "bias_regularizer": "l1", "kernel_constraint": "non_neg"}
    model = tfbinreg.quantize_apply(
        chain(own, own.layers.Conv2D(4, 3, name="ruled", **options)), calibration_data=images
    )
    kernel = model.get_layer("quant_ruled").layer.kernel
    losses = [float(loss) for loss in model.losses]
    assert any(abs(loss - 0.01 * np.sum(kernel.numpy() ** 2)) < 1e-5 for loss in losses)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, labels, verbose=0)
    assert np.min(kernel.numpy()) >= 0.0


def test_grids_are_layers_of_the_quantized_model_only_where_planned(images):
    model = tfbinreg.quantize_apply(chain(keras, keras.layers.GaussianNoise(0.1, name="noise")))
    grids = [layer.name for layer in model.layers if isinstance(layer, QuantizeActivation)]
    assert grids == ["image_grid", "conv_relu_grid", "head_grid"]
