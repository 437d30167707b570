"""Two files of any of the formats side by side: weights, activations, outputs, sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_tools.checks import agreement, pairing
from tflite_tools.checks.agreement import Difference
from tflite_tools.checks.pairing import Pairing
from tflite_tools.running import runtime, samples
from tflite_tools.running.runtime import LITERT, TFLM
from tflite_tools.schema.card import differences
from tflite_tools.schema.contents import Graph, Model, Tensor

SAMPLES = 32
KEPT_SAMPLES = 8  # of these, every activation is read


@dataclasses.dataclass(frozen=True)
class WeightRow:
    """One layer: how it is stored in both files, and how many weights differ."""

    layer: str
    first: str
    second: str
    weights: int
    different: int


@dataclasses.dataclass(frozen=True)
class TensorRow:
    """One activation: how far and how often the files differ, in steps of the first file's grid."""

    tensor: str
    mean_lsb: float
    max_lsb: float
    different: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The differences. `outputs` are by name; `runtime` is the one that ran both files; `card` has
    the differences between their quantization cards, if both have one (`card.differences`).
    """

    sizes: tuple[int, int]
    runtime: str
    samples: int
    by_name: bool
    weights: tuple[WeightRow, ...]
    tensors: tuple[TensorRow, ...]
    outputs: dict[str, Difference]
    card: dict[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)

    def within(self, *, max_lsb: float, min_top1: float) -> bool:
        """Whether weights are the same numbers and outputs differ by no more than the limits."""
        same = all(row.different == 0 for row in self.weights)
        return same and all(
            difference.max_lsb <= max_lsb
            and (difference.top1 is None or difference.top1 >= min_top1)
            for difference in self.outputs.values()
        )


def compare(
    first: Model,
    second: Model,
    *,
    inputs: Sequence[np.ndarray] | None = None,
    samples_count: int = SAMPLES,
    seed: int = samples.DEFAULT_SEED,
    time_limit: float = runtime.TIME_LIMIT,
) -> Comparison:
    """Compare two files.

    Both run in TFLM, or in LiteRT without XNNPACK where TFLM is missing and neither needs it.
    Layers and activations are matched operator by operator, which works without names; files whose
    operators differ are compared by the names they share.

    Args:
        first: a file; its grids are the unit of the differences.
        second: another file with the same inputs and outputs.
        inputs: stored values, one array per input. None draws `samples_count`.
        samples_count: number of samples to draw.
        seed: seed of the drawn inputs.
        time_limit: seconds for each run.

    Raises:
        ValueError: if their inputs or outputs differ.
        RuntimeFailedError: if a file does not run.
    """
    pairs = _pair(first, second)
    if inputs is None:
        drawn = samples.seeded(first, samples=samples_count, seed=seed)
        inputs = samples.stored(first, drawn)
    runtime.check_inputs(first, inputs)
    try:
        runtime.check_inputs(second, inputs)
    except ValueError as error:
        raise ValueError(f"The files take other inputs. Of the second: {error}") from error
    tensors = _by_name(first.main, second.main) if pairs is None else pairs.tensors
    name = TFLM if runtime.available(TFLM) else LITERT

    def run(model: Model, count: int, kept: Sequence[int]) -> runtime.Run:
        return runtime.run(
            model,
            [array[:count] for array in inputs],
            runtime=name,
            kept=kept,
            delegates=False,
            time_limit=time_limit,
        )

    made = [run(model, len(inputs[0]), ()) for model in (first, second)]
    readable = {a: b for a, b in tensors.items() if first.main.tensors[a].dtype == "INT8"}
    seen = [
        run(first, KEPT_SAMPLES, list(readable)).kept,
        run(second, KEPT_SAMPLES, list(readable.values())).kept,
    ]
    return Comparison(
        sizes=(len(first.data), len(second.data)),
        runtime=name,
        samples=len(inputs[0]),
        by_name=pairs is None,
        weights=_weights_by_name(first.main, second.main) if pairs is None else _weights(pairs),
        tensors=tuple(
            _tensor(first.main.tensors[a], second.main.tensors[b], seen[0][a], seen[1][b])
            for a, b in readable.items()
        ),
        outputs=_outputs(first, second, made),
        card=differences(first.card, second.card) if first.card and second.card else {},
    )


def _pair(ours: Model, theirs: Model) -> Pairing | None:
    """Matching pairs, whichever file is the plainer one; None if the operators differ."""
    try:
        return pairing.pair(ours, theirs)
    except ValueError:
        pass
    try:
        turned = pairing.pair(theirs, ours)
    except ValueError:
        return None
    kernels = tuple((mine, other) for other, mine in turned.kernels)
    return Pairing(kernels, {b: a for a, b in turned.tensors.items()}, turned.split)


def _by_name(ours: Graph, theirs: Graph) -> dict[int, int]:
    """Activations that have the same name and shape in both files."""
    places = {(t.name, t.shape): t.index for t in _computed(theirs) if t.name}
    return {
        t.index: places[t.name, t.shape] for t in _computed(ours) if (t.name, t.shape) in places
    }


def _computed(graph: Graph) -> list[Tensor]:
    return [t for op in graph.ops for t in graph.made(op) if t.data is None]


def _weights(pairs: Pairing) -> tuple[WeightRow, ...]:
    rows = []
    for mine, other in pairs.kernels:
        same = mine.weights.shape == other.weights.shape
        count = int(np.count_nonzero(mine.real != other.real)) if same else mine.weights.size
        rows.append(WeightRow(mine.name, mine.storage, other.storage, mine.weights.size, count))
    return tuple(rows)


def _weights_by_name(ours: Graph, theirs: Graph) -> tuple[WeightRow, ...]:
    found = {kernel.name: kernel for kernel in _kernels(theirs)}
    mine = [kernel for kernel in _kernels(ours) if kernel.name in found]
    pairs = tuple((kernel, found[kernel.name]) for kernel in mine)
    return _weights(Pairing(pairs, {}, ()))


def _kernels(graph: Graph) -> list[pairing.Kernel]:
    return [pairing.kernel(graph, op) for op in graph.ops if op.name in pairing.KERNEL_OPS]


def _tensor(first: Tensor, second: Tensor, ours: np.ndarray, theirs: np.ndarray) -> TensorRow:
    difference = _apart(first, second, ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1))
    share = float(np.mean(ours.reshape(-1) != theirs.reshape(-1)))
    name = first.name or second.name or first.label
    return TensorRow(name, difference.mean_lsb, difference.max_lsb, share)


def _apart(first: Tensor, second: Tensor, ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """In levels if both have one grid, else in steps of the first one's."""
    a, b = first.quantization, second.quantization
    if a is None or b is None or pairing.same_grid(a, b):
        return agreement.compare(ours, theirs, 1.0)
    numbers = runtime.dequantize(ours, a), runtime.dequantize(theirs, b)
    return agreement.compare(*numbers, float(a.scale[0]))


def _outputs(ours: Model, theirs: Model, runs: Sequence[runtime.Run]) -> dict[str, Difference]:
    if len(ours.main.outputs) != len(theirs.main.outputs):
        raise ValueError("The files have other numbers of outputs.")
    found: dict[str, Difference] = {}
    quadruples = zip(
        ours.main.outputs, theirs.main.outputs, runs[0].outputs, runs[1].outputs, strict=True
    )
    for a, b, mine, other in quadruples:
        first, second = ours.main.tensors[a], theirs.main.tensors[b]
        if mine.shape != other.shape or first.dtype != second.dtype:
            raise ValueError(f"The output {first.name!r} is of another shape or type.")
        name = first.name or second.name or f"output {len(found)}"
        grid = samples.output_grid(ours, first)
        floating = first.dtype == "FLOAT32" and grid is not None
        scale = float(grid.scale[0]) if floating and grid is not None else 1.0
        found[name] = (
            agreement.compare(mine, other, scale)
            if floating
            else _apart(first, second, mine, other)
        )
    return found
