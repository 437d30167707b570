"""Many runs: each in a separate process, a few at a time, paused while a file exists."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

POLL = 0.5  # seconds
_PR_SET_PDEATHSIG = 1


def run_all(
    commands: Sequence[tuple[str, list[str]]],
    jobs: int,
    pause_file: Path | None,
    finished: Callable[[str, int], None],
) -> int:
    """Run commands, `jobs` at a time.

    While `pause_file` exists, the processes are stopped (SIGSTOP) and none is started. When this
    process ends, however it does, they end too.

    Args:
        commands: what to run, by a name.
        jobs: how many at once.
        pause_file: None for none.
        finished: told each name and exit code.

    Returns:
        how many failed.
    """
    waiting, failed = list(commands), 0
    active: dict[str, subprocess.Popen[bytes]] = {}
    is_paused = False
    try:
        while waiting or active:
            pause = pause_file is not None and pause_file.exists()
            if pause != is_paused:
                is_paused = pause
                _tell("paused" if pause else "going on")
                for process in active.values():
                    process.send_signal(signal.SIGSTOP if pause else signal.SIGCONT)
            for name, process in list(active.items()):
                if process.poll() is not None:
                    del active[name]
                    failed += process.returncode != 0
                    finished(name, process.returncode)
            while waiting and len(active) < jobs and not is_paused:
                name, command = waiting.pop(0)
                active[name] = subprocess.Popen(command)
            time.sleep(POLL)
    finally:
        for process in active.values():
            process.kill()
    return failed


def _tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def end_with_parent() -> None:
    """Let this process be killed when the one that started it ends, even if it is stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Scope that only one process at a time can be in; a killed process leaves it.

    Raises:
        ValueError: if another one is in it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"Another process makes this run: it holds {str(path)!r}.") from None
        yield
    finally:
        os.close(descriptor)
