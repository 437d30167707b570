"""Whether generated C computes what TFLM computes, operator by operator, on a million values.

    python benchmarks/exact.py [--nets ...] [--bits ...] [--cpus ...] [--values 1000000]

Runs every operator of the nets in device_nets.py by itself, on int8 noise, on each emulated
processor. At least --values outputs are compared, and those that differ are counted. A dash marks a
net whose operators do not fit an emulated board. --folder saves the files of the nets. Exits with 1
if an output differs.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import device_nets
import numpy as np
from instructions import noise, run_if_held
from measure import table

from tflite_tools.c import boards, generate
from tflite_tools.checks import isolate
from tflite_tools.running import runtime
from tflite_tools.schema.contents import Model

CPUS = ("cortex-m3", "cortex-m4", "cortex-m55", "rv32imc")
_LIMIT = 1800.0  # seconds of a run


def compared(model: Model, values: int, cpus: Sequence[str]) -> list[tuple[int, int] | None]:
    """(outputs compared, outputs that differ) of each processor; None where the board is too small.

    Args:
        model: whose outputs are compared.
        values: at least so many of them, over as many samples as that takes.
        cpus: keys of `boards.CPUS`.
    """
    sizes = [math.prod(model.main.tensors[index].shape) for index in model.main.outputs]
    inputs = noise(model, -(-values // sum(sizes)))
    wanted = runtime.run(model, inputs, runtime=runtime.TFLM).outputs
    sources, found = generate.generate(model), []
    for cpu in cpus:
        ran = run_if_held(sources, model, inputs, cpu, _LIMIT)
        if ran is None:
            found.append(None)
            continue
        pairs = list(zip(ran.outputs, wanted, strict=True))
        wrong = sum(int(np.count_nonzero(ours != theirs)) for ours, theirs in pairs)
        found.append((sum(theirs.size for _, theirs in pairs), wrong))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each net and width as it is done; 1 if an output differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", default=list(device_nets.NETS))
    parser.add_argument("--bits", nargs="+", type=int, default=list(device_nets.BITS))
    parser.add_argument("--cpus", nargs="+", choices=boards.CPUS, default=list(CPUS))
    parser.add_argument(
        "--values", type=int, default=1_000_000, help="minimum number of outputs to compare"
    )
    parser.add_argument("--folder", metavar="DIR", help="save the nets here and reuse them")
    options = parser.parse_args(arguments)
    wrong, rows = 0, []
    for name in options.nets:
        for bits in options.bits:
            alone = isolate.isolate(device_nets.file(name, bits, options.folder)).model
            found = compared(alone, options.values, options.cpus)
            wrong += sum(pair[1] for pair in found if pair is not None)
            cells = ["–" if pair is None else f"{pair[1]} of {pair[0]:,}" for pair in found]
            rows.append([f"{name} W{bits}", *cells])
            print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    print(table(["net", *options.cpus], rows))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
