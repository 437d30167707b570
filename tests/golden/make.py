"""Made the models and files in this folder, with the commits of tfbinreg that `Case.made_by` names.

They stand for what users have saved: later versions must load, predict, resume and verify them as
these did, so they are never made anew. A new kind of model gets a folder of its own, made by the
version that introduces it. tests/test_golden.py takes the float nets and recipes from here.

    python tests/golden/make.py FOLDER [CASE ...]
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import keras as keras_3
import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

import tfbinreg
from tfbinreg.deploy.freeze import freeze
from tfbinreg.layers.sites import sites
from tflite_tools.formats import build
from tflite_tools.running import runtime, samples
from tflite_tools.schema import contents as models

layers = keras.layers
annotate = tfmot.quantization.keras.quantize_annotate_layer
annotate_all = tfmot.quantization.keras.quantize_annotate_model
SAMPLES, BATCH = 16, 8
FIRST, SECOND, THIRD, FOURTH = "777b1bb", "1f98934", "7e5278c", "3c7dc2a"
FIFTH = "d47cba0"
BIN_OPTIONS = tfbinreg.BinOptions()


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


def device_net() -> Any:
    """A Keras 3 model whose rewritten form has every layer class of the package that is not in the
    nets above. The augmentation does the same to every batch, so that trainings can be compared."""
    own = keras_3.layers
    image = own.Input((6, 6, 2), name="image")
    x = own.RandomBrightness((0.1, 0.1), value_range=(-4.0, 4.0), name="brighter")(image)
    x = own.Rescaling(0.5, offset=0.1, name="scaled")(x)
    x = own.MaxPooling2D(2, name="max")(x)
    x = own.Conv2D(4, 2, use_bias=False, name="conv")(x)
    x = own.Activation("hard_silu", name="hard")(own.BatchNormalization(name="conv_bn")(x))
    left = own.Conv2D(2, 1, activation="silu", name="left")(x[:, :, :, :2])
    right = own.DepthwiseConv2D(1, activation="hard_silu", name="right")(x)
    x = own.Concatenate(name="both")([left, right])
    x = own.Flatten(name="flat")(own.AveragePooling2D(2, name="pool")(x))
    return keras_3.Model(image, own.Dense(3, activation="softmax", name="head")(x), name="device")


def phone_net() -> Any:
    """A learned offset and a prescribed grid, finalized, and kernels for INT4."""
    image = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, name="conv")(image)
    x = layers.LeakyReLU(0.1, name="leaky")(layers.BatchNormalization(name="conv_bn")(x))
    gate = layers.DepthwiseConv2D(1, activation="sigmoid", name="gate")(x)
    x = layers.Flatten(name="flat")(layers.Multiply(name="gated")([x, gate]))
    return keras.Model(image, layers.Dense(3, name="head")(x), name="phone")


def scheme_net() -> Any:
    """A model with tfmot's annotations, one with settings of its own, and a layer for tables."""
    own = tfbinreg.LSQQuantizeConfig(weight_bits=2, activation_bits=5, per_channel=True)
    first = annotate(layers.Dense(24, activation="relu", input_shape=(32,), name="first"), own)
    return annotate_all(keras.Sequential([first, layers.Dense(2, name="head")], name="scheme"))


def functions_net() -> Any:
    """Functions of one value, in layers and as operations."""
    image = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, activation="gelu", name="conv")(image)
    x = layers.Activation("mish", name="mish")(layers.Conv2D(4, 1, name="mix")(x))
    x = layers.Flatten(name="flat")(tf.sqrt(tf.abs(x) + 1.0))
    return keras.Model(image, layers.Dense(3, name="head")(x), name="functions")


def resized_net() -> Any:
    """Bilinear resizing, and normalizations whose constants C stores in three bytes."""
    image = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(image)
    x = layers.ReLU(name="conv_relu")(layers.BatchNormalization(name="conv_bn")(x))
    x = layers.UpSampling2D(2, interpolation="bilinear", name="up")(x)
    x = layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="depthwise_bn")(x))
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(image, layers.Dense(3, name="head")(x), name="resized")


def padded_net() -> Any:
    """Max pooling of an image padded with -inf."""
    image = keras.Input((8, 8, 2), name="image")
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(image))
    x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-1e9)
    x = layers.MaxPooling2D(3, 2, name="pool")(x)
    x = layers.Flatten(name="flat")(layers.Conv2D(3, 2, activation="relu", name="mix")(x))
    return keras.Model(image, layers.Dense(3, name="head")(x), name="padded")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A golden model.

    Attributes:
        made_by: the commit that made it.
        net: builds the float net.
        recipe: how it was quantized.
        optimizer: makes the optimizer it is in the middle of training with; None leaves it
            uncompiled.
        finalized: whether it was finalized.
        formats: files that were made of it, besides int8.tflite.
        models: files and folders it was saved as.
        weights: files its weights alone were saved in.
        bin_options: how the bin regularization is computed.
        strength: of the bin regularization in training.
        scheme: whether tfmot's own `quantize_apply` quantized it.
        short_constants: whether it was finalized with those.
    """

    made_by: str = SECOND
    net: Callable[[], Any]
    recipe: tfbinreg.Recipe
    optimizer: Callable[[], Any] | None
    finalized: bool
    formats: tuple[str, ...] = ()
    models: tuple[str, ...] = ("model.keras",)
    weights: tuple[str, ...] = ()
    bin_options: tfbinreg.BinOptions = BIN_OPTIONS
    strength: float = 2.0
    scheme: bool = False
    short_constants: bool = False


# What the first version knew: the penalty as in the paper.
BEFORE: dict[str, Any] = {
    "made_by": FIRST,
    "bin_options": tfbinreg.BinOptions(bounded_pull=False),
    "strength": 0.125,
}


CASES = {
    "lsq": Case(
        **BEFORE,
        net=lsq_net,
        recipe=tfbinreg.Recipe(weight_bits=2, activation_bits=4),
        optimizer=lambda: keras.optimizers.SGD(0.01, 0.9),
        finalized=True,
        formats=("c", "slim"),
        models=("model.keras", "model.h5"),
        weights=("weights.h5",),
    ),
    "plus": Case(
        **BEFORE,
        net=plus_net,
        recipe=tfbinreg.Recipe(weight_bits=4, activation_bits=8),
        optimizer=lambda: keras.optimizers.Adam(0.001),
        finalized=False,
        models=("model.keras", "model.h5"),
        weights=("weights.h5",),
    ),
    "folded": Case(
        **BEFORE,
        net=folded_net,
        recipe=dataclasses.replace(tfbinreg.recipes.hardware_friendly(4), method="lsq"),
        optimizer=lambda: keras.optimizers.SGD(0.01, 0.9),
        finalized=True,
        weights=("weights.h5",),
    ),
    "joined": Case(
        **BEFORE,
        net=joined_net,
        recipe=tfbinreg.Recipe(weight_bits=3, activation_bits=4, per_channel=True),
        optimizer=lambda: keras.optimizers.Adam(0.001),
        finalized=True,
    ),
    "dense": Case(
        **BEFORE,
        net=dense_net,
        recipe=tfbinreg.Recipe(weight_bits=2, activation_bits=2),
        optimizer=None,
        finalized=True,
        formats=("int4", "lut"),
        models=("model.keras", "saved_model"),
    ),
    "device": Case(
        net=device_net,
        recipe=tfbinreg.Recipe(
            weight_bits=2,
            activation_bits=4,
            per_channel=True,
            fold_batch_norm=True,
            weight_start="lsq",
            target="tflm",
            rules=(tfbinreg.Rule(layer="left", weight_bits=3, bin_weight=0.5),),
        ),
        optimizer=lambda: keras.optimizers.Adam(0.001),
        finalized=True,
        formats=("c",),
        weights=("model.weights.h5", "checkpoint/weights"),
    ),
    "phone": Case(
        net=phone_net,
        recipe=tfbinreg.Recipe(
            weight_bits=3,
            activation_bits=6,
            first_last_bits=None,
            stored_bits=4,
            weight_start="range",
            target="litert",
            rules=(tfbinreg.Rule(kind="DepthwiseConv2D", weight_bits=4, activation_bits=8),),
        ),
        optimizer=lambda: keras.optimizers.SGD(0.01, 0.9),
        finalized=True,
        formats=("int4", "slim"),
        models=("model.h5",),
    ),
    "scheme": Case(
        net=scheme_net,
        recipe=tfbinreg.Recipe(weight_bits=4, first_last_bits=None),
        optimizer=lambda: keras.optimizers.Adam(0.001),
        finalized=False,
        formats=("lut",),
        bin_options=tfbinreg.BinOptions(detach_step=False, scale_free=True),
        scheme=True,
    ),
    "functions": Case(
        made_by=THIRD,
        net=functions_net,
        recipe=tfbinreg.Recipe(weight_bits=4).with_options(
            "bin_regularization", **dataclasses.asdict(BIN_OPTIONS)
        ),
        optimizer=None,
        finalized=True,
    ),
    "resized": Case(
        made_by=FOURTH,
        net=resized_net,
        recipe=tfbinreg.Recipe(weight_bits=2, target="tflm").with_options(
            "bin_regularization", **dataclasses.asdict(BIN_OPTIONS)
        ),
        optimizer=lambda: keras.optimizers.Adam(0.01),
        finalized=True,
        formats=("c",),
        models=("model.keras", "model.h5"),
        short_constants=True,
    ),
    "padded": Case(
        made_by=FIFTH,
        net=padded_net,
        recipe=tfbinreg.Recipe(weight_bits=2, target="litert").with_options(
            "bin_regularization", **dataclasses.asdict(BIN_OPTIONS)
        ),
        optimizer=lambda: keras.optimizers.Adam(0.01),
        finalized=True,
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


def quantized(case: Case, net: Any, calibration: Any = None) -> Any:
    """The net as the case's recipe says."""
    recipe = full_recipe(case)
    if case.scheme:  # whose steps start from the first batch
        scheme = tfbinreg.LSQQuantizeScheme(recipe)
        return tfmot.quantization.keras.quantize_apply(net, scheme)
    return tfbinreg.quantize_apply(net, recipe, calibration_data=calibration)


def full_recipe(case: Case) -> tfbinreg.Recipe:
    """The case's recipe with the options of its bin regularization that the files name."""
    own = case.bin_options
    options = {name: getattr(own, name) for name in ("detach_step", "scale_free", "bounded_pull")}
    return case.recipe.with_options("bin_regularization", **options)


def trained(case: Case) -> tuple[Any, list[np.ndarray], list[np.ndarray]]:
    """The model after calibration and two steps, with its inputs and targets."""
    keras.utils.set_random_seed(0)
    net = case.net()
    inputs, targets = data(net)
    model = quantized(case, net, inputs if len(inputs) > 1 else inputs[0])
    if case.optimizer is not None:
        model.compile(case.optimizer(), "mse")
        model.bin_strength.assign(case.strength)
        train(model, inputs, targets)
    if case.finalized:
        tfbinreg.finalize(model, short_constants=case.short_constants)
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
        for index, output in enumerate(runtime.run(model, stored, runtime=name).outputs)
    }


def make(folder: pathlib.Path, case: Case) -> None:
    """Write all files of a case, and facts.npz beside them."""
    folder.mkdir(parents=True)
    model, inputs, targets = trained(case)
    for name in case.models:
        model.save(folder / name)
    for name in case.weights:
        model.save_weights(folder / name)
    (folder / "recipe.json").write_text(model.recipe.to_json() + "\n")
    (folder / "graph.npz").write_bytes(freeze(model).to_bytes())
    canonical = tfbinreg.to_tflite(model)
    (folder / "int8.tflite").write_bytes(canonical)
    for path, content in formats(case, canonical).items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
    found = facts(model, inputs) | file_facts(canonical, inputs, model.input_names)
    found |= {f"input/{index}": array for index, array in enumerate(inputs)}
    found |= {f"target/{index}": array for index, array in enumerate(targets)}
    if case.optimizer is not None:
        train(model, inputs, targets)
        found |= {f"resumed/{weight.name}": weight.numpy() for weight in model.weights}
    np.savez_compressed(folder / "facts.npz", **found)


def formats(case: Case, canonical: bytes) -> dict[str, bytes]:
    """The case's other files by path, made of the canonical one."""
    file = models.load(canonical)
    return {
        f"{name}/{path}" if path else f"{name}.tflite": content
        for name in case.formats
        for path, content in build.build(file, OPTIONS[name], name="net").files.items()
    }


if __name__ == "__main__":
    folder, *chosen = sys.argv[1:]
    for case_name in chosen or CASES:
        make(pathlib.Path(folder) / case_name, CASES[case_name])
