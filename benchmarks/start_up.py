"""Time from quantizing a model to the end of its first training step, and peak memory.

Each run is a separate process; the kinds take turns, and a ratio compares two runs of one round.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from measure import Summary, interleave, paired_ratio, table
from nets import NETS, Net

import tfbinreg

_BATCH = 8


def _application(name: str) -> Net:
    """One of Keras' own networks, small enough for one machine."""

    def build() -> Any:
        return getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3), classes=10)

    return Net(build=build, input_shape=(96, 96, 3), classes=10, batch=_BATCH)


MODELS = {
    **NETS,
    "resnet50": _application("ResNet50"),
    "efficientnetb0": _application("EfficientNetB0"),  # tfmot refuses it
}
KINDS = ("tfmot", "lsq", "lsq calibrated")


def start_up(net: Net, kind: str) -> dict[str, float]:
    """Seconds and peak resident memory, MB, of quantizing and one step at two bits."""
    keras.utils.set_random_seed(0)
    model, (inputs, labels) = net.build(), net.random_batch(0)
    start = time.perf_counter()
    if kind == "tfmot":
        quantized = tfmot.quantization.keras.quantize_model(model)
    else:
        quantized = tfbinreg.quantize_apply(
            model,
            weight_bits=2,
            activation_bits=2,
            calibration_data=inputs if kind == "lsq calibrated" else None,
        )
    quantized.compile(keras.optimizers.SGD(1e-8, 0.9), "sparse_categorical_crossentropy")
    (loss,) = quantized.fit(inputs, labels, len(inputs), verbose=0).history["loss"]
    seconds = time.perf_counter() - start
    if not np.isfinite(loss):
        raise RuntimeError(f"The loss is {loss}.")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mb": peak}


def measure(name: str, runs: int) -> dict[str, list[dict[str, float]]]:
    """`start_up` of each kind that takes the network, run by run."""

    def run(kind: str) -> dict[str, float]:
        print(f"  {name}, {kind}", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "--of", name, kind]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1])

    kinds = [kind for kind in KINDS if kind != "tfmot" or name != "efficientnetb0"]
    return interleave({kind: lambda _, kind=kind: run(kind) for kind in kinds}, runs, 1)


def rows(name: str, runs: dict[str, list[dict[str, float]]]) -> list[tuple[str, ...]]:
    """A line of the table per kind: medians, and the ratio to tfmot's."""
    lines = []
    for kind, results in runs.items():
        seconds = [result["seconds"] for result in results]
        peaks = [result["peak_mb"] for result in results]
        ratios = ("tfmot refuses it", "")
        if "tfmot" in runs:
            ratios = tuple(
                f"{paired_ratio(own, [result[key] for result in runs['tfmot']]).median:.2f}"
                for own, key in ((seconds, "seconds"), (peaks, "peak_mb"))
            )
        medians = f"{Summary.of(seconds).median:.2f}", f"{Summary.of(peaks).median:.0f}"
        lines.append((name, kind, *medians, *ratios))
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind (default 3)")
    parser.add_argument("--of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.of:
        name, kind = options.of
        print(json.dumps(start_up(MODELS[name], kind)))
        return
    lines = [line for name in options.models for line in rows(name, measure(name, options.runs))]
    header = ("network", "kind", "seconds", "peak MB", "time / tfmot", "memory / tfmot")
    print(table(header, lines))


if __name__ == "__main__":
    main()
