"""Runs as processes: a few at a time, stopped by a file, gone with the one that started them."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from examples.study.processes import locked, run_all

ROOT = pathlib.Path(__file__).parents[2]
PATIENCE = 60.0


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def python(code):
    return [sys.executable, "-c", code]


def test_every_command_runs_and_failures_are_counted(tmp_path):
    codes = {}
    commands = [(str(code), python(f"raise SystemExit({code})")) for code in (0, 3, 0, 1)]
    assert run_all(commands[1:], 2, None, codes.__setitem__) == 2
    assert codes == {"3": 3, "0": 0, "1": 1}


def test_no_more_than_so_many_at_once(tmp_path):
    code = (
        "import os, pathlib, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "(folder / f'{os.getpid()}.on').touch()\n"
        "assert len(list(folder.glob('*.on'))) <= 2\n"
        "time.sleep(0.2)\n"
        "(folder / f'{os.getpid()}.on').unlink()"
    )
    commands = [(str(index), python(code)) for index in range(5)]
    assert run_all(commands, 2, None, lambda name, code: None) == 0


def test_nothing_is_started_and_all_stands_still_while_the_file_is_there(tmp_path):
    pause, begun, gate = tmp_path / "HOLD", tmp_path / "begun", tmp_path / "gate"
    pause.touch()
    code = (
        "import os, pathlib, time\n"
        f"pathlib.Path({str(begun)!r}).write_text(str(os.getpid()))\n"
        f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)"
    )
    codes = {}
    commands = [("one", python(code))]
    thread = threading.Thread(target=run_all, args=(commands, 1, pause, codes.__setitem__))
    thread.start()
    time.sleep(1.2)
    assert not begun.exists()
    pause.unlink()
    wait_for(lambda: begun.exists() and begun.read_text())
    pause.touch()
    wait_for(lambda: _state(int(begun.read_text())) == "T")
    gate.touch()
    pause.unlink()
    thread.join(PATIENCE)
    assert codes == {"one": 0}


def _state(pid):
    """T for stopped."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_one_process_at_a_time_holds_a_lock(tmp_path):
    path = tmp_path / "deep" / "run.lock"
    with locked(path), pytest.raises(ValueError, match="Another process"), locked(path):
        pass
    with locked(path):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="other systems leave the worker running")
def test_workers_end_with_a_killed_parent_even_if_they_are_stopped(tmp_path):
    lock, ready = tmp_path / "run.lock", tmp_path / "ready"
    worker = (
        "import os, pathlib, time; from examples.study.processes import end_with_parent, locked\n"
        "end_with_parent()\n"
        f"with locked(pathlib.Path({str(lock)!r})):\n"
        f"    pathlib.Path({str(ready)!r}).write_text(str(os.getpid())); time.sleep(600)"
    )
    parent = (
        "import sys; from examples.study.processes import run_all\n"
        f"run_all([('one', [sys.executable, '-c', {worker!r}])], 1, None, print)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(python(parent), env=environment)
    wait_for(lambda: ready.exists() and ready.read_text())
    os.kill(int(ready.read_text()), signal.SIGSTOP)
    process.kill()
    process.wait(PATIENCE)

    def is_free():
        try:
            with locked(lock):
                return True
        except ValueError:
            return False

    wait_for(is_free)
