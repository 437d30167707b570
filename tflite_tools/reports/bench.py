"""What running a file costs: time in LiteRT, memory in TFLM, bytes and instructions as C.

Every figure is measured or named among those that are not, with the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from tflite_tools.c import boards, generate, host_size
from tflite_tools.c.boards import Sizes
from tflite_tools.c.generate import Sources
from tflite_tools.c.host_run import CompilerError
from tflite_tools.formats import build
from tflite_tools.running import runtime
from tflite_tools.running.runtime import TFLM, RuntimeFailedError
from tflite_tools.schema.contents import Model
from tflite_tools.system.progress import Advance, quietly

THREADS, WARM_UP, RUNS = (1,), 10, 100
DEVICE, LEVELS = "cortex-m4", ("-Os", "-O2")
_OTHER_STAGES = 2  # arena and C
LATENCY, ARENA, C = "LiteRT latency", "TFLM arena", "C"
_Figure = TypeVar("_Figure")


class NotMeasuredError(RuntimeError):
    """A figure that this file or this computer does not allow; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Latency:
    """Milliseconds of LiteRT's `invoke` on this computer, over `runs` runs."""

    threads: int
    runs: int
    median_ms: float
    lower_quartile_ms: float
    upper_quartile_ms: float
    least_ms: float


@dataclasses.dataclass(frozen=True)
class Build:
    """Generated C compiled for one processor.

    Attributes:
        target: the processor.
        level: of optimization, "-Os" or "-O2".
        text: bytes of the kernels' code.
        rodata: bytes of weights and other constants.
        data: bytes of variables with start values.
        bss: bytes of the static arena.
        instructions: of one inference, counted in an emulator; they are not time. None if this
            was not counted.
    """

    target: str
    level: str
    text: int
    rodata: int
    data: int
    bss: int
    instructions: int | None = None

    @property
    def name(self) -> str:
        """Processor and level."""
        return f"{self.target} {self.level}"


@dataclasses.dataclass(frozen=True)
class GeneratedC:
    """The file as C.

    Attributes:
        arena_bytes: static memory; the caller's inputs and outputs come on top.
        packed_weight_bytes: codes of all layers, in rodata.
        constant_bytes: biases, multipliers, shifts and tables, in rodata; records of parameters
            are the rest of it.
        builds: one per processor and level.
    """

    arena_bytes: int
    packed_weight_bytes: int
    constant_bytes: int
    builds: tuple[Build, ...]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What a file costs.

    Attributes:
        size: of the file, in bytes.
        latencies: one per number of threads.
        arena_bytes: the least working memory of TFLM on this computer, with pointers of 8 bytes.
        generated: the file as C.
        not_measured: name of a figure -> why it is missing.
    """

    size: int
    latencies: tuple[Latency, ...]
    arena_bytes: int | None
    generated: GeneratedC | None
    not_measured: Mapping[str, str]


def benchmark(
    model: Model,
    inputs: Sequence[np.ndarray],
    *,
    threads: Sequence[int] = THREADS,
    warm_up: int = WARM_UP,
    runs: int = RUNS,
    time_limit: float = runtime.TIME_LIMIT,
    advance: Advance = quietly,
) -> Benchmark:
    """Measure a file.

    Args:
        model: a .tflite file.
        inputs: as for `runtime.run`; the first sample is used.
        threads: of LiteRT; every number is measured in a process of its own.
        warm_up: runs before the timed ones.
        runs: timed runs.
        time_limit: seconds for each process.
        advance: is told how far the work is.

    Raises:
        ValueError: if the inputs do not fit, or neither LiteRT nor TFLM runs the file.
        CompilerError: if this computer's compiler refuses the generated C.
    """
    missing: dict[str, str] = {}
    stages = len(threads) + _OTHER_STAGES

    def timed() -> Iterator[Latency]:
        if model.main.encoded:
            raise NotMeasuredError("only TFLM decodes weights from tables")
        for done, count in enumerate(threads):
            advance(done / stages, f"{LATENCY}, threads: {count}")
            yield _latency(model, inputs, count, warm_up, runs, time_limit)

    latencies = _tried(LATENCY, lambda: tuple(timed()), missing) or ()
    advance(len(threads) / stages, ARENA)
    arena = _tried(ARENA, lambda: _arena(model, time_limit), missing)
    if not latencies and arena is None:
        reasons = "; ".join(missing.values())
        raise ValueError(f"Neither LiteRT nor TFLM runs the file: {reasons}")
    advance((len(threads) + 1) / stages, f"{C}, compiled and run")
    generated = _tried(C, lambda: _generated(model, inputs, missing), missing)
    return Benchmark(len(model.data), latencies, arena, generated, missing)


def _tried(name: str, measure: Callable[[], _Figure], missing: dict[str, str]) -> _Figure | None:
    """A figure, or None with the reason in `missing`."""
    try:
        return measure()
    except (NotMeasuredError, RuntimeFailedError) as error:
        missing[name] = str(error)
        return None


def _latency(
    model: Model,
    inputs: Sequence[np.ndarray],
    threads: int,
    warm_up: int,
    runs: int,
    time_limit: float,
) -> Latency:
    seconds = runtime.seconds(
        model,
        inputs,
        threads=threads,
        warm_up=warm_up,
        runs=runs,
        time_limit=time_limit,
    )
    lower, median, upper = np.percentile(1e3 * seconds, [25, 50, 75])
    least = 1e3 * float(seconds.min())
    return Latency(threads, len(seconds), float(median), float(lower), float(upper), least)


def _arena(model: Model, time_limit: float) -> int:
    if not runtime.available(TFLM):
        raise NotMeasuredError(
            "tflite-micro is not installed: pip install tflite-micro, or 'tfbinreg[micro]'"
        )
    return runtime.least_arena(model, time_limit=time_limit)


def _generated(model: Model, inputs: Sequence[np.ndarray], missing: dict[str, str]) -> GeneratedC:
    sources = _sources(model)
    here = _tried(f"{C} for {host_size.target()}", lambda: _host(sources), missing)
    there = _tried(f"{C} for {DEVICE}", lambda: _device(sources, model, inputs), missing)
    return GeneratedC(
        arena_bytes=sources.arena_bytes,
        packed_weight_bytes=sources.packed_weight_bytes,
        constant_bytes=sources.constant_bytes,
        builds=(*(here or ()), *(there or ())),
    )


def _sources(model: Model) -> Sources:
    """The file as C; only canonical files whose operators are all known can be written so."""
    try:
        build.check_canonical(model)
        return generate.generate(model)
    except ValueError as error:
        raise NotMeasuredError(" ".join(str(error).split())) from error


def _host(sources: Sources) -> tuple[Build, ...]:
    _need(host_size.missing())
    return (_build(host_size.target(), host_size.LEVEL, host_size.measure(sources), None),)


def _device(sources: Sources, model: Model, inputs: Sequence[np.ndarray]) -> tuple[Build, ...]:
    _need(boards.missing([DEVICE]))
    one = [array[:1] for array in inputs]
    try:
        return tuple(
            _build(
                DEVICE,
                level,
                boards.size(sources, cpu=DEVICE, flags=(level,)),
                boards.run(sources, model, one, cpu=DEVICE, flags=(level,)).instructions,
            )
            for level in LEVELS
        )
    except CompilerError as error:  # a network may be too large for the emulated board
        raise NotMeasuredError(" ".join(str(error).split())) from error


def _need(lacking: Sequence[str]) -> None:
    if lacking:
        raise NotMeasuredError(f"not installed: apt-get install {' '.join(lacking)}")


def _build(target: str, level: str, sizes: Sizes, instructions: int | None) -> Build:
    return Build(target, level, sizes.text, sizes.rodata, sizes.data, sizes.bss, instructions)
