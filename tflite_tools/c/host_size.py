"""What generated C takes when it is compiled for this computer: bytes by section."""

from __future__ import annotations

import pathlib
import platform
import shutil
import subprocess
import tempfile

from tflite_tools.c import host_run
from tflite_tools.c.boards import Sizes, parse
from tflite_tools.c.generate import Sources
from tflite_tools.c.host_run import CompilerError

LEVEL = "-Os"
_EXAMPLE = "main.c"
_SIZE = "size"


def missing() -> tuple[str, ...]:
    """Debian packages that `measure` needs and that are not installed."""
    tools = {"gcc": host_run.compiler(), "binutils": shutil.which(_SIZE)}
    return tuple(package for package, path in tools.items() if path is None)


def measure(sources: Sources) -> Sizes:
    """Compile the network, without the example program, with -Os.

    Raises:
        CompilerError: if a tool is missing, or the compiler refuses the files.
    """
    lacking = missing()
    if lacking:
        raise CompilerError(f"Missing: {', '.join(lacking)}.")
    with tempfile.TemporaryDirectory(prefix="tflite_tools_c_") as path:
        folder = pathlib.Path(path)
        for name, text in sources.files.items():
            (folder / name).write_text(text)
        units = sorted(n for n in sources.files if n.endswith(".c") and n != _EXAMPLE)
        _call([str(host_run.compiler()), "-std=c99", LEVEL, "-c", *units], folder)
        objects = [f"{pathlib.Path(unit).stem}.o" for unit in units]
        return parse(_call([_SIZE, "-A", *objects], folder))


def target() -> str:
    """What `measure` compiles for."""
    return platform.machine()


def _call(command: list[str], folder: pathlib.Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CompilerError(f"{command[0]} fails on the generated C:\n{done.stderr[:2000]}")
    return done.stdout
