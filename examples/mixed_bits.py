"""ResNet-8 in a given number of bytes: one width for all kernels against mixed and learned bits.

    python examples/mixed_bits.py --data_dir DIR [--budgets 24KB 16KB] [--seeds 0 1 2]
                                  [--ways uniform layer ...] [--results FILE]
    python examples/mixed_bits.py --table

DIR contains mlperf_tiny_resnet8.h5 (mlcommons/tiny, Apache-2.0) and, unless tf_keras downloads it,
cifar10.npz. For each budget and seed, every way of choosing bits is trained in the same way, from
the published float net, on some of the rows 0-39,999: Adam from 0.001, or SGD from 0.02 for bit
planes, with cosine decay to zero. All kernels are free, including the first and the last;
activations have 8 bits. Sizes are those of weights and constants in the generated C; the table
shows which do not fit.

- uniform: the largest width that fits, the same for all kernels.
- layer, channel: bits are chosen before training, as `convert --flash_budget` does. unpruned: also
  for channels, with at least 1 bit for each.
- dropbits, bsq: bits are learned, and `FlashBudgetSchedule` brings them within the budget.

Each finished run adds a line to --results, and runs that are already there are skipped, so a
stopped run can be continued. --table prints the existing results and plots accuracy over bytes. The
published net was also trained on the images that are reported: the ways can be compared, but no
accuracy here is a test accuracy.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import data
import numpy as np
import tf_keras as keras

import tfbinreg
from tfbinreg import Recipe
from tflite_tools import c_bytes
from tflite_tools.from_keras.fit_flash import byte_count, squeeze
from tflite_tools.schema import contents

BATCH, CALIBRATION_ROWS = 64, 512
MARGIN = 64  # bytes by which constants may grow in training
UNIFORM_WIDTHS = (8, 4, 3, 2, 1)
KEYS = ("way", "budget", "seed", "rows", "epochs")
FREE = Recipe(first_last_bits=None)


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A float net, its data and a budget in bytes."""

    path: str
    model: Any
    images: np.ndarray
    labels: np.ndarray
    budget: int

    @property
    def samples(self) -> np.ndarray:
        """What is calibrated with."""
        return self.images[:CALIBRATION_ROWS]


def packed(model: Any) -> int:
    """Bytes of weights and constants in the C of a quantized model, trained or not."""
    tfbinreg.finalize(model)
    return c_bytes(model)


def untrained(task: Task, recipe: Recipe) -> Any:
    return tfbinreg.quantize_apply(task.model, recipe, calibration_data=task.samples)


def uniform(task: Task) -> Recipe:
    """The largest width whose C fits."""
    for width in UNIFORM_WIDTHS:
        recipe = dataclasses.replace(FREE, weight_bits=width)
        if packed(untrained(task, recipe)) <= task.budget:
            return recipe
    raise ValueError(f"Not even one bit for each weight fits into {task.budget} bytes.")


def mixed(granularity: str, *widths: int) -> Callable[[Task], Recipe]:
    """Bits by sensitivity, as `convert --flash_budget` chooses them."""

    def choose(task: Task) -> Recipe:
        limit = task.budget - MARGIN
        found = squeeze(
            task.path, limit, {"": task.samples}, granularity=granularity, widths=widths
        )
        return Recipe.from_json(found.recipe)

    return choose


def learned(method: str, bits: int, fewest: int, **options: Any) -> Callable[[Task], Recipe]:
    """Bits that the method learns in training, from `bits` down to `fewest`."""
    recipe = dataclasses.replace(FREE, weight_bits=bits, method=method, options={method: options})

    def choose(task: Task) -> Recipe:
        least = packed(untrained(task, dataclasses.replace(FREE, weight_bits=fewest)))
        if least > task.budget:
            raise ValueError(f"{method} has at least {fewest} bits, which take {least} bytes.")
        return recipe

    return choose


WAYS: dict[str, Callable[[Task], Recipe]] = {
    "uniform": uniform,
    "layer": mixed("layer", 1, 2, 3, 4, 8),
    "channel": mixed("channel", 0, 1, 2, 3, 4, 8),
    "unpruned": mixed("channel", 1, 2, 3, 4, 8),
    "dropbits": learned("cpq", 4, 2, drop_bits=True, strength=0.1),
    "bsq": learned("bsq", 4, 2, every=2, planes_until=0.7, strength=1.0),
}
# Adam moves a bit plane by no more than its rate in a step, which is too little.
SGD_WAYS = ("bsq",)


def run(way: str, task: Task, test: data.Split, seed: int, epochs: int) -> dict[str, Any]:
    """Quantize, train and measure."""
    keras.utils.set_random_seed(seed)
    begin = time.perf_counter()
    recipe = WAYS[way](task)
    model = untrained(task, recipe)
    callbacks = []
    if recipe.method != "lsq":
        limit = task.budget - MARGIN
        callbacks.append(tfbinreg.FlashBudgetSchedule(recipe.method, limit, count=c_bytes))
    steps = epochs * -(-len(task.images) // BATCH)
    if way in SGD_WAYS:
        optimizer = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.02, steps), 0.9)
    else:
        optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.001, steps))
    model.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(task.images, task.labels, BATCH, epochs, verbose=2, shuffle=True, callbacks=callbacks)
    tfbinreg.finalize(model, (task.images[:2560], task.labels[:2560]))
    size = c_bytes(model)
    found = model.predict(test.test_images.astype(np.float32), verbose=0).argmax(axis=-1)
    return {
        "bytes": size,
        "fits": size <= task.budget,
        "accuracy": round(100.0 * float(np.mean(found == test.test_labels)), 2),
        "bits": summary(model),
        "seconds": round(time.perf_counter() - begin),
    }


def summary(model: Any) -> dict[str, str]:
    """The bits of each kernel, as text."""
    return {
        entry.name: flash_bits(entry)
        for entry in contents.load(tfbinreg.to_tflite(model)).require_manifest().layers
    }


def flash_bits(entry: Any) -> str:
    own = entry.channel_bits or (entry.bits,)
    return f"{min(own)}-{max(own)}, mean {np.mean(own):.2f}" if len(set(own)) > 1 else str(own[0])


def wanted(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The runs, seed by seed."""
    for seed in options.seeds:
        for budget in options.budgets:
            for way in options.ways:
                values = (way, byte_count(budget), seed, options.rows, options.epochs)
                yield dict(zip(KEYS, values, strict=True))


def read_results(path: str) -> list[dict[str, Any]]:
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def train(options: argparse.Namespace) -> None:
    """Make the runs that are not done."""
    has_images = os.path.exists(os.path.join(options.data_dir, "cifar10.npz"))
    split = data.cifar10(options.data_dir if has_images else None)
    path = os.path.join(options.data_dir, "mlperf_tiny_resnet8.h5")
    done = [{key: line[key] for key in KEYS} for line in read_results(options.results)]
    for values in wanted(options):
        if values in done:
            continue
        order = np.random.default_rng(values["seed"]).permutation(len(split.train_images))
        rows = order[: values["rows"]]
        task = Task(
            path,
            keras.models.load_model(path, compile=False),
            split.train_images[rows].astype(np.float32),
            split.train_labels[rows],
            values["budget"],
        )
        print(values, flush=True)
        try:
            result = run(values["way"], task, split, values["seed"], values["epochs"])
        except ValueError as error:  # it cannot fit, and says so
            result = {"refused": str(error)}
            print(error, flush=True)
        with open(options.results, "a", encoding="utf-8") as file:
            file.write(json.dumps({**values, **result}) + "\n")


def table(lines: list[dict[str, Any]]) -> str:
    """Means and standard deviations over the seeds."""
    rows = ["| budget | way | bytes | accuracy | n |", "|---|---|---|---|---|"]
    groups = dict.fromkeys((line["budget"], line["way"]) for line in lines)
    for budget, way in sorted(groups, key=lambda group: (-group[0], list(WAYS).index(group[1]))):
        own = [line for line in lines if (line["budget"], line["way"]) == (budget, way)]
        if "refused" in own[0]:  # whatever the seed
            rows.append(f"| {budget} | {way} | cannot fit | | |")
            continue
        sizes, found = ([line[key] for line in own] for key in ("bytes", "accuracy"))
        spread = f" ± {np.std(found, ddof=1):.2f}" if len(found) > 1 else ""
        over = "" if all(line["fits"] for line in own) else " (does not fit)"
        rows.append(
            f"| {budget} | {way} | {round(np.mean(sizes))}{over} | {np.mean(found):.2f}{spread} "
            f"| {len(own)} |"
        )
    return "\n".join(rows)


def picture(lines: list[dict[str, Any]], path: str) -> None:
    """Bytes against accuracy, a point for each run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4))
    for way in WAYS:
        own = [line for line in lines if line["way"] == way and "refused" not in line]
        if own:
            points = [(line["bytes"] / 1024, line["accuracy"]) for line in own]
            axis.scatter(*zip(*points, strict=True), label=way, alpha=0.7)
    for budget in {line["budget"] for line in lines}:
        axis.axvline(budget / 1024, color="tab:gray", linewidth=0.8, linestyle=":")
    axis.set(xlabel="weights and constants in C, KB", ylabel="accuracy, %")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", help="folder with mlperf_tiny_resnet8.h5")
    parser.add_argument("--budgets", nargs="+", default=["24KB", "16KB"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=4800, help="training rows to use")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--results", default="mixed_bits.jsonl")
    parser.add_argument("--picture", default="mixed_bits.png")
    parser.add_argument("--table", action="store_true", help="print existing results only")
    options = parser.parse_args(arguments)
    if not options.table:
        if options.data_dir is None:
            parser.error("--data_dir is needed to train")
        train(options)
    lines = read_results(options.results)
    print(table(lines))
    if lines:
        picture(lines, options.picture)


if __name__ == "__main__":
    main()
