"""Runs generated C on this computer: compiled with all warnings and, by choice, sanitizers."""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

from tflite_tools.model import Model

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-O2")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
EMULATE_DSP = "-DTFBINREG_EMULATE_DSP"
_COMPILERS = ("gcc", "cc", "clang")
_COMPILE_LIMIT = 300.0
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
                done = subprocess.run(
                    command, capture_output=True, timeout=_COMPILE_LIMIT, check=False
                )
            except (OSError, subprocess.TimeoutExpired):
                return ()
            if done.returncode != 0:
                return ()
    return SANITIZERS


def run(
    files: Mapping[str, str],
    model: Model,
    inputs: Sequence[np.ndarray],
    *,
    flags: Sequence[str] = SANITIZERS,
    time_limit: float = 300.0,
) -> tuple[np.ndarray, ...]:
    """Compile the example program and run it on samples.

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
        output = _execute(program, rows.tobytes(), time_limit)
    return parted(model, output, len(rows))


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
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMPILE_LIMIT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CompilerError(f"{found} did not finish in {_COMPILE_LIMIT:g} seconds.") from error
    if done.returncode != 0:
        raise CompilerError(f"{found} refuses the generated C:\n{done.stderr[:2000]}")
    return program


def _execute(program: pathlib.Path, stdin: bytes, time_limit: float) -> bytes:
    try:
        done = subprocess.run(
            [str(program)], input=stdin, capture_output=True, timeout=time_limit, check=False
        )
    except subprocess.TimeoutExpired as error:
        message = f"The program did not finish in {time_limit:g} seconds."
        raise CompilerError(message) from error
    if done.returncode != 0:
        text = done.stderr.decode("utf-8", "replace")[:2000]
        raise CompilerError(f"The program failed with exit code {done.returncode}:\n{text}")
    return done.stdout
