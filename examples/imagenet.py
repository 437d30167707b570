"""The papers' ImageNet recipes: LSQ, then LSQ + BR, on ResNet-18, MobileNetV2 or MobileNetV3-Small.

    python examples/imagenet.py --data_dir DIR --model resnet18 --float_model float.keras --bits 2

DIR contains train/<class>/ and val/<class>/ folders of images; --tfds imagenet2012 uses a dataset
of tensorflow_datasets instead. Without --float_model the net starts from random weights, after
--float_epochs of float training. Defaults are the papers': 90 epochs, SGD 0.9, rate 0.01 with
cosine decay, weight decay 1e-4, 5e-5, 2.5e-5 at 4, 3, 2 bits on the weights only, bin
regularization of strength 0.5 from epoch 30 on. A killed run continues where it was. For several
devices use --strategy mirrored, or multi_worker with TF_CONFIG set on each worker.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import image_folder
import tensorflow as tf
import tf_keras as keras
from resnet18 import resnet18

import tfbinreg

WEIGHT_DECAY = {4: 1e-4, 3: 5e-5, 2: 2.5e-5}
NOT_DECAYED = ["bias", "gamma", "beta"]  # and the steps, which QuantizedModel.compile leaves out


def build(name: str, size: int, classes: int) -> Any:
    """A float net with logits out, for images in [0, 255]."""
    shape = (size, size, 3)
    image = keras.Input(shape, name="image")
    x = image
    if name != "mobilenet_v3_small":  # which scales its inputs itself
        x = keras.layers.Rescaling(1 / 127.5, -1.0, name="scale")(x)
    if name == "resnet18":
        net = resnet18(keras, shape, classes)
    else:
        make = {
            "mobilenet_v2": keras.applications.MobileNetV2,
            "mobilenet_v3_small": keras.applications.MobileNetV3Small,
        }[name]
        net = make(shape, weights=None, classes=classes, classifier_activation=None)
    return keras.Model(image, net(x), name=name)


def compiled(model: Any, rate: float, epochs: int, steps: int, weight_decay: float) -> Any:
    """`model` with SGD 0.9, cosine decay to zero, and weight decay on kernels alone."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, max(1, epochs * steps))
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def callbacks(folder: str) -> list[Any]:
    """Resuming, a table of the epochs, TensorBoard."""
    return [
        keras.callbacks.BackupAndRestore(os.path.join(folder, "backup")),
        keras.callbacks.CSVLogger(os.path.join(folder, "log.csv"), append=True),
        keras.callbacks.TensorBoard(os.path.join(folder, "tensorboard")),
    ]


def scope(strategy: str) -> Callable[[], contextlib.AbstractContextManager]:
    """Makes the scopes in which models are built for this tf.distribute strategy."""
    if strategy == "mirrored":
        return tf.distribute.MirroredStrategy().scope
    if strategy == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy().scope
    return contextlib.nullcontext


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", help="folder with train/ and val/, or the folder of --tfds")
    parser.add_argument("--tfds", metavar="NAME", help="dataset of tensorflow_datasets")
    parser.add_argument(
        "--model", choices=["resnet18", "mobilenet_v2", "mobilenet_v3_small"], default="resnet18"
    )
    parser.add_argument("--float_model", metavar="FILE", help="trained float model")
    parser.add_argument("--float_epochs", type=int, default=0)
    parser.add_argument("--bits", type=int, default=2, help="weight and activation bits")
    parser.add_argument("--activation_bits", type=int, help="if different from --bits")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=256, help="over all devices")
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--weight_decay", type=float, help="default: the papers', by bits")
    parser.add_argument("--switch_epoch", type=int, default=30)
    parser.add_argument("--strength", type=float, default=0.5)
    parser.add_argument("--strategy", choices=["none", "mirrored", "multi_worker"], default="none")
    parser.add_argument("--output_dir", default="runs/imagenet")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not options.data_dir and not options.tfds:
        parser.error("give --data_dir or --tfds")
    return options


def load(options: argparse.Namespace) -> image_folder.Data:
    """The data that the options name."""
    size, batch, seed = options.image_size, options.batch_size, options.seed
    if options.tfds:
        return image_folder.named(options.tfds, options.data_dir, size, batch, seed)
    return image_folder.folder(options.data_dir, size, batch, seed)


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Float training if asked for, LSQ, LSQ + BR, the file; returns what is reported."""
    keras.utils.set_random_seed(options.seed)
    place = scope(options.strategy)  # before any operation: multi_worker demands it
    data = load(options)
    fit = {"steps_per_epoch": data.steps, "validation_data": data.validation}
    decay = options.weight_decay
    if decay is None:
        decay = WEIGHT_DECAY.get(options.bits, WEIGHT_DECAY[4])
    with place():
        if options.float_model:
            model: Any = options.float_model
        else:
            net = build(options.model, options.image_size, data.classes)
            model = compiled(net, 0.1, options.float_epochs, data.steps, 1e-4)
    if options.float_epochs and not options.float_model:
        float_dir = os.path.join(options.output_dir, "float")
        model.fit(data.train, epochs=options.float_epochs, callbacks=callbacks(float_dir), **fit)
        model.save(os.path.join(options.output_dir, "float.keras"))
    with place():
        # No calibration data: the first batch starts the activation steps, whatever state the
        # moving statistics of batch normalization are in.
        recipe = tfbinreg.Recipe(
            weight_bits=options.bits,
            activation_bits=options.activation_bits or options.bits,
            unsigned_input=True,
        )
        quantized = tfbinreg.quantize_apply(model, recipe)
        compiled(quantized, options.rate, options.epochs, data.steps, decay)
    bins = tfbinreg.BinRegularization("two_stage", options.switch_epoch, strength=options.strength)
    quantized.fit(
        data.train,
        epochs=options.epochs,
        callbacks=[bins, *callbacks(options.output_dir)],
        **fit,
    )
    tfbinreg.finalize(quantized, data.train.take(50))
    accuracy = quantized.evaluate(data.validation, verbose=0, return_dict=True)["accuracy"]
    quantized.save(os.path.join(options.output_dir, "q.keras"))
    content = tfbinreg.to_tflite(quantized)
    with open(os.path.join(options.output_dir, "model.tflite"), "wb") as file:
        file.write(content)
    return {"accuracy": accuracy, "file_bytes": len(content)}


def main() -> int:
    options = parse()
    os.makedirs(options.output_dir, exist_ok=True)
    try:
        result = train(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with open(os.path.join(options.output_dir, "result.json"), "w") as file:
        json.dump({**vars(options), **result}, file, indent=1)
    print(f"accuracy {100 * result['accuracy']:.2f} %, file of {result['file_bytes']} bytes")
    print(f"next: tflite_tools verify {options.output_dir}/model.tflite "
          f"--reference {options.output_dir}/q.keras")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
