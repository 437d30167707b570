"""What a first, short training at low bits reaches: optimizers and start values on two nets.

    python benchmarks/first_try.py --data_dir DIR [--nets resnet8 dscnn] [--bits 2,2 2,8 4,8]
                                   [--arms sgd-0.02 adam-0.001] [--seeds 0 1 2]
    python benchmarks/first_try.py --table

DIR contains cifar10.npz, mlperf_tiny_resnet8.h5 and fashion_mnist.npz. A run trains on 4,800 rows
for three epochs in batches of 64: one to two minutes on a slow core. It shows which way of training
gets far in 225 steps, not where a long training ends. Each finished run adds a line to --results,
and runs that are already there are skipped, so a stopped run can be continued.

Settings are chosen by `choice` (CIFAR-10 rows 35,000-36,999; rows 55,000-56,999 of Fashion-MNIST's
training set), `test` is reported (CIFAR-10 rows 40,000-42,499; the first 2,500 test images of
Fashion-MNIST). The published ResNet-8 was trained on all 50,000 rows, so its figures compare runs
and are not test accuracy. The depthwise net is trained in float once and kept in --cache_dir.

An arm is OPTIMIZER-RATE[-s=SCALE][-start=START]: `adam-0.001-s=10-start=mse`. The rate decays to
zero with a cosine. With SCALE, Adam changes a learned step by the rate * SCALE * its size, not by
the rate. START is the recipe's `weight_start`. "float" and "start" train nothing: they are the
float net, and the quantized net before training. To compare two versions of the code, put the older
one in PYTHONPATH and name it with --code.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import time
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

import tfbinreg

BATCH = 64
CALIBRATION_ROWS, FINALIZE_ROWS = 512, 2560
CHOICE_ROWS, TEST_ROWS = 2000, 2500
NETS = ("resnet8", "dscnn")
KEYS = ("code", "net", "bits", "arm", "seed", "rows", "epochs")
Part = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Images as the net takes them, and their classes."""

    train: Part
    choice: Part
    test: Part


@dataclasses.dataclass(frozen=True)
class Arm:
    """How a net is trained."""

    optimizer: str
    rate: float = 0.0
    step_scale: float | None = None
    weight_start: str | None = None


def read_arm(text: str) -> Arm:
    """`adam-0.001-s=10-start=mse` -> Arm("adam", 0.001, 10.0, "mse")."""
    name, *rest = text.split("-")
    named = dict(part.split("=") for part in rest if "=" in part)
    rates = [float(part) for part in rest if "=" not in part]
    scale = float(named["s"]) if "s" in named else None
    return Arm(name, *rates, step_scale=scale, weight_start=named.get("start"))


def read_data(net: str, folder: str) -> Data:
    """Images as float32: 0 to 255 for ResNet-8, 0 to 1 for the depthwise net."""
    name = {"resnet8": "cifar10.npz", "dscnn": "fashion_mnist.npz"}[net]
    with np.load(os.path.join(folder, name)) as arrays:
        x, y = arrays["x_train"].astype(np.float32), arrays["y_train"].reshape(-1).astype(int)
        if net == "resnet8":
            parts = slice(0, 35000), slice(35000, 37000), slice(40000, 42500)
            return Data(*((x[part], y[part]) for part in parts))
        test = arrays["x_test"][..., None].astype(np.float32) / 255, arrays["y_test"].astype(int)
    x = x[..., None] / 255
    first = (test[0][:TEST_ROWS], test[1][:TEST_ROWS])
    choice = slice(55000, 55000 + CHOICE_ROWS)
    return Data((x[:55000], y[:55000]), (x[choice], y[choice]), first)


def dscnn() -> Any:
    """A keyword spotter's shape for 28x28 images, 1.1 million multiplications: a strided
    convolution, then four depthwise blocks."""
    layers = keras.layers
    parts: list[Any] = [layers.Input((28, 28, 1))]
    parts += [layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False)]
    parts += [layers.BatchNormalization(), layers.ReLU()]
    for _ in range(4):
        parts += [layers.DepthwiseConv2D(3, padding="same", use_bias=False)]
        parts += [layers.BatchNormalization(), layers.ReLU()]
        parts += [layers.Conv2D(32, 1, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
    parts += [layers.GlobalAveragePooling2D(), layers.Dense(10, activation="softmax")]
    return keras.Sequential(parts, name="dscnn")


class StepScalingAdam(keras.optimizers.Adam):
    """Adam that changes a learned step by the rate * `step_scale` * its size, not by the rate."""

    step_scale = 1.0

    def update_step(self, gradient: Any, variable: Any) -> None:
        if "step" not in variable.name:
            super().update_step(gradient, variable)
            return
        before = tf.identity(variable)
        super().update_step(gradient, variable)
        variable.assign(before + self.step_scale * tf.abs(before) * (variable - before))


def optimizer(arm: Arm, steps: int) -> Any:
    """Cosine decay of the rate to zero."""
    rate = keras.optimizers.schedules.CosineDecay(arm.rate, steps)
    if arm.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=0.9)
    if arm.step_scale is None:
        return keras.optimizers.Adam(rate)
    adam = StepScalingAdam(rate)
    adam.step_scale = arm.step_scale
    return adam


def fit(model: Any, arm: Arm, data: Part, epochs: int) -> None:
    """Train without augmentation."""
    steps = epochs * -(-len(data[0]) // BATCH)
    model.compile(optimizer(arm, steps), "sparse_categorical_crossentropy")
    model.fit(*data, batch_size=BATCH, epochs=epochs, verbose=0)


def float_model(net: str, options: argparse.Namespace, data: Data) -> Any:
    """The published ResNet-8, or the depthwise net: Adam 2e-3, three epochs of all rows, seed 0."""
    if net == "resnet8":
        path = os.path.join(options.data_dir, "mlperf_tiny_resnet8.h5")
        return keras.models.load_model(path, compile=False)
    path = os.path.join(options.cache_dir, "dscnn.keras")
    if not os.path.exists(path):
        print("training the depthwise net in float", flush=True)
        keras.utils.set_random_seed(0)
        model = dscnn()
        fit(model, Arm("adam", 2e-3), data.train, 3)
        model.save(path)
    return keras.models.load_model(path, compile=False)


def accuracy(model: Any, images: np.ndarray, labels: np.ndarray) -> float:
    """In percent."""
    classes = model.predict(images, batch_size=250, verbose=0).argmax(-1)
    return round(100 * float(np.mean(classes == labels)), 2)


def quantize(model: Any, bits: tuple[int, int], arm: Arm, images: np.ndarray) -> Any:
    """With the recipe's own weight start unless the arm names one."""
    start: dict[str, Any] = {"weight_start": arm.weight_start} if arm.weight_start else {}
    recipe = tfbinreg.Recipe(weight_bits=bits[0], activation_bits=bits[1], **start)
    return tfbinreg.quantize_apply(model, recipe, calibration_data=images[:CALIBRATION_ROWS])


def run(model: Any, data: Data, values: tuple[Any, ...]) -> dict[str, Any]:
    """Quantize, train and finalize; what comes out, in percent."""
    code, _, bits, arm_text, seed, rows, epochs = values
    arm, begin = read_arm(arm_text), time.monotonic()
    keras.utils.set_random_seed(seed)
    order = np.random.default_rng(seed).permutation(len(data.train[0]))[:rows]
    images, labels = data.train[0][order], data.train[1][order]
    if arm.optimizer != "float":
        model = quantize(model, tuple(int(part) for part in bits.split(",")), arm, images)
    if arm.rate:
        fit(model, arm, (images, labels), epochs)
        seen = images[:FINALIZE_ROWS], labels[:FINALIZE_ROWS]
        tfbinreg.finalize(model, seen[0] if code == "before" else seen)
    return {
        "choice": accuracy(model, *data.choice),
        "test": accuracy(model, *data.test),
        "seconds": round(time.monotonic() - begin),
    }


def read_results(path: str) -> list[dict[str, Any]]:
    """The lines written so far."""
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [json.loads(line) for line in file]


def wanted(options: argparse.Namespace) -> list[tuple[Any, ...]]:
    """What identifies each run that is not there yet, seed by seed over all arms."""
    done = {tuple(line[key] for key in KEYS) for line in read_results(options.results)}
    found = [
        (options.code, net, bits, arm, seed, options.rows, options.epochs)
        for seed in options.seeds
        for bits in options.bits
        for net in options.nets
        for arm in options.arms
    ]
    return [values for values in found if values not in done]


def study(options: argparse.Namespace) -> None:
    """Every run that is asked for and not there yet."""
    nets: dict[str, tuple[Any, Data]] = {}
    for values in wanted(options):
        net = values[1]
        if net not in nets:
            data = read_data(net, options.data_dir)
            nets[net] = float_model(net, options, data), data
        line = {**dict(zip(KEYS, values, strict=True)), **run(*nets[net], values)}
        print(line, flush=True)
        with open(options.results, "a") as file:
            file.write(json.dumps(line) + "\n")


def table(results: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over the seeds, as Markdown."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = collections.defaultdict(list)
    for line in results:
        widths = "W{}A{}".format(*line["bits"].split(","))
        groups[line["net"], widths, line["code"], line["arm"]].append(line)
    rows = ["| net | bits | code | arm | seeds | choice | test |", "|---|---|---|---|---|---|---|"]
    for key, lines in sorted(groups.items()):
        cells = [str(len(lines)), *(_over_seeds(lines, column) for column in ("choice", "test"))]
        rows.append(f"| {' | '.join((*key, *cells))} |")
    return "\n".join(rows)


def _over_seeds(lines: list[dict[str, Any]], column: str) -> str:
    found = [line[column] for line in lines]
    spread = f" ± {np.std(found, ddof=1):.1f}" if len(found) > 1 else ""
    return f"{np.mean(found):.1f}{spread}"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default=".")
    parser.add_argument("--cache_dir", default="runs/first_try")
    parser.add_argument("--results", default="benchmarks/first_try.jsonl")
    parser.add_argument("--code", default="after", help="name of the code version")
    parser.add_argument("--nets", nargs="+", default=NETS, choices=NETS)
    parser.add_argument("--bits", nargs="+", default=["2,2", "2,8", "4,8"])
    parser.add_argument("--arms", nargs="+", default=["sgd-0.02", "adam-0.001"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rows", type=int, default=4800)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="show the results, train nothing")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    if options.table:
        print(table(read_results(options.results)))
        return
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    os.makedirs(options.cache_dir, exist_ok=True)
    study(options)


if __name__ == "__main__":
    main()
