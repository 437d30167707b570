"""Time of one training step: float, tfmot, LSQ, with penalties, other methods or a teacher.

All variants run in one process and take turns, so that machine noise affects all of them equally. A
ratio compares two variants within each round and is the median over rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from measure import Summary, interleave, machine, median_time, paired_ratio, table
from nets import NETS, Net
from textbook import attach_textbook

import tfbinreg
from tfbinreg.core.recipe import BIN_REGULARIZATION, LSQ
from tfbinreg.methods import roster

STRENGTH = 0.5
# LSQ from random weights diverges at usual rates, and NaN are no realistic load. The update is
# computed in full at this rate too, but leaves the weights where they are.
LEARNING_RATE = 1e-8
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(LEARNING_RATE, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(LEARNING_RATE, amsgrad=True),
}
NEED_ADAM = ("alq",)
BITS = (2, 3, 4, 8)
TEXTBOOK_BITS = (2, 3, 4)
# (variant, baseline): the largest ratio that is good enough.
UPDATES = roster.with_part("update")
QUANTIZERS = [name for name in roster.with_part("weights") if name != LSQ]
PENALTIES = [
    name for name in roster.with_part("penalty") if name not in (BIN_REGULARIZATION, *QUANTIZERS)
]
TARGETS = {
    ("lsq2", "tfmot"): 0.90,
    ("lsq2", "float"): 1.25,
    **{(f"br{bits}", f"lsq{bits}"): 1.02 for bits in BITS},
    **{(name, "lsq2"): 1.03 for name in (*PENALTIES, *UPDATES)},
}
RATIOS = [
    *TARGETS,
    *((name, "lsq2") for name in QUANTIZERS),
    ("bsq8", "lsq8"),
    *((f"textbook{b}", f"lsq{b}") for b in TEXTBOOK_BITS),
    ("tfmot", "float"),
    ("distill2", "lsq2"),
    ("forward", "lsq2"),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table.

    Attributes:
        label: how the table calls it.
        model: variants with the same model take turns on it and differ in strength only.
        strength: that of the penalty, None for models without one.
        penalty: its name.
    """

    label: str
    model: str
    strength: float | None = None
    penalty: str = BIN_REGULARIZATION


def _variants() -> dict[str, Variant]:
    """All variants; a variant and its baseline are neighbours."""
    found = {
        "float": Variant(label="float", model="float"),
        "tfmot": Variant(label="tfmot 8-bit", model="tfmot"),
    }
    for bits in BITS:
        label, key = f"LSQ W{bits}A{bits}", f"lsq{bits}"
        found[key] = Variant(label=label, model=key, strength=0.0)
        found[f"br{bits}"] = Variant(label=f"{label} + BR", model=key, strength=STRENGTH)
        if bits in TEXTBOOK_BITS:
            key = f"textbook{bits}"
            found[key] = Variant(label=f"{label} + textbook BR", model=key, strength=0.0)
    lsq = found["lsq2"].label
    found["distill2"] = Variant(label=f"{lsq} + teacher", model="distill2")
    found["forward"] = Variant(label="float, forward only", model="forward")
    for name in PENALTIES:
        label = f"{lsq} + {name}"
        found[name] = Variant(label=label, model=name, strength=STRENGTH, penalty=name)
    for name in UPDATES:
        found[name] = Variant(label=f"{lsq} + {name}", model=name)
    for name in QUANTIZERS:
        found[name] = Variant(label=f"{name} W2A2", model=name)
    found["bsq8"] = Variant(label="bsq W8A8", model="bsq8")  # with all its planes
    return found


VARIANTS = _variants()


class Trainer:
    """A compiled model and the batch it is trained on, one call of `step` per training step."""

    def __init__(self, model: Any, batch: tuple[Any, Any], optimizer: str) -> None:
        model.compile(OPTIMIZERS[optimizer](), loss="sparse_categorical_crossentropy")
        self.model = model
        self._function = model.make_train_function()
        self._batches = iter(tf.data.Dataset.from_tensors(batch).repeat())

    def step(self) -> dict[str, tf.Tensor]:
        return self._function(self._batches)

    def median_step(self, variant: Variant, steps: int, strength: float | None = None) -> float:
        """Median seconds of `steps` consecutive steps at a variant's strength, or at this one."""
        if variant.strength is not None:
            strength = variant.strength if strength is None else strength
            self.model.strengths[variant.penalty].assign(strength)
        return median_time(self.step, steps)

    def traces(self) -> int:
        """How many times the train step was traced so far."""
        return self.model.train_tf_function.experimental_get_tracing_count()


class Forward(Trainer):
    """What a teacher adds to a step: the inference of a float model on the batch."""

    def __init__(self, model: Any, batch: tuple[Any, Any], optimizer: str) -> None:
        inputs = tf.constant(batch[0])
        self._forward = tf.function(lambda: model(inputs, training=False))

    def step(self) -> dict[str, tf.Tensor]:
        return {"outputs": self._forward()}

    def traces(self) -> int:
        return self._forward.experimental_get_tracing_count()


def quantize(model: Any, name: str, calibration_data: Any) -> Any:
    """Make of a float model the one called `name`, which is the `model` of a variant."""
    if name in ("float", "forward"):
        return model
    if name == "tfmot":
        return tfmot.quantization.keras.quantize_model(model)
    if name in (*PENALTIES, *UPDATES, *QUANTIZERS):
        recipe = method_recipe(name)
        return tfbinreg.quantize_apply(model, recipe, calibration_data=calibration_data)
    bits = int(name[-1])
    recipe = tfbinreg.Recipe(weight_bits=bits, activation_bits=bits)
    if name.startswith("bsq"):
        recipe = dataclasses.replace(recipe, method="bsq")
    quantized = tfbinreg.quantize_apply(model, recipe, calibration_data=calibration_data)
    if name.startswith("textbook"):
        attach_textbook(quantized, bits, STRENGTH)
    if name.startswith("distill"):
        tfbinreg.distill(quantized)
    return quantized


def method_recipe(name: str) -> tfbinreg.Recipe:
    """W2A2 with a method of the roster, and no other penalty."""
    own: dict[str, Any] = {"penalties": ()}
    if name in QUANTIZERS:
        own["method"] = name
    else:
        own["penalties" if name in PENALTIES else "updates"] = (name,)
    return tfbinreg.Recipe(weight_bits=2, activation_bits=2, **own)


def warm_up(trainer: Trainer, variant: Variant, steps: int) -> dict[str, int]:
    """Run every path once or more; the trace counts before and after switching the strength on."""
    counts = {}
    for strength in (0.0, STRENGTH) if variant.strength is not None else (None,):
        trainer.median_step(variant, steps, strength)
        counts["off" if not strength else "on"] = trainer.traces()
    return counts


def measure_steps(net: Net, names: Sequence[str], args: argparse.Namespace) -> dict[str, Any]:
    """Median seconds per variant and round, and the trace counts per model."""
    batch = net.random_batch(args.seed)
    trainers: dict[str, Trainer] = {}
    traces = {}
    for name in names:
        key = VARIANTS[name].model
        if key in trainers:
            continue
        progress(f"  building {key}")
        keras.utils.set_random_seed(args.seed)
        made = Forward if key == "forward" else Trainer
        trainers[key] = made(quantize(net.build(), key, batch[0]), batch, args.optimizer)
        traces[key] = warm_up(trainers[key], VARIANTS[name], args.warmup)
    functions = {
        name: lambda steps, v=VARIANTS[name]: trainers[v.model].median_step(v, steps)
        for name in names
    }
    progress(f"  {args.rounds} rounds of {args.steps} steps of {len(names)} variants")
    times = interleave(functions, args.rounds, args.steps)
    for key, trainer in trainers.items():
        traces[key]["end"] = trainer.traces()
    logs = {key: trainer.step() for key, trainer in trainers.items()}
    losses = {key: float(own["loss"]) for key, own in logs.items() if "loss" in own}
    return {"seconds": times, "traces": traces, "last_loss": losses}


def ratios(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """The paired ratios whose variants were both measured, with targets."""
    return [
        {
            "variant": over,
            "baseline": under,
            **dataclasses.asdict(summary := paired_ratio(times[over], times[under])),
            "target": (target := TARGETS.get((over, under))),
            "met": None if target is None else summary.median <= target,
        }
        for over, under in RATIOS
        if over in times and under in times
    ]


def report(net_name: str, result: dict[str, Any]) -> str:
    """The tables of one network; tables without rows are left out."""
    steps = [
        [VARIANTS[name].label, *_cells(Summary.of(times), 1e3, 2)]
        for name, times in result["seconds"].items()
    ]
    traces = [
        [key, *(str(counts[moment]) for moment in ("off", "on", "end"))]
        for key, counts in result["traces"].items()
        if "on" in counts
    ]
    tables = {
        ("train step", "ms", "quartiles"): steps,
        ("ratio", "median", "quartiles", "target", ""): [_ratio_row(r) for r in result["ratios"]],
        ("traces at strength", "0", str(STRENGTH), "end"): traces,
    }
    return "\n\n".join([net_name, *(table(head, rows) for head, rows in tables.items() if rows)])


def _ratio_row(row: dict[str, Any]) -> list[str]:
    return [
        f"{VARIANTS[row['variant']].label} / {VARIANTS[row['baseline']].label}",
        *_cells(Summary(row["median"], row["lower"], row["upper"]), 1.0, 3),
        "" if row["target"] is None else f"<= {row['target']:.2f}",
        {None: "", True: "met", False: "MISSED"}[row["met"]],
    ]


def _cells(summary: Summary, unit: float, digits: int) -> tuple[str, str]:
    median, lower, upper = (f"{value * unit:.{digits}f}" for value in dataclasses.astuple(summary))
    return median, f"{lower}..{upper}"


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=[*NETS, "all"], default="all", help="which network")
    parser.add_argument("--rounds", type=_positive, default=21, help="rounds (default 21)")
    parser.add_argument("--steps", type=_positive, default=9, help="steps per round (default 9)")
    parser.add_argument("--warmup", type=_positive, default=5, help="untimed steps (default 5)")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        metavar="VARIANT",
        help=f"default all that the optimizer trains: {' '.join(VARIANTS)}",
    )
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd", help="default sgd")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and weights (default 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to FILE")
    args = parser.parse_args(arguments)
    refused = () if args.optimizer == "adam" else NEED_ADAM
    if set(refused) & set(args.variants or ()):
        parser.error(f"{', '.join(refused)} needs --optimizer adam")
    args.variants = args.variants or [name for name in VARIANTS if name not in refused]
    return args


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return int(text)


def main() -> None:
    args = parse_arguments()
    settings = {key: value for key, value in vars(args).items() if key != "json"}
    versions = {module.__name__: module.__version__ for module in (tf, keras, tfmot)}
    results = {"machine": machine(), "versions": versions, "settings": settings, "models": {}}
    names = [name for name in VARIANTS if name in args.variants]
    for net_name in NETS if args.model == "all" else [args.model]:
        progress(net_name)
        result = measure_steps(NETS[net_name], names, args)
        result |= {"ratios": ratios(result["seconds"])}
        results["models"][net_name] = result
        print(report(net_name, result), end="\n\n", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
