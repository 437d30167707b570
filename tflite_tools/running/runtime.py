"""LiteRT and TFLM behind one interface.

Interpreters run in a process of their own: on a damaged file they crash, hang or take all memory,
and none of that may take the caller along.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import re
import signal
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from tflite_tools.running import worker
from tflite_tools.schema.contents import Model, Quantization
from tflite_tools.system import bounded

LITERT, TFLM = "LiteRT", "TFLM"
TIME_LIMIT = 900.0
_MODULES = {LITERT: "ai_edge_litert", TFLM: "tflite_micro"}
_NUMPY_TYPES: dict[str, type[np.generic]] = {
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "FLOAT32": np.float32,
}
_GIB = 2**30
_MISSING_OP = re.compile(r"Didn't find op for builtin opcode '(\w+)'")


class RuntimeFailedError(RuntimeError):
    """A runtime that could not run a file; the message names the runtime and the reason."""


class MissingOpError(RuntimeFailedError):
    """The runtime has no such operator."""


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What a runtime computed.

    Attributes:
        outputs: one array per output, samples stacked along the first axis, of the file's type.
        seen: tensor index -> how often each int8 value, from -128 up, was seen in it.
        kept: tensor index -> its values, samples along a new first axis.
    """

    outputs: tuple[np.ndarray, ...]
    seen: dict[int, np.ndarray]
    kept: dict[int, np.ndarray]


def available(runtime: str) -> bool:
    """Whether a runtime is installed."""
    return importlib.util.find_spec(_MODULES[runtime]) is not None


def run(
    model: Model,
    inputs: Sequence[np.ndarray],
    *,
    runtime: str = LITERT,
    watched: Sequence[int] = (),
    kept: Sequence[int] = (),
    delegates: bool = True,
    time_limit: float = TIME_LIMIT,
) -> Run:
    """Run a file on samples, one at a time.

    Args:
        model: the file.
        inputs: one array per input, samples along the first axis, of the file's type and shape.
        runtime: LITERT or TFLM.
        watched: int8 tensors to watch; they are read without delegates, all tensors preserved.
        kept: tensors whose values are returned, likewise.
        delegates: whether LiteRT may use XNNPACK.
        time_limit: seconds.

    Raises:
        ValueError: if the inputs do not fit the file.
        RuntimeFailedError: if the runtime refuses the file, crashes or takes too long.
    """
    check_inputs(model, inputs)
    job = dataclasses.replace(
        _job(model, runtime, inputs),
        watched=tuple(watched),
        kept=tuple(kept),
        delegates=delegates,
    )
    results = _perform(job, model, inputs, time_limit)
    return Run(
        tuple(results[worker.output_name(i)] for i in range(job.outputs)),
        {index: results[worker.seen_name(index)] for index in job.watched},
        {index: results[worker.kept_name(index)] for index in job.kept},
    )


def least_arena(model: Model, *, time_limit: float = TIME_LIMIT) -> int:
    """Bytes of working memory that TFLM needs to run a file on this machine, to 16 bytes.

    Pointers take 8 bytes here and 4 on a microcontroller, where it is a little less.

    Raises:
        ValueError: if the file has inputs of a type that is not supported.
        RuntimeFailedError: if TFLM refuses the file, crashes on it with ample memory or takes too
            long.
    """
    random = np.random.default_rng(0)
    tensors = [model.main.tensors[index] for index in model.main.inputs]
    inputs = [
        random.integers(-128, 128, tensor.shape).astype(numpy_type(tensor.dtype))
        for tensor in tensors
    ]
    job = dataclasses.replace(_job(model, TFLM, inputs), measure_arena=True)
    return int(_perform(job, model, inputs, time_limit)[worker.ARENA])


def seconds(
    model: Model,
    inputs: Sequence[np.ndarray],
    *,
    threads: int,
    warm_up: int,
    runs: int,
    time_limit: float = TIME_LIMIT,
) -> np.ndarray:
    """Seconds that `invoke` alone takes in LiteRT for the first sample: float64, one for each of
    `runs` runs, after `warm_up` others, in a process that does no more.

    Raises:
        ValueError: if the inputs do not fit the file.
        RuntimeFailedError: if LiteRT refuses the file, crashes or takes too long.
    """
    check_inputs(model, inputs)
    job = _job(model, LITERT, inputs)
    job = dataclasses.replace(job, threads=threads, warm_up=warm_up, timed=runs)
    return _perform(job, model, inputs, time_limit)[worker.SECONDS]


def _job(model: Model, runtime: str, inputs: Sequence[np.ndarray]) -> worker.Job:
    size, stored = _tensor_bytes(model), len(model.data)
    return worker.Job(
        runtime=runtime,
        inputs=len(inputs),
        outputs=len(model.main.outputs),
        watched=(),
        arena=2 * size + 16 * stored + 2**20,
        memory=4 * _GIB + 16 * (size + stored) + 4 * sum(array.nbytes for array in inputs),
    )


def _perform(
    job: worker.Job, model: Model, inputs: Sequence[np.ndarray], time_limit: float
) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory(prefix="tflite_tools_") as path:
        folder = pathlib.Path(path)
        (folder / "job.json").write_text(json.dumps(dataclasses.asdict(job)))
        (folder / "model.tflite").write_bytes(model.data)
        named = {worker.input_name(index): array for index, array in enumerate(inputs)}
        np.savez(folder / "inputs.npz", **named)  # type: ignore[arg-type]
        _spawn(folder, job.runtime, time_limit)
        with np.load(folder / "outputs.npz") as archive:
            return dict(archive)


def _tensor_bytes(model: Model) -> int:
    elements = sum(math.prod(tensor.shape) for tensor in model.main.tensors)
    size = 4 * elements
    if size > 2 * _GIB:
        raise RuntimeFailedError(f"The file's tensors would take {size / _GIB:.1f} GiB.")
    return size


def _spawn(folder: pathlib.Path, runtime: str, time_limit: float) -> None:
    source = str(pathlib.Path(__file__).resolve().parent.parent)
    search = [source, os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))}
    command = [sys.executable, "-m", "tflite_tools.running.worker", str(folder)]
    try:
        done = bounded.run(command, time_limit=time_limit, environment=environment)
    except bounded.TooSlowError as error:
        raise RuntimeFailedError(f"{runtime} {error}.") from error
    if done.code != 0:
        raise _failure(runtime, done.code, done.stderr)


def _failure(runtime: str, code: int, stderr: str) -> RuntimeFailedError:
    missing = _MISSING_OP.search(stderr)
    if missing is not None:
        return MissingOpError(f"{runtime} has no operator {missing.group(1)}.")
    if code < 0:
        return RuntimeFailedError(f"{runtime} crashed on the file ({signal.Signals(-code).name}).")
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    reason = lines[-1] if lines else f"exit code {code}"
    return RuntimeFailedError(f"{runtime} cannot run the file: {reason}")


def numpy_type(dtype: str) -> type[np.generic]:
    """The NumPy type of an input or output.

    Raises:
        ValueError: for a type that inputs and outputs do not have.
    """
    if dtype not in _NUMPY_TYPES:
        raise ValueError(f"Inputs and outputs of type {dtype} are not supported.")
    return _NUMPY_TYPES[dtype]


def check_inputs(model: Model, inputs: Sequence[np.ndarray]) -> None:
    """Check that arrays fit a file's inputs: number, type, shape, equal sample counts.

    Raises:
        ValueError: naming the input.
    """
    tensors = [model.main.tensors[index] for index in model.main.inputs]
    if len(inputs) != len(tensors) or not tensors:
        raise ValueError(f"The file has {len(tensors)} inputs, got {len(inputs)} arrays.")
    for tensor, array in zip(tensors, inputs, strict=True):
        if tensor.shape[:1] != (1,):
            raise ValueError(f"Input {tensor.name!r} has shape {tensor.shape}, not batch size 1.")
        expected = numpy_type(tensor.dtype)
        if array.dtype != expected or array.shape[1:] != tensor.shape[1:]:
            raise ValueError(
                f"Input {tensor.name!r} is {expected.__name__} {tensor.shape[1:]} for a sample, "
                f"got {array.dtype} {array.shape[1:]}."
            )
        if not 1 <= len(array) == len(inputs[0]):
            raise ValueError(f"Input {tensor.name!r} has {len(array)} samples.")


def quantize(values: np.ndarray, parameters: Quantization, dtype: type[np.generic]) -> np.ndarray:
    """Real numbers -> stored integers: value / scale rounded half up, plus the zero point."""
    limits = np.iinfo(dtype)  # type: ignore[type-var]
    with np.errstate(over="ignore"):  # what is beyond float32 is clipped all the same
        scaled = np.asarray(values, np.float32) / parameters.scale[0] + np.float32(0.5)
    stored = np.floor(scaled) + np.float32(parameters.zero_point[0])
    return np.clip(stored, limits.min, limits.max).astype(dtype)


def dequantize(stored: np.ndarray, parameters: Quantization) -> np.ndarray:
    """Stored integers -> real numbers, float32."""
    offsets = stored.astype(np.int64) - parameters.zero_point[0]
    return offsets.astype(np.float32) * parameters.scale[0]
