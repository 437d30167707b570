"""Made the models and files in this folder, with version 0.1.0 of tfbinreg (commit 777b1bb).

They stand for what users have saved: later versions must load, predict, resume and verify them as
this one did, so they are never made anew. A new kind of model gets a folder of its own, made by the
version that introduces it. tests/test_golden.py takes the float nets and recipes from here.

    python tests/golden/make.py FOLDER
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tf_keras as keras

import tfbinreg
from tfbinreg.sites import sites
from tflite_tools import build, runtime, samples
from tflite_tools import model as models

layers = keras.layers
SAMPLES, BATCH = 16, 8


def lsq_net() -> Any:
    """Convolutions with normalizations, ReLU6, a residual sum, a pooling and a softmax."""
    image = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="conv_bn")(x)
    x = skip = layers.ReLU(6.0, name="conv_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_bn")(x)
    x = layers.ReLU(name="depthwise_relu")(layers.Add(name="add")([x, skip]))
    x = layers.AveragePooling2D(2, name="pool")(x)
    x = layers.Conv2D(6, 1, activation="relu", name="pointwise")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="head")(x), name="lsq")


def plus_net() -> Any:
    """Activations with a learned offset, a sigmoid gate and a normalization no kernel takes."""
    rows = keras.Input((8, 3), name="rows")
    x = layers.Conv1D(4, 3, activation="swish", name="conv")(rows)
    x = layers.MaxPooling1D(2, name="max")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.LeakyReLU(0.1, name="leaky")(layers.Conv1D(4, 1, name="mix")(x))
    gate = layers.Conv1D(4, 1, activation="sigmoid", name="gate")(x)
    x = layers.Flatten(name="flat")(layers.Multiply(name="gated")([x, gate]))
    return keras.Model(rows, layers.Dense(2, name="head")(x), name="plus")


def folded_net() -> Any:
    """Normalizations behind every convolution, one of them frozen."""
    image = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(image)
    x = layers.ReLU(name="conv_relu")(layers.BatchNormalization(name="conv_bn")(x))
    x = layers.DepthwiseConv2D(2, name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_bn", trainable=False)(x)
    x = layers.ReLU(name="depthwise_relu")(x)
    x = layers.Flatten(name="flat")(x)
    return keras.Model(image, layers.Dense(2, name="head")(x), name="folded")


def joined_net() -> Any:
    """Two inputs, two outputs, and tensors that share a grid because they are concatenated."""
    image, extra = keras.Input((6, 6, 2), name="image"), keras.Input((3,), name="extra")
    left = layers.Conv2D(3, 3, activation="relu", name="left")(image)
    right = layers.Conv2D(3, 3, activation="relu", name="right")(image)
    x = layers.Concatenate(name="both")([left, right])
    x = layers.AveragePooling2D(2, name="pool")(x)
    x = layers.Flatten(name="flat")(layers.Conv2DTranspose(4, 2, name="up")(x))
    hidden = layers.Dense(4, activation="relu", name="hidden")(extra)
    x = layers.Concatenate(name="all")([x, hidden])
    position = layers.Dense(2, name="position")(x)
    kind = layers.Dense(3, activation="softmax", name="kind")(x)
    return keras.Model([image, extra], [position, kind], name="joined")


def dense_net() -> Any:
    """Dense layers alone, one of them large enough for tables."""
    return keras.Sequential(
        [
            layers.Input((32,), name="features"),
            layers.Dense(32, activation="relu", name="first"),
            layers.Dense(32, activation="relu", name="middle"),
            layers.Dense(4, name="head"),
        ],
        name="dense",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A golden model.

    Attributes:
        net: builds the float net.
        recipe: how it was quantized.
        optimizer: makes the optimizer it is in the middle of training with; None leaves it
            uncompiled.
        finalized: whether it was finalized.
        formats: files that were made of it, besides int8.tflite.
        models: files and folders it was saved as.
        weights: whether its weights alone were saved too, as weights.h5.
    """

    net: Callable[[], Any]
    recipe: tfbinreg.Recipe
    optimizer: Callable[[], Any] | None
    finalized: bool
    formats: tuple[str, ...] = ()
    models: tuple[str, ...] = ("model.keras",)
    weights: bool = False


CASES = {
    "lsq": Case(
        net=lsq_net,
        recipe=tfbinreg.Recipe(weight_bits=2, activation_bits=4),
        optimizer=lambda: keras.optimizers.SGD(0.01, 0.9),
        finalized=True,
        formats=("c", "slim"),
        models=("model.keras", "model.h5"),
        weights=True,
    ),
    "plus": Case(
        net=plus_net,
        recipe=tfbinreg.Recipe(weight_bits=4, activation_bits=8),
        optimizer=lambda: keras.optimizers.Adam(0.001),
        finalized=False,
        models=("model.keras", "model.h5"),
        weights=True,
    ),
    "folded": Case(
        net=folded_net,
        recipe=tfbinreg.recipes.hardware_friendly(4),
        optimizer=lambda: keras.optimizers.SGD(0.01, 0.9),
        finalized=True,
        weights=True,
    ),
    "joined": Case(
        net=joined_net,
        recipe=tfbinreg.Recipe(weight_bits=3, activation_bits=4, per_channel=True),
        optimizer=lambda: keras.optimizers.Adam(0.001),
        finalized=True,
    ),
    "dense": Case(
        net=dense_net,
        recipe=tfbinreg.Recipe(weight_bits=2, activation_bits=2),
        optimizer=None,
        finalized=True,
        formats=("int4", "lut"),
        models=("model.keras", "saved_model"),
    ),
}
OPTIONS = {
    "int4": build.Options(format="int4", slim=True),
    "lut": build.Options(format="lut"),
    "slim": build.Options(slim=True),
    "c": build.Options(format="c"),
}


def data(net: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Inputs and targets, one array each for every input and output."""
    random = np.random.default_rng(7)
    inputs = [
        random.normal(size=(SAMPLES, *tensor.shape[1:])).astype(np.float32) for tensor in net.inputs
    ]
    targets = [
        random.random((SAMPLES, tensor.shape[-1])).astype(np.float32) for tensor in net.outputs
    ]
    return inputs, targets


def train(model: Any, inputs: list[np.ndarray], targets: list[np.ndarray]) -> None:
    """Two steps."""
    model.fit(inputs, targets, batch_size=BATCH, shuffle=False, verbose=0)


def trained(case: Case) -> tuple[Any, list[np.ndarray], list[np.ndarray]]:
    """The model after calibration and two steps, with its inputs and targets."""
    keras.utils.set_random_seed(0)
    net = case.net()
    inputs, targets = data(net)
    calibration = inputs if len(inputs) > 1 else inputs[0]
    model = tfbinreg.quantize_apply(net, case.recipe, calibration_data=calibration)
    if case.optimizer is not None:
        model.compile(case.optimizer(), "mse")
        model.bin_strength.assign(0.125)
        train(model, inputs, targets)
    if case.finalized:
        tfbinreg.finalize(model)
    return model, inputs, targets


def facts(model: Any, inputs: list[np.ndarray]) -> dict[str, np.ndarray]:
    """What the model computes and is made of."""
    predictions = model.predict(inputs, verbose=0)
    outputs = predictions if isinstance(predictions, list) else [predictions]
    found = {f"prediction/{index}": output for index, output in enumerate(outputs)}
    for name, coded in tfbinreg.integer_codes(model).items():
        found[f"codes/{name}"] = coded.codes
    for site in sites(model):
        for name, variable in site.variables.items():
            found[f"{name}/{site.name}"] = variable.numpy()
    return found


def file_facts(content: bytes, inputs: list[np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    """What LiteRT and TFLM compute with a file."""
    model = models.load(content)
    stored = samples.stored(model, dict(zip(names, inputs, strict=True)))
    return {
        f"{name}/{index}": output
        for name in (runtime.LITERT, runtime.TFLM)
        for index, output in enumerate(runtime.run(content, model, stored, runtime=name).outputs)
    }


def make(folder: pathlib.Path, case: Case) -> None:
    """Write all files of a case, and facts.npz beside them."""
    folder.mkdir(parents=True)
    model, inputs, targets = trained(case)
    for name in case.models:
        model.save(folder / name)
    if case.weights:
        model.save_weights(folder / "weights.h5")
    canonical = tfbinreg.to_tflite(model)
    (folder / "int8.tflite").write_bytes(canonical)
    for name in case.formats:
        for path, content in build.build(canonical, OPTIONS[name], name="net").files.items():
            target = folder / name / path if path else folder / f"{name}.tflite"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content)
    found = facts(model, inputs) | file_facts(canonical, inputs, model.input_names)
    found |= {f"input/{index}": array for index, array in enumerate(inputs)}
    found |= {f"target/{index}": array for index, array in enumerate(targets)}
    if case.optimizer is not None:
        train(model, inputs, targets)
        found |= {f"resumed/{weight.name}": weight.numpy() for weight in model.weights}
    np.savez_compressed(folder / "facts.npz", **found)


if __name__ == "__main__":
    for case_name, each in CASES.items():
        make(pathlib.Path(sys.argv[1]) / case_name, each)
