"""The quantization card of a frozen graph (`tflite_tools.schema.card`)."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfbinreg.core.grid import Grid, bits_text
from tfbinreg.deploy.frozen import FrozenGraph, FrozenKernel, FrozenOp
from tflite_tools.schema.card import NOT_RECORDED, NOTES


def quantization_card(graph: FrozenGraph) -> dict[str, Any]:
    """The choices made in quantizing a model, as JSON values."""
    recipe = graph.recipe
    solver = {"solver": recipe["solver"]} if recipe.get("solver") else {}
    return {
        "method": recipe.get("method", NOT_RECORDED),
        "penalties": list(recipe.get("penalties", ())),
        "updates": list(recipe.get("updates", ())),
        **solver,
        "options": dict(recipe.get("options", {})),
        "weights": _weights(graph),
        "activations": _activations(graph),
        "biases": {"bits": recipe.get("bias_bits") or 32, "accumulator_bits": 32},
        "normalization": (
            "folded while training" if recipe.get("fold_batch_norm") else "folded when frozen"
        ),
        "layers": dict(collections.Counter(op.kind for op in graph.ops if op.inputs)),
        "target": graph.target,
        "finalized": graph.finalized,
        "versions": dict(graph.versions),
        "notes": {name: graph.notes.get(name, NOT_RECORDED) for name in NOTES},
    }


def _weights(graph: FrozenGraph) -> dict[str, Any]:
    kernels = graph.trained_kernels()
    counts: collections.Counter[int] = collections.Counter()
    for kernel in kernels.values():
        for bits, size in _by_bits(kernel):
            counts[bits] += size
    per_channel = sum(kernel.scale.ndim > 0 for kernel in kernels.values())
    first, last = _ends(graph)
    inner = {n: k for n, k in kernels.items() if n not in (*first, *last)}
    return {
        "bits": {str(bits): counts[bits] for bits in sorted(counts)},
        "average_bits": _average_bits(kernels.values()),
        "average_bits_of_inner": _average_bits(inner.values()),
        "first_bits": [_told_bits(kernels[name]) for name in first],
        "last_bits": [_told_bits(kernels[name]) for name in last],
        "kernels_per_tensor": len(kernels) - per_channel,
        "kernels_per_channel": per_channel,
        "codes": _code_ranges(kernels.values()),
        "scales": "powers of two" if all(map(_is_power_of_two, kernels.values())) else "float32",
        "zeros": sum(int(np.count_nonzero(kernel.codes == 0)) for kernel in kernels.values()),
    }


def _activations(graph: FrozenGraph) -> dict[str, Any]:
    grids = [op.grid for op in graph.ops if op.grid is not None]
    counts = collections.Counter(grid.bits for grid in grids)
    sizes = [_size(op) for op in graph.ops]
    packed = [_size(op) * (op.grid.bits if op.grid else 8) / 8 for op in graph.ops]
    numbers = sum(sizes)
    average = sum(packed) * 8 / numbers if numbers else 0.0
    return {
        "quantized": "inputs and outputs of every operator, sums and merges included",
        "bits": {str(bits): counts[bits] for bits in sorted(counts)},
        "average_bits": round(average, 3),
        "signed": sum(grid.signed and not _has_offset(grid) for grid in grids),
        "unsigned": sum(not grid.signed for grid in grids),
        "with_offset": sum(_has_offset(grid) for grid in grids),
        "peak_bytes": int(_peak(graph, sizes)),
        "peak_bytes_packed": int(np.ceil(_peak(graph, packed))),
    }


def _average_bits(kernels: Iterable[FrozenKernel]) -> float | None:
    """Over the weights; None without any."""
    pairs = [pair for kernel in kernels for pair in _by_bits(kernel)]
    total = sum(size for _, size in pairs)
    return round(sum(size * bits for bits, size in pairs) / total, 3) if total else None


def _by_bits(kernel: FrozenKernel) -> list[tuple[int, int]]:
    """(bits, number of weights) of each part of a kernel that has bits of its own."""
    parts = kernel.channel_bits or (kernel.bits,)
    if kernel.channel_levels is not None:
        parts = tuple((len(levels) - 1).bit_length() for levels in kernel.channel_levels)
    return [(bits, kernel.codes.size // len(parts)) for bits in parts]


def _told_bits(kernel: FrozenKernel) -> int | str:
    """The bits, as text where channels differ: "0-4, 12 pruned"."""
    return kernel.bits if kernel.channel_bits is None else bits_text(kernel.channel_bits)


def _code_ranges(kernels: Iterable[FrozenKernel]) -> dict[str, list[int]]:
    """The smallest and largest code in use, by the bits."""
    ranges: dict[str, list[int]] = {}
    for kernel in kernels:
        own = [int(kernel.codes.min()), int(kernel.codes.max())]
        known = ranges.setdefault(str(kernel.bits), own)
        ranges[str(kernel.bits)] = [min(known[0], own[0]), max(known[1], own[1])]
    return dict(sorted(ranges.items()))


def _is_power_of_two(kernel: FrozenKernel) -> bool:
    return bool(np.all(np.frexp(kernel.scale)[0] == 0.5))


def _has_offset(grid: Grid) -> bool:
    """Whether a signed grid does not lie around zero."""
    return grid.signed and grid.qmin + grid.qmax not in (-1, 0)


def _size(op: FrozenOp) -> int:
    """Numbers of a tensor; open sizes count once."""
    return int(np.prod([size or 1 for size in op.shape]))


def _peak(graph: FrozenGraph, sizes: Sequence[float]) -> float:
    """The most that an operation's inputs and output take together."""
    return max(
        sizes[index] + sum(sizes[i] for i in set(op.inputs)) for index, op in enumerate(graph.ops)
    )


def _ends(graph: FrozenGraph) -> tuple[list[str], list[str]]:
    """Names of the kernels with no other before them, and of those with none after."""
    has_kernel = [op.kernel is not None and op.kernel.trained for op in graph.ops]
    behind = [False] * len(graph.ops)  # whether a kernel is among what it is made from
    for index, op in enumerate(graph.ops):
        behind[index] = any(has_kernel[i] or behind[i] for i in op.inputs)
    before = [False] * len(graph.ops)  # whether a kernel is among what is made from it
    for index in reversed(range(len(graph.ops))):
        for source in graph.ops[index].inputs:
            before[source] |= has_kernel[index] or before[index]
    kernels = [(i, op.name) for i, op in enumerate(graph.ops) if has_kernel[i]]
    first = [name for index, name in kernels if not behind[index]]
    return first, [name for index, name in kernels if not before[index]]
