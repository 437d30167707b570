"""The memory that methods need: peak of a training process, bytes of variables, time per step.

Each run is a separate process; the methods take turns, and a ratio compares two runs of a round.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras
from measure import Summary, interleave, median_time, paired_ratio, table
from nets import NETS, Net

import tfbinreg

_RATE = 1e-8  # random weights stay where they are


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A method at a width.

    Attributes:
        bits: of weights and activations.
        method: its name.
        options: its options.
        baseline: what it is compared with.
    """

    bits: int
    method: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    baseline: str = "lsq2"

    def recipe(self) -> tfbinreg.Recipe:
        """Weights and activations of these bits by the method, and no penalty named beside it."""
        options = {self.method: dict(self.options)} if self.options else {}
        return tfbinreg.Recipe(
            weight_bits=self.bits,
            activation_bits=self.bits,
            method=self.method,
            penalties=(),
            options=options,
        )


VARIANTS = {
    "lsq2": Variant(bits=2, method="lsq"),
    "cpq2": Variant(bits=2, method="cpq"),
    "bsq2": Variant(bits=2, method="bsq"),
    "alq2": Variant(bits=2, method="alq"),
    "mirror2": Variant(bits=2, method="mirror_descent"),
    "mirror_softmax2": Variant(bits=2, method="mirror_descent", options={"form": "softmax"}),
    "lsq4": Variant(bits=4, method="lsq", baseline="lsq4"),
    "cpq4": Variant(bits=4, method="cpq", baseline="lsq4"),
    "drop_bits4": Variant(
        bits=4, method="cpq", options={"drop_bits": True, "strength": 0.2}, baseline="lsq4"
    ),
    "lsq8": Variant(bits=8, method="lsq", baseline="lsq8"),
    "bsq8": Variant(bits=8, method="bsq", baseline="lsq8"),
}


def train(net: Net, variant: Variant, steps: int) -> dict[str, float]:
    """Train a network for some steps of Adam.

    Args:
        net: to be quantized.
        variant: how.
        steps: of `fit`, and as many again that are timed.

    Returns:
        `peak`, the peak of resident memory, `variables`, those of the model, and `slots`, those of
        the optimizer, in bytes; `seconds` of a step, the median.

    Raises:
        RuntimeError: if the loss is not finite.
    """
    keras.utils.set_random_seed(0)
    batch = net.random_batch(0)
    model = tfbinreg.quantize_apply(net.build(), variant.recipe(), calibration_data=batch[0])
    model.compile(keras.optimizers.Adam(_RATE), "sparse_categorical_crossentropy")
    data = tf.data.Dataset.from_tensors(batch).repeat()
    loss = model.fit(data, steps_per_epoch=steps, verbose=0).history["loss"][0]
    if not loss < float("inf"):
        raise RuntimeError(f"The loss is {loss}.")
    batches = iter(data)
    seconds = median_time(lambda: model.train_function(batches), steps)
    return {
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "variables": size(model.weights),
        "slots": size(model.optimizer.variables),
        "seconds": seconds,
    }


def size(variables: Iterable[tf.Variable]) -> int:
    """Bytes of variables."""
    return sum(own.shape.num_elements() * own.dtype.size for own in variables)


def measure(net: str, names: Sequence[str], runs: int, steps: int) -> dict[str, list[Any]]:
    """`train` of each variant, run by run."""

    def run(name: str) -> dict[str, float]:
        print(f"  {net}, {name}", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "--of", net, name, "--steps", str(steps)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1])

    return interleave({name: lambda _, name=name: run(name) for name in names}, runs, 1)


def rows(results: Mapping[str, list[dict[str, float]]]) -> list[tuple[str, ...]]:
    """A line of the table per variant: medians, and the ratios to its LSQ if that was run."""
    lines = []
    for name, runs in results.items():
        base = results.get(VARIANTS[name].baseline)
        line = [name]
        for keys, unit, digits in (
            (("peak",), 1e6, 0),
            (("variables", "slots"), 1e6, 2),
            (("seconds",), 1e-3, 1),
        ):
            own = [sum(run[key] for key in keys) for run in runs]
            line.append(f"{Summary.of(own).median / unit:.{digits}f}")
            if base is None:
                line.append("")
                continue
            others = [sum(run[key] for key in keys) for run in base]
            line.append(f"{paired_ratio(own, others).median:.2f}")
        lines.append(tuple(line))
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=NETS, default="resnet8", help="default resnet8")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--runs", type=int, default=3, help="runs of each variant (default 3)")
    parser.add_argument("--steps", type=int, default=5, help="training steps (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to FILE")
    parser.add_argument("--of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.of:
        print(json.dumps(train(NETS[args.of[0]], VARIANTS[args.of[1]], args.steps)))
        return
    results = measure(args.model, args.variants, args.runs, args.steps)
    header = ("method", "peak MB", "/ LSQ", "variables MB", "/ LSQ", "step ms", "/ LSQ")
    print(table(header, rows(results)))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
