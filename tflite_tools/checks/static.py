"""The checks that read a file without running it: integer codes, integer operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from tflite_tools.checks import pairing
from tflite_tools.checks.verdict import Check, decide
from tflite_tools.running import samples
from tflite_tools.schema import codes as file_codes
from tflite_tools.schema import manifest
from tflite_tools.schema.contents import Model, Op

INTEGER_TYPES = frozenset({"INT8", "INT4", "INT32"})
_WEIGHTS_INPUT = 1


def check_codes(model: Model, reference: Mapping[str, np.ndarray] | None) -> Check:
    """The weights in the file are the trained codes, and levels of the grids in the manifest.

    Kernels that were not trained are compared with the manifest.

    Args:
        model: the file.
        reference: layer name -> codes of the trained model. None compares the SHA-256 that the
            exporter wrote into the manifest.
    """
    header = model.require_manifest()
    problems = _unaccounted(model)
    stored: dict[str, np.ndarray] = {}
    for entry in header.kernels:
        try:
            stored[entry.name] = file_codes.layer_codes(model, entry)
        except ValueError as error:
            problems.append((entry.name, str(error).removeprefix(f"{entry.name}: ")))
        else:
            problems += _off_grid(entry, stored[entry.name])
    for entry in header.kernels if reference is None else header.fixed:
        codes = stored.get(entry.name)
        if codes is not None and manifest.codes_digest(codes) != entry.sha256:
            problems.append((entry.name, "the codes do not match the manifest's SHA-256"))
    trained = {e.name: stored[e.name] for e in header.layers if e.name in stored}
    if reference is not None:
        problems += _compare(header.layers, trained, reference)
    count = sum(codes.size for codes in trained.values())
    against = "the SHA-256 in the manifest" if reference is None else "the reference model"
    detail = f"{count} codes of {len(trained)} layers are those of {against}"
    return decide("codes", problems, detail, {"codes": count, "layers": len(trained)})


def _off_grid(entry: manifest.LayerEntry, codes: np.ndarray) -> list[tuple[str, str]]:
    """Codes that are not levels of the layer's codebook, or do not fit its bits."""
    count = file_codes.off_grid(entry, codes)
    if not count:
        return []
    wanted = "bits of their channels" if entry.channel_bits else f"{entry.bits} bits of the layer"
    if entry.channel_levels:
        wanted = "codebooks of their channels"
    if entry.levels:
        wanted = f"codebook {', '.join(map(str, entry.levels))}"
    return [(entry.name, f"{count} of {codes.size} codes do not fit the {wanted}")]


def _unaccounted(model: Model) -> list[tuple[str, str]]:
    """Kernels that the manifest leaves out, layers that no operator uses, names used twice."""
    entries = {entry.tensor: entry for entry in model.require_manifest().kernels}
    used = [
        graph.tensors[op.inputs[_WEIGHTS_INPUT]].name
        for graph in model.graphs
        for op in graph.ops
        if op.name in pairing.KERNEL_OPS and len(op.inputs) > _WEIGHTS_INPUT
    ]
    names = Counter(tensor.name for graph in model.graphs for tensor in graph.tensors)
    missing = [(name, "is not in the manifest") for name in used if name not in entries]
    unused = [
        (entry.name, "no operator uses its weights")
        for name, entry in entries.items()
        if name not in used
    ]
    twice = [
        (entry.name, f"{names[name]} tensors are called {name!r}")
        for name, entry in entries.items()
        if names[name] > 1
    ]
    return missing + unused + twice


def _compare(
    layers: tuple[manifest.LayerEntry, ...],
    stored: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
) -> list[tuple[str, str]]:
    known = {entry.name for entry in layers}
    problems = [(name, "missing from the file") for name in reference if name not in known]
    for name, codes in stored.items():
        expected = reference.get(name)
        if expected is None:
            problems.append((name, "not in the reference model"))
        elif expected.shape != codes.shape:
            problems.append((name, f"shape {codes.shape}, in the reference {expected.shape}"))
        elif np.any(codes != expected):
            first = tuple(int(axis[0]) for axis in np.nonzero(codes != expected))
            problems.append(
                (
                    name,
                    f"{np.count_nonzero(codes != expected)} of {codes.size} codes differ, the "
                    f"first at {first}: {codes[first]}, in the reference {expected[first]}",
                )
            )
    return problems


def check_integer(model: Model) -> Check:
    """Every operator reads and writes integers; at the edges of the graph, floats may be
    quantized on the way in and dequantized on the way out."""
    problems: list[tuple[str, str]] = []
    edges: list[Op] = []
    count = 0
    for graph in model.graphs:
        for op in graph.ops:
            count += 1
            if graph is model.main and samples.is_edge(model, op):
                edges.append(op)
                continue
            tensors = graph.taken(op) + graph.made(op)
            wrong = [t for t in tensors if t.dtype not in INTEGER_TYPES]
            if wrong:
                made = graph.made(op)
                kinds = ", ".join(f"{t.dtype} {t.name!r}" for t in wrong)
                problems.append((made[0].name if made else op.name, f"{op.name} uses {kinds}"))
    names = ", ".join(sorted({op.name for op in edges}))
    outside = f"; float inputs or outputs through {names}" if edges else ""
    detail = f"all {count - len(edges)} operators work on int8 and int32{outside}"
    return decide("integer", problems, detail, {"operators": count, "edge_operators": len(edges)})
