"""Constants of three bytes per channel: what they save in generated C, and what they cost.

    python benchmarks/short_constants.py [--nets ...] [--bits 2] [--cpu cortex-m4] [--folder DIR]
    python benchmarks/short_constants.py --data_dir DIR [--cache_dir DIR] [--seeds 0 1 2]

The first command prints bytes and instructions of the nets in device_nets.py; every output is
compared with TFLM's. The second trains the nets of first_try.py as methods.py does, finalizes each
with and without short constants, and counts the test images whose class changes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import device_nets
import first_try
import methods
import numpy as np
from instructions import CPUS, noise
from measure import table

import tfbinreg
from tflite_tools.c import boards, generate
from tflite_tools.running import runtime
from tflite_tools.schema.contents import Model

_BITS = "2,8"  # of trained nets
_EPOCHS = 3


def sizes(name: str, bits: int, cpu: str, folder: str | None) -> list[list[str]]:
    """A net's figures without short constants and with; fails if an output is not TFLM's."""
    made, first = [], 0
    for short in (False, True):
        model = device_nets.file(name, bits, folder, short_constants=short)
        sources, inputs = generate.generate(model), noise(model)
        wanted = runtime.run(model, inputs, runtime=runtime.TFLM).outputs
        ran = boards.run(sources, model, inputs, cpu=cpu)
        if not all(map(np.array_equal, ran.outputs, wanted)):
            raise AssertionError(f"{name}: outputs are not TFLM's")
        first = first or ran.instructions
        total = sources.packed_weight_bytes + sources.constant_bytes
        text = boards.size(sources, flags=("-Os",)).text
        made.append(
            [
                f"{name} W{bits}",
                "short" if short else "as trained",
                f"{sources.packed_weight_bytes}",
            ]
            + [f"{sources.constant_bytes}", f"{total / _ideal(model, bits):.3f}"]
            + [f"{ran.instructions / first:.3f}", f"{text}"]
        )
    return made


def _ideal(model: Model, bits: int) -> float:
    """Bytes of all weights at `bits`."""
    return sum(np.prod(layer.shape) for layer in model.require_manifest().layers) * bits / 8


def accuracies(net: str, seed: int, options: argparse.Namespace) -> list[str]:
    """Test accuracy of a trained net, finalized with both, and images that differ in class."""
    data = first_try.read_data(net, options.data_dir)
    float_model = first_try.float_model(net, options, data)
    model = methods.trained(methods.WAYS["lsq"], float_model, data, _BITS, seed, _EPOCHS)
    found = []
    for short in (False, True):
        tfbinreg.finalize(model, target="tflm", short_constants=short)
        found.append(model.predict(data.test[0], verbose=0).argmax(axis=-1))
    right = [f"{100 * np.mean(classes == data.test[1]):.2f}" for classes in found]
    return [net, str(seed), *right, f"{np.count_nonzero(found[0] != found[1])}"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ["ResNet-8", "MobileNetV2-0.35", "MobileNetV3Small", "DS-CNN"]
    parser.add_argument("--nets", nargs="+", choices=device_nets.NETS, default=default)
    parser.add_argument("--bits", type=int, default=2)
    parser.add_argument("--cpu", choices=CPUS, default=CPUS[0])
    parser.add_argument("--folder")
    parser.add_argument("--data_dir")
    parser.add_argument("--cache_dir", default="runs/first_try")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args(arguments)
    if options.data_dir:
        os.makedirs(options.cache_dir, exist_ok=True)
        rows = [accuracies(net, seed, options) for net in first_try.NETS for seed in options.seeds]
        print(table(["net", "seed", "as trained", "short", "other classes"], rows))
        return
    rows = [
        row
        for name in options.nets
        for row in sizes(name, options.bits, options.cpu, options.folder)
    ]
    columns = ["weights", "constants", "over weights x bits", "instructions", "text -Os"]
    print(table(["net", "constants are", *columns], rows))


if __name__ == "__main__":
    main()
