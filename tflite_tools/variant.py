"""A file in another format against the canonical file it was made from: numbers, then outputs.

Formats that keep every integer (lut, slim) have to compute the same bits. In INT4 the stored weights
are smaller by a factor, so the accumulator and the biases are coarser by as much: there, the operators
have to compute exactly what the same integers do as int8, and each of them may differ from the
canonical file's by what its bias lost and TFLM's two roundings can explain, channel by channel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from tflite_tools import agreement, flatbuffer, isolate, layers, pairing, runtime, samples
from tflite_tools import model as models
from tflite_tools.model import Graph, Model, Quantization
from tflite_tools.pairing import Kernel, Pairing
from tflite_tools.runtime import LITERT, TFLM, MissingOpError, RuntimeFailedError
from tflite_tools.verdict import Check, Report, Verdict, decide

SAMPLES = 16  # of the comparison that each format makes before it returns
VERIFY_SAMPLES = 1000  # of `tflite_tools verify --canonical`
_NO_TFLM = "TFLM is not installed (pip install 'tfbinreg[micro]')"


@dataclasses.dataclass(frozen=True, eq=False)
class _Files:
    canonical: bytes
    data: bytes
    ours: Model
    theirs: Model
    pairing: Pairing
    inputs: tuple[np.ndarray, ...]
    seed: int
    time_limit: float


def verify_variant(
    data: bytes,
    canonical: bytes,
    *,
    inputs: Sequence[np.ndarray] | None = None,
    samples_count: int = VERIFY_SAMPLES,
    seed: int = samples.DEFAULT_SEED,
    runtimes: Sequence[str] = (LITERT, TFLM),
    time_limit: float = runtime.TIME_LIMIT,
) -> Report:
    """Compare a file with the canonical file it was made from.

    Checks: operators, grids and connections are the same ("structure"), every weight is the same
    number ("codes"), every bias is, to the nearest step ("biases"), INT4 operators alone differ by
    documented rounding only ("rounding"), and the outputs are bit for bit those of the canonical
    file, or for INT4 those of its own integers as int8, in every runtime ("litert", "tflm").

    Args:
        data: the file.
        canonical: the int8 file it was made from.
        inputs: stored values, one array per input of the file. None draws `samples_count`.
        samples_count: how many samples to draw.
        seed: of the drawn samples.
        runtimes: which to run; one that cannot run the format by design is to be left out.
        time_limit: seconds for each run.

    Raises:
        ValueError: if a file is damaged, or inputs do not fit.
    """
    ours, theirs = models.load(canonical), models.load(data)
    if inputs is None:
        drawn = samples.seeded(ours, samples=samples_count, seed=seed)
        inputs = samples.stored(ours, drawn)
    runtime.check_inputs(ours, inputs)
    try:
        pairs = pairing.pair(ours, theirs)
    except ValueError as error:
        return Report((Check("structure", Verdict.FAILED, str(error)),))
    files = _Files(canonical, data, ours, theirs, pairs, tuple(inputs), seed, time_limit)
    coarse = any(ratio(*pair) != 1 for pair in pairs.kernels)
    checks = [check_structure(ours, theirs, pairs), check_codes(pairs), check_biases(pairs)]
    if coarse:
        checks.append(_guarded("rounding", lambda: _rounding(files, runtimes)))
    checks += [_guarded(name.lower(), lambda n=name: _outputs(files, n)) for name in runtimes]  # type: ignore[misc]
    return Report(tuple(checks))


def ratio(mine: Kernel, other: Kernel) -> int:
    """By how much the canonical file's stored weights are larger.

    Read from the scales; 0 if they have no whole ratio.
    """
    found = np.unique(other.scale.astype(np.float64) / mine.scale)
    whole = found.size == 1 and found[0] >= 1 and found[0] == np.rint(found[0])
    return int(found[0]) if whole else 0


def check_structure(ours: Model, theirs: Model, pairs: Pairing) -> Check:
    """Activations have the same shape and grid."""
    problems = []
    for index, twin in pairs.tensors.items():
        first, second = ours.main.tensors[index], theirs.main.tensors[twin]
        name = first.name or f"tensor {index}"
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


def twin(data: bytes) -> bytes:
    """The same integers with INT4 weights stored as int8."""
    container = flatbuffer.read(data)
    for graph in container.subgraphs:
        for tensor in graph.tensors:
            if flatbuffer.type_name(tensor) == "INT4":
                values = flatbuffer.constant(container, tensor)
                assert values is not None
                flatbuffer.set_type(tensor, "INT8")
                flatbuffer.set_constant(container, tensor, values)
    flatbuffer.drop_unused_buffers(container)
    return flatbuffer.write(container)


def most_levels(mine: Kernel, other: Kernel, source: Quantization, made: Quantization) -> np.ndarray:
    """By how many levels at most an operator may differ from the canonical one, channel by channel.

    With the multiplier m = input scale * weight scale / output scale, the exact results differ by the
    lost bias times m. TFLM rounds twice; the first rounding is to a fraction of a level that is below
    m, for either file with its own m. Two numbers that differ by d round to levels that differ by
    floor(d) + 1 at most.
    """
    gain = float(source.scale[0]) / float(made.scale[0])
    fine, coarse = mine.scale.astype(np.float64) * gain, other.scale.astype(np.float64) * gain
    apart = np.abs(lost_bias(mine, other)) * fine + fine + coarse
    return np.floor(apart) + 1


def _rounding(files: _Files, runtimes: Sequence[str]) -> Check:
    """INT4 operators alone, on random activations, against the canonical ones."""
    name = TFLM if TFLM in runtimes and runtime.available(TFLM) else LITERT
    first = isolate.isolate(files.canonical, files.ours)
    second = isolate.isolate(files.data, files.theirs)
    draw = layers.random_activations(files.ours, files.seed)
    inputs = isolate.inputs_for(first, draw)
    results = [
        runtime.run(
            part.data,
            part.model,
            inputs,
            runtime=name,
            delegates=False,
            time_limit=files.time_limit,
        ).outputs
        for part in (first, second)
    ]
    kernels = {mine.name: (mine, other) for mine, other in files.pairing.kernels}
    tensors = files.ours.main.tensors
    problems, most, moved, seen = [], 0, 0, 0
    for place, (ours, theirs) in enumerate(zip(*results, strict=True)):
        off = np.abs(ours.astype(np.int64) - theirs).reshape(-1, ours.shape[-1]).max(axis=0)
        limit: np.ndarray = np.zeros(1)
        if first.outputs[place] in kernels:
            mine, other = kernels[first.outputs[place]]
            source, made = tensors[mine.input].quantization, tensors[mine.output].quantization
            if source is not None and made is not None and ratio(mine, other) != 1:
                limit = most_levels(mine, other, source, made)
                moved += int(np.count_nonzero(ours != theirs))
                seen += ours.size
        most = max(most, int(off.max()))
        if np.any(off > limit):
            problems.append((first.outputs[place], f"off by {off.max()} levels, {limit.max():g} at most"))
    share = 100 * moved / max(seen, 1)
    detail = (
        f"each INT4 operator alone in {name}: {share:.2f} % of its results move, by {most} levels at "
        "most (biases on a coarser grid, and the first of TFLM's two roundings)"
    )
    return decide("rounding", problems, detail, {"moved_percent": share, "most_levels": most})


def _outputs(files: _Files, name: str) -> Check:
    """Whole nets in one runtime."""
    check = name.lower()
    if not runtime.available(name):
        return Check(check, Verdict.SKIPPED, _NO_TFLM)
    packed = any(tensor.dtype == "INT4" for tensor in files.theirs.main.tensors)

    def run(data: bytes, model: Model) -> tuple[np.ndarray, ...]:
        # XNNPACK computes int8 convolutions and not INT4 ones, and rounds in another way.
        return runtime.run(
            data,
            model,
            files.inputs,
            runtime=name,
            delegates=not packed,
            time_limit=files.time_limit,
        ).outputs

    made, expected = run(files.data, files.theirs), run(files.canonical, files.ours)
    count = len(files.inputs[0])
    if all(ratio(*pair) == 1 for pair in files.pairing.kernels):
        problems = _unequal(files.ours.main, made, expected)
        detail = f"outputs are bit for bit the canonical file's on {count} inputs"
        return decide(check, problems, detail, {"samples": count})
    integers = twin(files.data)
    problems = _unequal(files.ours.main, made, run(integers, models.load(integers)))
    grids = [files.ours.main.tensors[index].quantization for index in files.ours.main.outputs]
    differences = [
        agreement.compare(ours, theirs, 1.0 if ours.dtype.kind == "i" or grid is None else grid.scale[0])
        for ours, theirs, grid in zip(made, expected, grids, strict=True)
    ]
    worst = max(differences, key=lambda difference: difference.mean_lsb)
    detail = (
        f"outputs are bit for bit those of the same integers as int8 on {count} inputs; against the "
        f"canonical file, whose biases and roundings are finer: {worst.text()}"
    )
    return decide(check, problems, detail, worst.figures() | {"samples": count})


def _unequal(
    graph: Graph, made: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> list[tuple[str, str]]:
    return [
        (
            graph.tensors[index].name,
            f"{np.count_nonzero(ours != theirs)} of {theirs.size} outputs differ",
        )
        for index, ours, theirs in zip(graph.outputs, made, expected, strict=True)
        if not np.array_equal(ours, theirs)
    ]


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """A runtime that cannot run the file fails the check; one that cannot run the network skips it."""
    try:
        return check()
    except MissingOpError as error:
        return Check(name, Verdict.SKIPPED, str(error))
    except RuntimeFailedError as error:
        return Check(name, Verdict.FAILED, str(error))
