"""quantize_apply reads the user's model and changes nothing of it."""

from typing import Any

import keras as keras_3
import numpy as np
import pytest
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from quick import slow

import tfbinreg
from tfbinreg.layers.kernel import QuantizeActivation


def sequential(own: Any) -> Any:
    layers = own.layers
    model = own.Sequential(
        [
            layers.Input((8, 8, 3), name="image"),
            layers.SeparableConv2D(4, 3, activation="relu", name="frozen"),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(name="flat"),
            layers.Dense(3, activation="softmax", name="head"),
        ],
        name="chain",
    )
    model.get_layer("frozen").trainable = False
    return model


def nested(own: Any) -> Any:
    """A backbone with a block inside; in both some layers are frozen."""
    layers = own.layers
    image = own.Input((8, 8, 3), name="backbone_image")
    x = layers.Conv2D(4, 3, activation="relu", name="frozen")(image)
    block = own.Sequential(
        [
            layers.Input((6, 6, 4), name="block_image"),
            layers.BatchNormalization(trainable=False, name="frozen_norm"),
            layers.Conv2D(4, 1, name="block_conv"),
        ],
        name="block",
    )
    x = layers.Add(name="sum")([block(x), x])
    backbone = own.Model(image, layers.BatchNormalization(name="norm")(x), name="backbone")
    backbone.get_layer("frozen").trainable = False
    image = own.Input((8, 8, 3), name="image")
    x = layers.Rescaling(0.5, name="scaled")(image)
    x = layers.GlobalAveragePooling2D(name="mean")(backbone(x))
    x = layers.Dense(3, activation="softmax", name="head")(x)
    return own.Model(image, x, name="nested")


def annotated(own: Any) -> Any:
    """With a config of its own for the last layer, which tf_keras models may have."""

    def mark(layer: Any) -> Any:
        if layer.name != "head":
            return layer
        config = tfbinreg.LSQQuantizeConfig(weight_bits=3)
        return tfmot.quantization.keras.quantize_annotate_layer(layer, config)

    return own.models.clone_model(sequential(own), clone_function=mark)


@pytest.fixture(
    params=[
        (keras, annotated),
        (keras_3, nested),
        *slow((keras, sequential), (keras, nested), (keras_3, sequential)),
    ],
    ids=lambda value: f"{value[0].__name__}-{value[1].__name__}",
)
def make(request, images, labels) -> Any:
    """Builds the same compiled model, trained for two steps, every time it is called."""
    own, build = request.param

    def made() -> Any:
        own.utils.set_random_seed(0)
        model = build(own)
        model.compile(
            own.optimizers.Adam(0.01),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=False,
        )
        train(model, images, labels)
        return model

    return made


def train(model: Any, images: np.ndarray, labels: np.ndarray) -> None:
    model.fit(images[:16], labels[:16], batch_size=8, shuffle=False, verbose=0)


def numbers(model: Any) -> list:
    return [variable.numpy() for variable in (*model.weights, *model.optimizer.variables)]


def facts(model: Any) -> dict:
    """What can be said of a model and its parts but for the numbers in it."""
    layers = list(model._flatten_layers())
    return {
        "config": model.get_config(),
        "layers": [(layer, layer.name, layer.trainable) for layer in layers],
        "calls": [len(layer._inbound_nodes) for layer in layers],
        "weights": [(id(weight), weight.name) for weight in model.weights],
        "trained": [id(weight) for weight in model.trainable_weights],
        "optimizer": (model.optimizer, model.optimizer.get_config(), model.loss),
        "metrics": [metric.name for metric in model.metrics],
        "functions": (model.train_function, model.test_function),
    }


def same(ours: list, theirs: list) -> None:
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_of_the_model_changes(make, images, labels):
    model = make()
    score = model.evaluate(images, labels, verbose=0)
    values, before = numbers(model), facts(model)
    tfbinreg.plan(model)
    quantized = tfbinreg.quantize_apply(model, calibration_data=images)
    quantized.compile("sgd", "mse")
    quantized.set_weights([weight + 1 for weight in quantized.get_weights()])
    for layer in quantized.layers:
        layer.trainable = not layer.trainable
    same(numbers(model), values)
    assert facts(model) == before
    assert model.optimizer.iterations.numpy() == 2
    assert model.evaluate(images, labels, verbose=0) == score


def test_the_model_trains_on_as_if_it_had_not_been_quantized(make, images, labels):
    model, twin = make(), make()
    tfbinreg.quantize_apply(model, calibration_data=images)
    for each in (model, twin):
        train(each, images, labels)
    same(numbers(model), numbers(twin))


def trained_layers(model: Any, layers: Any) -> set:
    """Names of those `layers` that have a weight which `model` trains."""
    trained = {id(weight) for weight in model.trainable_weights}
    return {
        layer.name.removeprefix("quant_")
        for layer in layers
        if any(id(weight) in trained for weight in layer.weights)
    }


@pytest.mark.parametrize("own", [keras, keras_3], ids=["tf_keras", "keras"])
@pytest.mark.parametrize("frozen", [None, "backbone", "nested"])
def test_the_quantized_model_trains_the_layers_that_the_model_trains(own, frozen):
    model = nested(own)
    backbone = model.get_layer("backbone")
    if frozen is not None:
        next(part for part in (model, backbone) if part.name == frozen).trainable = False
        # The two Kerases do not agree on what these count for inside something frozen.
        model.get_layer("head").trainable = backbone.get_layer("norm").trainable = True
    quantized = tfbinreg.quantize_apply(model)
    simple = [layer for layer in model._flatten_layers() if not hasattr(layer, "layers")]
    kernels = [layer for layer in quantized.layers if not isinstance(layer, QuantizeActivation)]
    assert trained_layers(quantized, kernels) == trained_layers(model, simple)
