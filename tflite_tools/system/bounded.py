"""Programs run with bounds on their time, memory and what they write."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

# Sets each NAME=BOUND in front of "--" and becomes the command behind it.
_LAUNCHER = """
import os, resource, signal, sys
place = sys.argv.index("--")
for name, bound in (text.split("=") for text in sys.argv[1:place]):
    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    least = int(bound) if hard == resource.RLIM_INFINITY else min(int(bound), hard)
    resource.setrlimit(kind, (least, least))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
    signal.signal(number, signal.SIG_DFL)
os.execvp(sys.argv[place + 1], sys.argv[place + 1:])
"""


class TooSlowError(RuntimeError):
    """A program that did not finish in time and was stopped, with all it had started."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """A program that has ended.

    Attributes:
        code: its exit code; negative for the signal that ended it.
        stdout: what it wrote there.
        stderr: likewise, as text.
    """

    code: int
    stdout: bytes
    stderr: str

    @property
    def reason(self) -> str:
        """How it ended, and the beginning of what it said."""
        told = f"exit code {self.code}" if self.code >= 0 else signal.Signals(-self.code).name
        if self.code == -getattr(signal, "SIGXFSZ", 0):
            told = f"{told}: it wrote more than it may"
        return f"{told}\n{self.stderr[:2000]}".rstrip()


def run(
    command: Sequence[str],
    *,
    time_limit: float,
    stdin: bytes = b"",
    memory: int | None = None,
    most_output: int | None = None,
    environment: Mapping[str, str] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Finished:
    """Run a program to its end.

    Args:
        command: the program and its arguments.
        time_limit: seconds, after which it is stopped, and with it the processes it has started.
        stdin: what it reads.
        memory: bytes of address space that each process may have; None for no bound.
        most_output: bytes of the largest file that it may write, stdout and stderr among them;
            None for no bound.
        environment: its variables; None for this process's.
        folder: where it starts.

    Raises:
        TooSlowError: if it takes longer than `time_limit`.
        OSError: if it cannot be started and has no bounds but time.
    """
    with tempfile.TemporaryDirectory(prefix="tflite_tools_run_") as path:
        ends = [pathlib.Path(path) / name for name in ("stdin", "stdout", "stderr")]
        ends[0].write_bytes(stdin)
        with ends[0].open("rb") as source, ends[1].open("wb") as out, ends[2].open("wb") as err:
            process = subprocess.Popen(
                _launched(command, memory, most_output),
                stdin=source,
                stdout=out,
                stderr=err,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
            _wait(process, time_limit)
        stderr = ends[2].read_bytes().decode("utf-8", "replace")
        return Finished(process.returncode, ends[1].read_bytes(), stderr)


def _launched(command: Sequence[str], memory: int | None, most_output: int | None) -> list[str]:
    """The command behind a launcher that sets its bounds, if there are any and the system has."""
    bounds = {"RLIMIT_AS": memory, "RLIMIT_FSIZE": most_output}
    asked = [f"{name}={bound}" for name, bound in bounds.items() if bound is not None]
    if not asked or importlib.util.find_spec("resource") is None:
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, *asked, "--", *command]


def _wait(process: subprocess.Popen[bytes], time_limit: float) -> None:
    """Wait for a process; what it has started ends with it, also when the waiting is cut short."""
    try:
        process.wait(time_limit)
    except subprocess.TimeoutExpired as error:
        raise TooSlowError(f"did not finish within {time_limit:g} seconds") from error
    finally:
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
