"""The size of each format, and whether it computes what the canonical file computes.

    python benchmarks/formats.py --data_dir DIR [--nets ...] [--settings ...] [--json FILE]

For every net and setting: the canonical int8 file, INT4, tables (LUT), both slim, and C. DIR
contains fashion_mnist.npz, cifar10.npz and mlperf_tiny_resnet8.h5. Rows are saved in --json as they
are finished; a stopped run continues from there. Progress goes to stderr, Markdown to stdout.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import formats_tables
import formats_times
import numpy as np
import rows
import tf_keras as keras
from formats_nets import NETS, Work

import tfbinreg
from tflite_tools.c import generate, host_run
from tflite_tools.checks import compare, derived_file, isolate
from tflite_tools.formats import build, int4, lut
from tflite_tools.formats.build import Options
from tflite_tools.reports import bench
from tflite_tools.running import runtime, samples
from tflite_tools.schema import codes
from tflite_tools.schema.contents import Model, load

SETTINGS = {"W2A8": (2, 8), "W3A8": (3, 8), "W4A8": (4, 8), "W8A8": (8, 8), "W2A2": (2, 2)}
INSPECT = ("inspect", "W4A8")  # the row of a net that is only inspected
OUTPUTS = 1_000_000  # of C, compared with TFLM's
_PATHS = ((), (host_run.EMULATE_DSP,))  # portable C, and the one for processors with DSP
_WHOLE = 20  # samples of whole nets in C


def quantized(name: str, setting: str, work: Work, folder: str | None) -> Any:
    """A net as it was kept in `folder`, or trained and kept there."""
    path = os.path.join(folder or "", f"{name} {setting}.keras")
    if folder is not None and os.path.exists(path):
        return tfbinreg.load_model(path)
    keras.utils.set_random_seed(0)
    model = NETS[name](work)
    if folder is not None:
        os.makedirs(folder, exist_ok=True)
        model.save(f"{path}.part.keras")
        os.replace(f"{path}.part.keras", path)
    return model


def cell(name: str, setting: str, work: Work, folder: str | None = None) -> rows.Row:
    """One row: every format of a net at one setting."""
    model = quantized(name, setting, work, folder)
    canonical = load(tfbinreg.to_tflite(model))
    stored = codes.codes_of(canonical)
    layers = canonical.require_manifest().layers
    weights = [(math.prod(entry.shape), entry.bits) for entry in layers]
    inputs = samples.stored(canonical, samples.seeded(canonical, samples=1, seed=0))
    formats = {
        text: compared(canonical, options) for text, options in options_of(work.bits[0]).items()
    }
    row = {
        "net": name,
        "setting": setting,
        "weights": sum(count for count, _ in weights),
        "nominal": sum(count for count, _ in weights) * work.bits[0] / 8,
        "ideal": sum(count * bits for count, bits in weights) / 8,
        "wrong_codes": sum(
            int(np.count_nonzero(stored[layer] != coded.codes))
            for layer, coded in tfbinreg.integer_codes(model).items()
        ),
        "formats": formats,
        "costs": costs(bench.benchmark(canonical, inputs)),
        "c": c_against_tflm(canonical),
        "convert": formats_times.convert_times(model),
    }
    if "int4" in formats:
        formats["int4, stored_bits=4"] = exact_int4(model)
    return row


def exact_int4(model: Any) -> rows.Row:
    """INT4 of a model whose int8 file stores what INT4 holds; the model keeps that recipe."""
    model.recipe = dataclasses.replace(model.recipe, stored_bits=int4.MOST_BITS)
    tfbinreg.finalize(model)
    canonical = load(tfbinreg.to_tflite(model))
    made = int4.convert(canonical, target="tflm").model
    return {"bytes": len(made.data), "canonical": difference(canonical, made)}


def options_of(weight_bits: int) -> dict[str, Options]:
    """The formats that can hold weights of so many bits, by name."""
    found = {"slim int8": Options(target="tflm", slim=True)}
    if weight_bits <= int4.MOST_BITS:
        found["int4"] = Options(format="int4", target="tflm")
        found["slim int4"] = Options(format="int4", target="tflm", slim=True)
    if weight_bits <= lut.MOST_BITS:
        found["lut"] = Options(format="lut", target="tflm")
        found["slim lut"] = Options(format="lut", target="tflm", slim=True)
    return found


def compared(canonical: Model, options: Options) -> rows.Row:
    """Size, arena, and what differs from the canonical file, all in TFLM.

    INT4 is compared with its own integers as int8 as well: there, nothing is rounded differently.
    """
    made = build.build(canonical, options).model
    row = {
        "bytes": len(made.data),
        "arena": runtime.least_arena(made),
        "canonical": difference(canonical, made),
    }
    if options.format == "int4":
        row["own integers"] = difference(derived_file.twin(made), made)
        checks = derived_file.verify_variant(
            made, canonical, samples_count=1, runtimes=(runtime.TFLM,)
        )
        row["alone_percent"] = checks["rounding"].figures["moved_percent"]
    return row


def difference(first: Model, second: Model) -> rows.Row:
    """Codes that differ, and numbers of all activations that do, over a few random inputs."""
    count = compare.KEPT_SAMPLES
    found = compare.compare(first, second, samples_count=count)
    tensors = {t.label: t for t in first.main.tensors}
    sizes = [count * math.prod(tensors[row.tensor].shape) for row in found.tensors]
    shares = [row.different for row in found.tensors]
    return {
        "codes": sum(row.different for row in found.weights),
        "compared": sum(sizes),
        "different": sum(round(a * b) for a, b in zip(sizes, shares, strict=True)),
    }


def costs(found: bench.Benchmark) -> rows.Row:
    """What `tflite_tools benchmark` finds, as far as the tables show it."""
    if found.generated is None or not found.generated.builds:
        raise RuntimeError(f"Not measured: {dict(found.not_measured)}")
    generated = found.generated
    return {
        "bytes": found.size,
        "latency_ms": found.latencies[0].median_ms if found.latencies else None,
        "arena": found.arena_bytes,
        "c_arena": generated.arena_bytes,
        "c_weights": generated.packed_weight_bytes,
        "c_constants": generated.constant_bytes,
        "builds": {part.name: vars(part) for part in generated.builds},
        "not_measured": dict(found.not_measured),
    }


def c_against_tflm(canonical: Model) -> rows.Row:
    """C with sanitizers against TFLM: every operator alone, and the net, on int8 noise."""
    graph, alone = canonical.main, isolate.isolate(canonical)
    several = -(-OUTPUTS // _size(alone.model, alone.model.main.outputs))
    pairs = [_c_pair(alone.model, several), _c_pair(canonical, _WHOLE)]
    return {
        "edges": _size(canonical, (*graph.inputs, *graph.outputs)),
        "compared": sum(made for made, _ in pairs),
        "different": sum(wrong for _, wrong in pairs),
    }


def _c_pair(model: Model, count: int) -> tuple[int, int]:
    """(outputs compared, outputs that differ), over both paths of the C."""
    random = np.random.default_rng(0)
    shapes = [model.main.tensors[index].shape for index in model.main.inputs]
    inputs = [random.integers(-128, 128, (count, *s[1:])).astype(np.int8) for s in shapes]
    wanted = runtime.run(model, inputs, runtime=runtime.TFLM).outputs
    sources = generate.generate(model)
    made = wrong = 0
    for path in _PATHS:
        flags = (*path, *host_run.SANITIZERS)
        outputs = host_run.run(sources.files, model, inputs, flags=flags, time_limit=1800)
        for ours, theirs in zip(outputs, wanted, strict=True):
            made, wrong = made + theirs.size, wrong + int(np.count_nonzero(ours != theirs))
    return made, wrong


def _size(model: Model, indices: Sequence[int]) -> int:
    return sum(math.prod(model.main.tensors[index].shape) for index in indices)


def _row(name: str, setting: str, work: Work, folder: str | None) -> rows.Row:
    if (name, setting) != INSPECT:
        return cell(name, setting, work, folder)
    return {"net": name, "setting": setting, **formats_times.inspected(work)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 1 if a row failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--epochs", type=int, default=2, help="epochs of each training (default 2)")
    parser.add_argument("--limit", type=int, help="maximum number of training rows (default: all)")
    parser.add_argument("--json", metavar="FILE", help="save the rows here, and continue from them")
    parser.add_argument("--output_dir", metavar="DIR", help="save the trained nets here")
    parser.add_argument("--of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.of:
        name, setting = options.of
        work = Work(
            data_dir=options.data_dir,
            bits=SETTINGS[setting],
            epochs=options.epochs,
            limit=options.limit,
        )
        print(json.dumps(_row(name, setting, work, options.output_dir)))
        return 0
    cells = [*itertools.product(options.nets, options.settings), INSPECT]
    found = rows.kept(options.json, ("net", "setting"))
    flags = ["--data_dir", options.data_dir, "--epochs", str(options.epochs)]
    flags += [] if options.limit is None else ["--limit", str(options.limit)]
    flags += [] if options.output_dir is None else ["--output_dir", options.output_dir]
    for of in cells:
        row = found.get(of) or rows.in_own_process(__file__, of, flags)
        if row is not None:
            found[of] = row
            rows.keep(options.json, list(found.values()))
    done = [found[of] for of in cells if of in found]
    print(formats_tables.markdown(done))
    return int(len(done) < len(cells))


if __name__ == "__main__":
    sys.exit(main())
