"""What the generated C takes, and whether it computes what TFLM computes.

For each net and width: untrained weights, calibrated and converted. Every operator is compared by
itself, with inputs over the whole range of int8, and then the net as a whole.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import tf_keras as keras
from coverage import prepared, smooth
from nets import NETS

import tfbinreg
from tflite_tools import isolate, runtime
from tflite_tools.formats import c_check, c_source
from tflite_tools.model import Model, load

BITS = (2, 3, 4, 8)
_COLUMNS = ("net", "weights", "packed", "ideal", "constants", "text + rodata", "arena", "in + out",
            "TFLM arena", "compared", "different")  # fmt: skip


def files(name: str) -> Iterator[tuple[int, bytes]]:
    """The canonical file of a net at every width."""
    keras.utils.set_random_seed(0)
    if name in NETS:
        model, data = NETS[name].build(), smooth(64, NETS[name].input_shape)
    else:
        model, data = prepared(name, "tf_keras", 16)
    for bits in BITS:
        quantized = tfbinreg.quantize_apply(model, weight_bits=bits, calibration_data=data[:32])
        tfbinreg.finalize(quantized, data[:32])
        yield bits, tfbinreg.to_tflite(quantized)


def compare(data: bytes, samples: int) -> tuple[int, int]:
    """(values compared with TFLM, values that differ), with the DSP path emulated."""
    model, random = load(data), np.random.default_rng(0)
    shapes = [model.main.tensors[index].shape for index in model.main.inputs]
    inputs = [random.integers(-128, 128, (samples, *s[1:])).astype(np.int8) for s in shapes]
    wanted = runtime.run(data, model, inputs, runtime=runtime.TFLM).outputs
    made = c_check.run(c_source.generate(data).files, model, inputs, flags=[c_check.EMULATE_DSP])
    pairs = list(zip(made, wanted, strict=True))
    return sum(a.size for a, _ in pairs), sum(int(np.sum(a != b)) for a, b in pairs)


def object_bytes(sources: c_source.Sources) -> int:
    """Code and constants of the model compiled for this computer with -Os."""
    with tempfile.TemporaryDirectory() as path:
        folder = pathlib.Path(path)
        for name, text in sources.files.items():
            (folder / name).write_text(text)
        command = [str(c_check.compiler()), "-std=c99", "-Os", "-c", "model.c", "-o", "model.o"]
        subprocess.run(command, cwd=folder, check=True)
        lines = subprocess.check_output(["size", "-A", str(folder / "model.o")], text=True)
    sections = [line.split() for line in lines.splitlines() if line.startswith(".")]
    kept = (".text", ".rodata", ".data.rel.ro")
    return sum(int(size) for name, size, *_ in sections if name.startswith(kept))


def tflm_arena(data: bytes) -> int:
    """Bytes of memory with which TFLM accepts a file, to 256."""
    from tflite_micro import runtime as tflm

    low, high = 0, 2**24
    while high - low > 256:
        middle = (low + high) // 2
        try:
            tflm.Interpreter.from_bytes(data, arena_size=middle)
            high = middle
        except RuntimeError:
            low = middle
    return high


def row(name: str, bits: int, data: bytes) -> dict[str, Any]:
    """One line of the table."""
    model, sources = load(data), c_source.generate(data)
    alone = compare(isolate.isolate(data, model).data, 2)
    whole = compare(data, 50)
    weights = [(int(np.prod(e.shape)), e.bits) for e in model.require_manifest().layers]
    return dict(zip(_COLUMNS, (
        f"{name} W{bits}A8", sum(n for n, _ in weights), sources.packed_weight_bytes,
        sum(n * width for n, width in weights) // 8, sources.constant_bytes,
        object_bytes(sources), sources.arena_bytes, _edges(model), tflm_arena(data),
        alone[0] + whole[0], alone[1] + whole[1],
    ), strict=True))  # fmt: skip


def _edges(model: Model) -> int:
    edges = (*model.main.inputs, *model.main.outputs)
    return sum(int(np.prod(model.main.tensors[index].shape)) for index in edges)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=["resnet8", "MobileNetV3Small"])
    print("| " + " | ".join(_COLUMNS) + " |\n" + "|---" * len(_COLUMNS) + "|")
    for name in parser.parse_args().nets:
        for bits, data in files(name):
            values = row(name, bits, data).values()
            print("| " + " | ".join(str(value) for value in values) + " |", flush=True)


if __name__ == "__main__":
    main()
