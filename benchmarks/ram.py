"""Activation memory against time: what strips of rows save, and what they cost.

    python benchmarks/ram.py [--nets ...] [--bits 2] [--cpu cortex-m4] [--shares 0.9 0.75 ...]
                             [--folder DIR]

The nets of device_nets.py, as `convert --format c` writes them, and with RAM budgets that are
shares of that. Instructions of one inference are counted in QEMU at -O2. Outputs are compared with
TFLM's. A share that no strips reach is listed as refused. --folder saves the files of the nets.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import device_nets
import numpy as np
from instructions import CPUS, noise
from measure import table

from tflite_tools.c import boards, generate
from tflite_tools.running import runtime

SHARES = (0.95, 0.85, 0.7, 0.67, 0.58, 0.4, 0.3, 0.2, 0.15)


def rows(name: str, bits: int, cpu: str, shares: Sequence[float], folder: str | None) -> list:
    """A net's figures, without a budget and with each; fails if an output is not TFLM's."""
    model = device_nets.file(name, bits, folder)
    inputs = noise(model)
    wanted = runtime.run(model, inputs, runtime=runtime.TFLM).outputs
    whole, made, first = generate.generate(model).arena_bytes, [], 0
    for share in (None, *shares):
        budget = None if share is None else int(share * whole)
        try:
            sources = generate.generate(model, ram_budget=budget)
        except ValueError as error:
            made.append([f"{name} W{bits}", f"{budget}", "refused", "", str(error).split(". ")[0]])
            break
        ran = boards.run(sources, model, inputs, cpu=cpu)
        if not all(map(np.array_equal, ran.outputs, wanted)):
            raise AssertionError(f"{name} with {budget} bytes does not compute what TFLM does")
        first = first or ran.instructions
        ratio, text = ran.instructions / first, boards.size(sources, flags=("-O2",)).text
        budget_text = "none" if budget is None else f"{budget}"
        made.append(
            [f"{name} W{bits}", budget_text, f"{sources.arena_bytes}", f"{ratio:.3f}", f"{text}"]
        )
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ["ResNet-8", "MobileNetV2-0.35"]
    parser.add_argument("--nets", nargs="+", choices=device_nets.NETS, default=default)
    parser.add_argument("--bits", type=int, default=2)
    parser.add_argument("--cpu", choices=CPUS, default=CPUS[0])
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES)
    parser.add_argument("--folder")
    options = parser.parse_args(arguments)
    found = []
    for name in options.nets:
        found += rows(name, options.bits, options.cpu, options.shares, options.folder)
    print(table(["net", "budget", "arena", "instructions", "text"], found))


if __name__ == "__main__":
    main()
