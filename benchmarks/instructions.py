"""Instructions, bytes and memory of generated C, net by net and width by width.

    python benchmarks/instructions.py [--nets ...] [--bits ...] [--cpus ...] [--steps]

The nets of device_nets.py at 2, 3, 4 and 8 bits. Instructions of one inference are counted in QEMU
at -O2 and divided by the multiplications of the layers with weights. Outputs are compared with
TFLM's. A dash marks a net that does not fit an emulated board. --steps prints every operator,
--folder saves the files of the nets.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import device_nets
import numpy as np
from measure import table

from tflite_tools.c import boards, generate, pads
from tflite_tools.c.host_run import CompilerError
from tflite_tools.running import runtime
from tflite_tools.schema.contents import Model, Op

CPUS = ("cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")
_SAMPLES = 2


def products(model: Model, op: Op) -> int:
    """Multiplications of an operator with weights, those with zeros around an image included."""
    if op.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    weights, made = (model.main.tensors[index].shape for index in (op.inputs[1], op.outputs[0]))
    each = weights[1:3] if op.name == "DEPTHWISE_CONV_2D" else weights[1:]
    return math.prod(made) * math.prod(each)


def noise(model: Model, count: int = _SAMPLES) -> list[np.ndarray]:
    """Samples of int8 noise for every input."""
    random = np.random.default_rng(0)
    shapes = [model.main.tensors[index].shape for index in model.main.inputs]
    return [random.integers(-128, 128, (count, *s[1:])).astype(np.int8) for s in shapes]


def run_if_held(
    sources: generate.Sources,
    model: Model,
    inputs: Sequence[np.ndarray],
    cpu: str,
    time_limit: float = 300.0,
) -> boards.DeviceRun | None:
    """As `boards.run`; None if the emulated board cannot hold the network."""
    try:
        return boards.run(sources, model, inputs, cpu=cpu, time_limit=time_limit)
    except CompilerError as error:
        if "does not fit" not in str(error):
            raise
        return None


def row(name: str, bits: int, cpus: Sequence[str], folder: str | None) -> list[str]:
    """A net's figures; fails if the C does not compute what TFLM computes."""
    model = device_nets.file(name, bits, folder)
    sources, inputs = generate.generate(model), noise(model)
    wanted = runtime.run(model, inputs, runtime=runtime.TFLM).outputs
    count = sum(products(model, op) for op in model.main.ops)
    ratios = []
    for cpu in cpus:
        ran = run_if_held(sources, model, inputs, cpu)
        if ran is None:
            ratios.append("–")
            continue
        if not all(map(np.array_equal, ran.outputs, wanted)):
            raise AssertionError(f"{name} at {bits} bits: {cpu} does not compute what TFLM does")
        ratios.append(f"{ran.instructions / count:.3f}")
    small, fast = (boards.size(sources, flags=(level,)).text for level in ("-Os", "-O2"))
    return [f"{name} W{bits}", f"{count / 1e6:.2f} M", *ratios, f"{sources.packed_weight_bytes}",
            f"{sources.constant_bytes}", f"{small}", f"{fast}",
            f"{sources.arena_bytes}"]  # fmt: skip


def stepped(model: Model) -> list[Op]:
    """The operators that take steps in the C: not those whose result is their input, nor zeros that
    a convolution sees by itself."""
    return [
        op
        for op in pads.joined(model.main).ops
        if op.name not in ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
    ]


def steps(name: str, bits: int, cpus: Sequence[str], folder: str | None) -> str:
    """The operators of a net: what each takes on each processor."""
    model = device_nets.file(name, bits, folder)
    sources, inputs = generate.generate(model), noise(model)
    runs = [boards.run(sources, model, inputs, cpu=cpu, by_step=True).steps for cpu in cpus]
    rows = []
    for op, *counts in zip(stepped(model), *runs, strict=True):
        made, own = model.main.tensors[op.outputs[0]], products(model, op)
        cells = [f"{n}" + (f" ({n / own:.2f})" if own else "") for n in counts]
        rows.append([op.name, f"{list(made.shape)}", f"{own}" if own else "", *cells])
    return table(["operator", "output", "products", *cpus], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", default=list(device_nets.NETS))
    parser.add_argument("--bits", nargs="+", type=int, default=list(device_nets.BITS))
    parser.add_argument("--cpus", nargs="+", choices=boards.CPUS, default=list(CPUS))
    parser.add_argument("--folder", metavar="DIR", help="save the nets here and reuse them")
    parser.add_argument("--steps", action="store_true", help="print every operator")
    options = parser.parse_args(arguments)
    cells = [(name, bits) for name in options.nets for bits in options.bits]
    if options.steps:
        for name, bits in cells:
            print(f"{name} W{bits}\n\n{steps(name, bits, options.cpus, options.folder)}\n")
        return
    names = ["net", "products", *options.cpus]
    names += ["weights", "constants", "M4 text -Os", "M4 text -O2", "arena"]
    print(table(names, [row(*cell, options.cpus, options.folder) for cell in cells]))


if __name__ == "__main__":
    main()
