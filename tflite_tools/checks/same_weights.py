"""The checks of a file against its canonical file that run nothing: grids, weights, biases."""

from __future__ import annotations

import numpy as np

from tflite_tools.checks import pairing
from tflite_tools.checks.pairing import Kernel, Pairing
from tflite_tools.checks.verdict import Check, decide
from tflite_tools.schema.contents import Model, Quantization

_MOST = 128


def ratio(mine: Kernel, other: Kernel) -> int:
    """The factor by which the canonical file's stored weights are larger.

    Read from the scales; 0 if they have no whole ratio that weights of 8 bits can be divided by.
    """
    found = np.unique(other.scale.astype(np.float64) / mine.scale)
    whole = found.size == 1 and 1 <= found[0] <= _MOST and found[0] == np.rint(found[0])
    return int(found[0]) if whole else 0


def check_structure(ours: Model, theirs: Model, pairs: Pairing) -> Check:
    """Activations have the same shape and grid."""
    problems = []
    for index, twin in pairs.tensors.items():
        first, second = ours.main.tensors[index], theirs.main.tensors[twin]
        name = first.label
        if (first.shape, first.dtype) != (second.shape, second.dtype):
            problems.append((name, f"is {second.dtype} {second.shape}, not {first.dtype}"))
        elif not pairing.same_grid(first.quantization, second.quantization):
            problems.append((name, "has another scale or zero point"))
    problems += _other_constants(ours, theirs, pairs)
    split = f"; split: {', '.join(pairs.split)}" if pairs.split else ""
    detail = f"{len(pairs.tensors)} activations keep their grids and connections{split}"
    return decide("structure", problems, detail)


def _other_constants(ours: Model, theirs: Model, pairs: Pairing) -> list[tuple[str, str]]:
    """Constants of operators without weights: axes, paddings, slopes of a PRELU."""
    made = {twin: index for index, twin in pairs.tensors.items()}
    mine = {op.outputs[0]: op for op in ours.main.ops if op.name not in pairing.KERNEL_OPS}
    problems = []
    for op in theirs.main.ops:
        origin = mine.get(made.get(op.outputs[0], -1))
        if origin is None:
            continue
        pair = zip(ours.main.taken(origin), theirs.main.taken(op), strict=False)
        if any(not _same_constant(a.data, b.data) for a, b in pair):
            problems.append((pairing.label(ours.main, origin), f"{op.name} has other constants"))
    return problems


def _same_constant(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.array_equal(first, second)


def check_codes(pairs: Pairing) -> Check:
    """Every weight is exactly the same number: stored value times scale."""
    problems, count = [], 0
    for mine, other in pairs.kernels:
        count += mine.weights.size
        if mine.weights.shape != other.weights.shape:
            problems.append((mine.name, f"weights of shape {other.weights.shape}"))
            continue
        wrong = int(np.count_nonzero(mine.real != other.real))
        if wrong:
            problems.append((mine.name, f"{wrong} of {mine.weights.size} weights differ"))
        elif ratio(mine, other) == 0:
            problems.append((mine.name, "has other scales"))
    kinds = sorted({other.storage for _, other in pairs.kernels})
    detail = f"{count} weights of {len(pairs.kernels)} layers, stored as {', '.join(kinds)}"
    return decide("codes", problems, detail, {"weights": count})


def check_biases(pairs: Pairing) -> Check:
    """Biases are the same, or rounded to the nearest step of a coarser grid."""
    problems, worst = [], 0.0
    for mine, other in pairs.kernels:
        if (mine.bias is None) != (other.bias is None):
            problems.append((mine.name, "the bias is missing or new"))
        elif mine.bias is not None and other.bias is not None:
            factor = ratio(mine, other)
            lost = np.abs(lost_bias(mine, other))
            if lost.size and lost.max() > factor / 2:
                problems.append((mine.name, f"biases are off by up to {lost.max():g} steps"))
            worst = max(worst, float(lost.max(initial=0.0)) / max(factor, 1))
    exact = "are the same integers" if worst == 0 else f"are off by {worst:g} coarser steps at most"
    return decide("biases", problems, f"biases {exact}", {"worst": worst})


def lost_bias(mine: Kernel, other: Kernel) -> np.ndarray:
    """What rounding to the coarser grid changed, in steps of the canonical bias."""
    if mine.bias is None or other.bias is None:
        return np.zeros(mine.channels)
    if mine.bias.shape != other.bias.shape:
        return np.full(mine.channels, np.inf)
    lost: np.ndarray = mine.bias.astype(np.float64) - ratio(mine, other) * other.bias
    return lost


def most_levels(
    mine: Kernel, other: Kernel, source: Quantization, made: Quantization
) -> np.ndarray:
    """The most levels by which an operator may differ from the canonical one, channel by channel.

    With the multiplier m = input scale * weight scale / output scale, the exact results differ by
    the lost bias times m. TFLM rounds twice; the first rounding is to a fraction of a level that
    is below m, for either file with its own m. Two numbers that differ by d round to levels that
    differ by floor(d) + 1 at most.
    """
    gain = float(source.scale[0]) / float(made.scale[0])
    fine, coarse = mine.scale.astype(np.float64) * gain, other.scale.astype(np.float64) * gain
    apart = np.abs(lost_bias(mine, other)) * fine + fine + coarse
    return np.floor(apart) + 1
