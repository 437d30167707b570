"""Runs one interpreter over a set of samples, in a process of its own (see `runtime.py`).

`python -m tflite_tools.running.worker FOLDER` reads job.json, model.tflite and inputs.npz
from FOLDER and writes outputs.npz.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

FAILED = 3


@dataclasses.dataclass(frozen=True)
class Job:
    """What to run.

    Attributes:
        runtime: a key of `RUNTIMES`.
        inputs: how many inputs the model has.
        outputs: how many outputs.
        watched: indices of the int8 tensors whose values are counted.
        arena: bytes of working memory for TFLM.
        memory: bytes that the process may use; a damaged file must not exhaust the host.
        kept: indices of the tensors whose values are returned for every sample.
        delegates: whether LiteRT may use XNNPACK.
        measure_arena: find the least working memory TFLM needs.
        threads: of LiteRT.
        warm_up: runs before those that are timed.
        timed: how often the first sample is run and timed; 0 returns outputs instead.
    """

    runtime: str
    inputs: int
    outputs: int
    watched: tuple[int, ...]
    arena: int
    memory: int
    kept: tuple[int, ...] = ()
    delegates: bool = True
    measure_arena: bool = False
    threads: int = 1
    warm_up: int = 0
    timed: int = 0


ARENA = "arena"
SECONDS = "seconds"


def input_name(index: int) -> str:
    """Name of input `index` in inputs.npz."""
    return f"input{index}"


def output_name(index: int) -> str:
    """Name of output `index` in outputs.npz."""
    return f"output{index}"


def seen_name(index: int) -> str:
    """Name of the int8 histogram of tensor `index` in outputs.npz."""
    return f"seen{index}"


def kept_name(index: int) -> str:
    """Name of the values of tensor `index` in outputs.npz."""
    return f"kept{index}"


def _limit_memory(size: int) -> None:
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


class LiteRT:
    """LiteRT; with tensors to watch, without delegates and with every tensor preserved."""

    def __init__(self, data: bytes, job: Job) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        options: dict[str, Any] = {}
        if job.watched or job.kept:
            options["experimental_preserve_all_tensors"] = True
        if options or not job.delegates:
            resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            options["experimental_op_resolver_type"] = resolver
        self._interpreter = Interpreter(model_content=data, num_threads=job.threads, **options)
        self._interpreter.allocate_tensors()
        self._inputs = [detail["index"] for detail in self._interpreter.get_input_details()]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs of one sample."""
        self._set(inputs)
        self._interpreter.invoke()
        return [self.tensor(index) for index in self._outputs]

    def _set(self, inputs: Sequence[np.ndarray]) -> None:
        for index, value in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, value)

    def seconds(self, inputs: Sequence[np.ndarray], *, warm_up: int, timed: int) -> np.ndarray:
        """How long each of `timed` runs of one sample takes, float64, `invoke` alone."""
        self._set(inputs)
        for _ in range(warm_up):
            self._interpreter.invoke()
        taken = np.zeros(timed)
        for index in range(timed):
            start = time.perf_counter()
            self._interpreter.invoke()
            taken[index] = time.perf_counter() - start
        return taken

    def tensor(self, index: int) -> np.ndarray:
        """A tensor's values after a run."""
        return self._interpreter.get_tensor(index)


class TFLM:
    """TensorFlow Lite for Microcontrollers, reference kernels."""

    def __init__(self, data: bytes, job: Job) -> None:
        from tflite_micro import runtime

        if job.watched:
            raise ValueError("TFLM does not watch tensors.")
        config = runtime.InterpreterConfig
        chosen = config.kPreserveAllTensors if job.kept else config.kAllocationRecording
        self._interpreter = runtime.Interpreter.from_bytes(
            data, arena_size=job.arena, intrepreter_config=chosen
        )
        self._outputs = job.outputs

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs of one sample."""
        for index, value in enumerate(inputs):
            self._interpreter.set_input(value, index)
        self._interpreter.invoke()
        return [np.array(self._interpreter.get_output(i)) for i in range(self._outputs)]

    def tensor(self, index: int) -> np.ndarray:
        """A tensor's values after a run."""
        return np.array(self._interpreter.GetTensor(index, 0)["tensor_data"])


def least_arena(data: bytes, job: Job, inputs: Sequence[np.ndarray]) -> int:
    """The least working memory, to 16 bytes, with which TFLM prepares and runs a file.

    With too little TFLM refuses the file, or writes beyond its memory and crashes or computes
    something else. Every size is therefore tried in a process of its own; it is enough if the
    outputs are those with `job.arena` bytes. That much is tried in this process: a crash there is
    the file's.

    Raises:
        RuntimeError: if `job.arena` bytes are not enough.
    """
    expected = TFLM(data, job)(inputs)
    low, high = 0, -(-job.arena // 16)
    while high - low > 1:
        middle = (low + high) // 2
        smaller = dataclasses.replace(job, arena=16 * middle)
        low, high = (low, middle) if _enough(data, smaller, inputs, expected) else (middle, high)
    return 16 * high


def _enough(
    data: bytes, job: Job, inputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> bool:
    """Whether a process with `job.arena` bytes computes what is expected."""
    child = os.fork()
    if child == 0:  # it says nothing and never returns
        code = FAILED
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            made = TFLM(data, job)(inputs)
            code = 0 if all(map(np.array_equal, made, expected)) else FAILED
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


RUNTIMES: dict[str, Any] = {"LiteRT": LiteRT, "TFLM": TFLM}


def run_all(
    runner: Any,
    inputs: Sequence[np.ndarray],
    watched: Sequence[int],
    kept: Sequence[int] = (),
) -> dict[str, np.ndarray]:
    """All samples' outputs, stacked, how often each int8 value was seen in watched tensors, and the
    values of kept ones."""
    values: dict[int, list[np.ndarray]] = {index: [] for index in kept}
    seen = {index: np.zeros(256, np.int64) for index in watched}
    rows = []
    for sample in range(len(inputs[0])):
        rows.append(runner([array[sample : sample + 1] for array in inputs]))
        for index in watched:
            stored = runner.tensor(index).reshape(-1).astype(np.int16) + 128
            seen[index] += np.bincount(stored, minlength=256)
        for index in kept:
            values[index].append(np.array(runner.tensor(index)))
    results = {
        output_name(i): np.concatenate(column) for i, column in enumerate(zip(*rows, strict=True))
    }
    results |= {kept_name(index): np.stack(column) for index, column in values.items()}
    return results | {seen_name(index): counts for index, counts in seen.items()}


def main(path: str) -> int:
    """Exit code 0, or `FAILED` with the reason as the last line on stderr."""
    folder = pathlib.Path(path)
    try:
        job = Job(**json.loads((folder / "job.json").read_text()))
        _limit_memory(job.memory)
        with np.load(folder / "inputs.npz") as archive:
            inputs = [archive[input_name(index)] for index in range(job.inputs)]
        data = (folder / "model.tflite").read_bytes()
        if job.measure_arena:
            results = {ARENA: np.array(least_arena(data, job, inputs))}
        elif job.timed:
            one = [array[:1] for array in inputs]
            seconds = LiteRT(data, job).seconds(one, warm_up=job.warm_up, timed=job.timed)
            results = {SECONDS: seconds}
        else:
            runner = RUNTIMES[job.runtime](data, job)
            results = run_all(runner, inputs, job.watched, job.kept)
        np.savez(folder / "outputs.npz", **results)  # type: ignore[arg-type]
    except Exception as error:  # handed to the parent process, which names the runtime
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
