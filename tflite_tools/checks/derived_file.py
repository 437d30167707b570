"""A file in another format against the canonical file it was made from: numbers, then outputs.

Formats that keep every integer (lut, slim) have to compute the same bits. In INT4 the stored
weights are smaller by a factor, so the accumulator and the biases are coarser by the same factor.
There, the operators have to compute exactly what the same integers compute as int8. Each of them
may differ from the canonical file's operator only by what its lost bias bits and TFLM's two
roundings can explain, channel by channel.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from tflite_tools.checks import agreement, isolate, operator_checks, pairing, same_weights
from tflite_tools.checks.agreement import Limits
from tflite_tools.checks.pairing import Pairing
from tflite_tools.checks.same_weights import ratio
from tflite_tools.checks.trained_model import guarded
from tflite_tools.checks.verdict import Check, Report, Verdict, decide, unproven
from tflite_tools.pruning import smaller
from tflite_tools.pruning.smaller import Smaller
from tflite_tools.running import runtime, samples
from tflite_tools.running.runtime import LITERT, TFLM
from tflite_tools.schema import contents as models
from tflite_tools.schema import file_layout, flatbuffer
from tflite_tools.schema.contents import Graph, Model
from tflite_tools.system.progress import Advance, quietly

SAMPLES = 16  # of the comparison that each format makes before it returns
VERIFY_SAMPLES = 1000  # of `tflite_tools verify --canonical`
NO_TFLM = "TFLM is not installed (pip install tflite-micro, or 'tfbinreg[micro]')"


@dataclasses.dataclass(frozen=True, eq=False)
class _Files:
    canonical: Model
    needed: Model  # the canonical file with as many channels as `made`
    made: Model
    pairing: Pairing
    inputs: tuple[np.ndarray, ...]
    seed: int
    time_limit: float


def verify_variant(
    made: Model,
    canonical: Model,
    *,
    inputs: Sequence[np.ndarray] | None = None,
    samples_count: int = VERIFY_SAMPLES,
    seed: int = samples.DEFAULT_SEED,
    runtimes: Sequence[str] | None = None,
    limits: Limits | None = None,
    time_limit: float = runtime.TIME_LIMIT,
    advance: Advance = quietly,
) -> Report:
    """Compare a file with the canonical file it was made from.

    A file that `--slim` has made for TFLM may lack channels that the network does not need
    (`pruning.removal`). Its operators are compared with the canonical ones without these channels,
    and its outputs in TFLM only.

    Checks: operators, grids and connections are the same ("structure"), every weight is the same
    number ("codes"), every bias is, to the nearest step ("biases"), INT4 operators alone differ by
    documented rounding only ("rounding"), and the outputs are bit for bit those of the canonical
    file, or for INT4 those of its own integers as int8, in every runtime ("litert", "tflm"). If no
    runtime is available to run the file, the check "proof" fails, because nothing is proven.

    Args:
        made: the file.
        canonical: the int8 file it was made from.
        inputs: stored values, one array per input of the file. None draws `samples_count`.
        samples_count: number of samples to draw.
        seed: seed of the drawn samples.
        runtimes: which to run; None for all that can run the format.
        limits: how far whole INT4 nets may differ; None for a warning beyond the default limits,
            because rounding differences grow from layer to layer.
        time_limit: seconds for each run.
        advance: is called with what is being done.

    Raises:
        ValueError: if inputs do not fit.
    """
    if inputs is None:
        drawn = samples.seeded(canonical, samples=samples_count, seed=seed)
        inputs = samples.stored(canonical, drawn)
    runtime.check_inputs(canonical, inputs)
    try:
        needed = _needed(canonical, made)
        pairs = pairing.pair(needed.model, made)
    except ValueError as error:
        return Report((Check("structure", Verdict.FAILED, str(error)),))
    if runtimes is None:  # LiteRT may round what constant channels hold to another level
        runtimes = (TFLM,) if made.main.encoded or needed.count else (LITERT, TFLM)
    files = _Files(canonical, needed.model, made, pairs, tuple(inputs), seed, time_limit)
    coarse = any(ratio(*pair) != 1 for pair in pairs.kernels)
    advance(None, "comparing weights")
    checks = [
        _with_left_out(same_weights.check_structure(needed.model, made, pairs), needed),
        same_weights.check_codes(pairs),
        same_weights.check_biases(pairs),
    ]
    if coarse:
        advance(None, "running every operator alone")
        checks.append(guarded("rounding", lambda: _rounding(files, runtimes)))
    runs = []
    for name in runtimes:
        advance(None, f"running both files in {name}")
        runs.append(guarded(name.lower(), functools.partial(_outputs, files, name, limits)))
    return Report((*checks, *runs, *unproven(runs, "file")))


def _needed(canonical: Model, made: Model) -> Smaller:
    """The canonical file, without the channels that it does not need if they are not in `made`."""
    if canonical.manifest is None or _weights(made) >= _weights(canonical):
        return Smaller(canonical, {})
    return smaller.of_model(canonical)


def _weights(model: Model) -> int:
    graph = model.main
    kernels = [pairing.kernel(graph, op) for op in graph.ops if op.name in pairing.KERNEL_OPS]
    return sum(kernel.weights.size for kernel in kernels)


def _with_left_out(check: Check, needed: Smaller) -> Check:
    if not needed.count:
        return check
    told = f"{check.detail}; {needed.count} channels that are not needed are left out"
    return dataclasses.replace(check, detail=told)


def twin(model: Model) -> Model:
    """The same integers with INT4 weights stored as int8."""
    container = flatbuffer.read(model.data)
    for graph in container.subgraphs:
        for tensor in graph.tensors:
            if flatbuffer.type_name(tensor) == "INT4":
                values = flatbuffer.constant(container, tensor)
                assert values is not None
                flatbuffer.set_type(tensor, "INT8")
                flatbuffer.set_constant(container, tensor, values)
    flatbuffer.drop_unused_buffers(container)
    return models.written(container)


def _rounding(files: _Files, runtimes: Sequence[str]) -> Check:
    """Single INT4 operators, on random activations, against the canonical ones."""
    name = TFLM if TFLM in runtimes and runtime.available(TFLM) else LITERT
    first = isolate.isolate(files.needed)
    second = isolate.isolate(files.made)
    draw = operator_checks.random_activations(files.needed, files.seed)
    inputs = isolate.inputs_for(first, draw)
    results = [
        runtime.run(
            part.model,
            inputs,
            runtime=name,
            delegates=False,
            time_limit=files.time_limit,
        ).outputs
        for part in (first, second)
    ]
    kernels = {mine.name: (mine, other) for mine, other in files.pairing.kernels}
    tensors = files.needed.main.tensors
    problems, most, moved, seen = [], 0, 0, 0
    for place, (ours, theirs) in enumerate(zip(*results, strict=True)):
        off = np.abs(ours.astype(np.int64) - theirs).reshape(-1, ours.shape[-1]).max(axis=0)
        limit: np.ndarray = np.zeros(1)
        if first.outputs[place] in kernels:
            mine, other = kernels[first.outputs[place]]
            source, made = tensors[mine.input].quantization, tensors[mine.output].quantization
            if source is not None and made is not None and ratio(mine, other) != 1:
                limit = same_weights.most_levels(mine, other, source, made)
                moved += int(np.count_nonzero(ours != theirs))
                seen += ours.size
        most = max(most, int(off.max()))
        if np.any(off > limit):
            problems.append(
                (first.outputs[place], f"off by {off.max()} levels, {limit.max():g} at most")
            )
    share = 100 * moved / max(seen, 1)
    detail = (
        f"each INT4 operator alone in {name}: {share:.2f} % of its results move, by {most} "
        "levels at most (biases on a coarser grid, and the first of TFLM's two roundings)"
    )
    return decide("rounding", problems, detail, {"moved_percent": share, "most_levels": most})


def _outputs(files: _Files, name: str, limits: Limits | None) -> Check:
    """Whole nets in one runtime."""
    check = name.lower()
    if not runtime.available(name):
        return Check(check, Verdict.SKIPPED, NO_TFLM)
    delegates = not _declined(files.made)

    def run(model: Model) -> tuple[np.ndarray, ...]:
        return runtime.run(
            model,
            files.inputs,
            runtime=name,
            delegates=delegates,
            time_limit=files.time_limit,
        ).outputs

    made, expected = run(files.made), run(files.canonical)
    count = len(files.inputs[0])
    names = [files.canonical.main.tensors[index].name for index in files.canonical.main.outputs]
    if all(ratio(*pair) == 1 for pair in files.pairing.kernels):
        problems = unequal(names, made, expected)
        detail = f"outputs are bit for bit the canonical file's on {count} inputs"
        return decide(check, problems, detail, {"samples": count})
    problems = unequal(names, made, run(twin(files.made)))
    apart = worst(files.canonical.main, made, expected)
    detail = (
        f"outputs are bit for bit those of the same integers as int8 on {count} inputs; against "
        f"the canonical file, whose biases and roundings are finer: {apart.text()}"
    )
    if limits is not None and not apart.within(limits):
        problems.append(("outputs", apart.text()))
    found = decide(check, problems, detail, apart.figures() | {"samples": count})
    beyond = found.verdict is Verdict.PASSED and not apart.within(limits or Limits())
    return dataclasses.replace(found, verdict=Verdict.WARNING) if beyond else found


def _declined(model: Model) -> bool:
    """Whether XNNPACK, which rounds differently, leaves operators to LiteRT's own kernels.

    It does so for INT4 weights and for biases without a scale.
    """
    graph = model.main
    biases = [index for op in graph.ops if (index := file_layout.bias_index(op)) is not None]
    packed = any(tensor.dtype == "INT4" for tensor in graph.tensors)
    return packed or any(graph.tensors[index].quantization is None for index in biases)


def worst(
    graph: Graph, made: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> agreement.Difference:
    """The outputs that differ most, in steps of their grids."""
    differences = []
    for index, ours, theirs in zip(graph.outputs, made, expected, strict=True):
        grid = graph.tensors[index].quantization
        floating = ours.dtype.kind == "f" and grid is not None
        scale = float(grid.scale[0]) if floating and grid is not None else 1.0
        differences.append(agreement.compare(ours.astype(np.float64), theirs, scale))
    return max(differences, key=lambda difference: difference.mean_lsb)


def unequal(
    names: Sequence[str], made: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> list[tuple[str, str]]:
    """(name, how many values differ) of the outputs that are not the same bits."""
    return [
        (name, f"{np.count_nonzero(ours != theirs)} of {theirs.size} outputs differ")
        for name, ours, theirs in zip(names, made, expected, strict=True)
        if not np.array_equal(ours, theirs)
    ]
