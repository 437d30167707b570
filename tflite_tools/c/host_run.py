"""Runs generated C on this computer: compiled with all warnings and, by choice, sanitizers."""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

from tflite_tools.schema.contents import Model
from tflite_tools.system import bounded
from tflite_tools.system.bounded import Finished

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-O2")
# Of several levels the last counts: with -O1 their checks compile in three quarters of the time.
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1")
EMULATE_DSP = "-DTFBINREG_EMULATE_DSP"
_COMPILERS = ("gcc", "cc", "clang")
_COMPILE_LIMIT = 300.0
TIME_LIMIT = 300.0  # of a program, for all samples
MEMORY = 2**31  # bytes that a program may use
_COMPILER_MEMORY, _COMPILER_OUTPUT = 2**33, 2**28  # bytes
_MESSAGES = 2**20  # bytes that a program may write beside its results
MISSING = f"no C compiler: set CC, or install one of {', '.join(_COMPILERS)}"


class CompilerError(RuntimeError):
    """There is no C compiler, or it refused the sources, or the program failed."""


def compiler() -> str | None:
    """The path of a C compiler: that of the variable CC, or one by a usual name."""
    names = (os.environ.get("CC", ""), *_COMPILERS)
    return next((path for path in map(shutil.which, filter(None, names)) if path), None)


def sanitizers() -> tuple[str, ...]:
    """`SANITIZERS`, or nothing where the compiler or the system cannot run programs with them."""
    found = compiler()
    return _usable(found) if found is not None else ()


@functools.cache
def _usable(found: str) -> tuple[str, ...]:
    """The sanitizers that a compiler has: it is tried with an empty program."""
    with tempfile.TemporaryDirectory(prefix="tflite_tools_c_") as path:
        program = pathlib.Path(path) / "program"
        source = program.with_suffix(".c")
        source.write_text("int main(void) { return 0; }\n")
        for command in ([found, *SANITIZERS, str(source), "-o", str(program)], [str(program)]):
            try:
                done = bounded.run(command, time_limit=_COMPILE_LIMIT)
            except (OSError, bounded.TooSlowError):
                return ()
            if done.code != 0:
                return ()
    return SANITIZERS


def run(
    files: Mapping[str, str],
    model: Model,
    inputs: Sequence[np.ndarray],
    *,
    flags: Sequence[str] = SANITIZERS,
    time_limit: float = TIME_LIMIT,
) -> tuple[np.ndarray, ...]:
    """Compile the example program and run it on samples, with `MEMORY` at most, without this
    process's environment, in a folder of its own.

    Args:
        files: the C files by name, with the example program.
        model: the file they were made from.
        inputs: one int8 array per input, samples along the first axis.
        flags: compiler flags beside `FLAGS`.
        time_limit: seconds for all samples.

    Returns:
        One int8 array per output, samples along the first axis.

    Raises:
        ValueError: if the inputs do not fit.
        CompilerError: if there is no compiler, or compiling or running fails.
    """
    rows = stacked(model, inputs)
    with tempfile.TemporaryDirectory(prefix="tflite_tools_c_") as path:
        program = compile_to(pathlib.Path(path), files, flags)
        done = _execute(
            program,
            rows.tobytes(),
            most_output=len(rows) * _output_bytes(model) + _MESSAGES,
            sanitized=SANITIZERS[0] in flags,
            time_limit=time_limit,
        )
    if done.code != 0:
        raise CompilerError(f"The program failed: {done.reason}")
    return parted(model, done.stdout, len(rows))


def run_frames(
    files: Mapping[str, str],
    sequences: Sequence[np.ndarray],
    row_bytes: int,
    *,
    flags: Sequence[str] = SANITIZERS,
    time_limit: float = TIME_LIMIT,
) -> list[np.ndarray]:
    """Compile the example program of a network that takes frames, and run it on each sequence from
    its beginning, within the bounds of `run`.

    Args:
        files: the C files by name, with the example program.
        sequences: int8, (frames, bytes of the frames of all inputs).
        row_bytes: what the program writes when there are outputs.
        flags: compiler flags beside `FLAGS`.
        time_limit: seconds for each sequence.

    Returns:
        For each sequence what was written, int8, (outputs, row_bytes).

    Raises:
        CompilerError: if there is no compiler, or compiling or running fails.
    """
    made = []
    with tempfile.TemporaryDirectory(prefix="tflite_tools_c_") as path:
        program = compile_to(pathlib.Path(path), files, flags)
        for frames in sequences:
            done = _execute(
                program,
                frames.astype(np.int8).tobytes(),
                most_output=len(frames) * row_bytes + _MESSAGES,
                sanitized=SANITIZERS[0] in flags,
                time_limit=time_limit,
            )
            if done.code != 0:
                raise CompilerError(f"The program failed: {done.reason}")
            values = np.frombuffer(done.stdout, np.int8)
            if values.size % row_bytes:
                raise CompilerError(
                    f"The program wrote {values.size} values in rows of {row_bytes}."
                )
            made.append(values.reshape(-1, row_bytes))
    return made


def _output_bytes(model: Model) -> int:
    """What a program writes for a sample."""
    tensors = model.main.tensors
    return sum(int(np.prod(tensors[index].shape)) for index in model.main.outputs)


def stacked(model: Model, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """The samples as programs read them: one per row, int8, all inputs one behind the other.

    Raises:
        ValueError: if the inputs do not fit.
    """
    sizes = [int(np.prod(model.main.tensors[index].shape)) for index in model.main.inputs]
    if len(inputs) != len(sizes) or any(array.dtype != np.int8 for array in inputs):
        raise ValueError(f"The model takes {len(sizes)} int8 inputs.")
    flat = [array.reshape(len(array), -1) for array in inputs]
    if any(
        len(array) != len(flat[0]) or array.shape[1] != size
        for array, size in zip(flat, sizes, strict=True)
    ):
        raise ValueError(f"The model takes samples of {list(sizes)} values.")
    return np.concatenate(flat, axis=1)


def parted(model: Model, written: bytes, count: int) -> tuple[np.ndarray, ...]:
    """What programs write for `count` samples, one array per output.

    Raises:
        CompilerError: if it is too much or too little.
    """
    shapes = [model.main.tensors[index].shape for index in model.main.outputs]
    sizes = [int(np.prod(shape)) for shape in shapes]
    values = np.frombuffer(written, np.int8)
    if values.size != count * sum(sizes):
        raise CompilerError(f"The program wrote {values.size} values for {count} samples.")
    parts = np.split(values.reshape(count, -1), np.cumsum(sizes)[:-1], axis=1)
    pairs = zip(parts, shapes, strict=True)
    return tuple(part.reshape(count * shape[0], *shape[1:]) for part, shape in pairs)


def compile_to(
    folder: pathlib.Path, files: Mapping[str, str], flags: Sequence[str] = ()
) -> pathlib.Path:
    """Write the files into a folder and compile the example program there.

    Raises:
        CompilerError: if there is no compiler, or it refuses the files.
    """
    found = compiler()
    if found is None:
        raise CompilerError(f"There is {MISSING}.")
    for name, text in files.items():
        (folder / name).write_text(text)
    program = folder / "program"
    units = sorted(str(folder / name) for name in files if name.endswith(".c"))
    command = [found, *FLAGS, *flags, *units, "-o", str(program)]
    try:
        done = bounded.run(
            command,
            time_limit=_COMPILE_LIMIT,
            memory=_COMPILER_MEMORY,
            most_output=_COMPILER_OUTPUT,
        )
    except bounded.TooSlowError as error:
        raise CompilerError(f"{found} {error}.") from error
    if done.code != 0:
        raise CompilerError(f"{found} refuses the generated C: {done.reason}")
    return program


def _execute(
    program: pathlib.Path, stdin: bytes, *, most_output: int, sanitized: bool, time_limit: float
) -> Finished:
    """Run a compiled program within its bounds, in its folder, with an empty environment."""
    # The address sanitizer reserves far more addresses than there is memory, and counts itself.
    bound = {"ASAN_OPTIONS": f"hard_rss_limit_mb={MEMORY >> 20}"} if sanitized else {}
    try:
        return bounded.run(
            [str(program)],
            stdin=stdin,
            time_limit=time_limit,
            memory=None if sanitized else MEMORY,
            most_output=most_output,
            environment=bound,
            folder=program.parent,
        )
    except bounded.TooSlowError as error:
        raise CompilerError(f"The program {error}.") from error
