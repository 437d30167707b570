"""Programs with bounds."""

import os
import signal
import sys
import time

import pytest

from tflite_tools.system import bounded


def _python(script, **options):
    return bounded.run([sys.executable, "-c", script], **{"time_limit": 60, **options})


def test_what_a_program_reads_and_writes():
    script = "import sys; sys.stdout.write(sys.stdin.read()[::-1]); print('told', file=sys.stderr)"
    done = _python(script, stdin=b"abc")
    assert (done.code, done.stdout, done.stderr) == (0, b"cba", "told\n")


def test_environment_and_folder(tmp_path):
    script = "import os; print(os.getcwd(), os.environ.get('HOME'))"
    done = _python(script, environment={}, folder=tmp_path)
    assert done.stdout.decode() == f"{tmp_path} None\n"


def test_how_it_ended():
    done = _python("import sys; sys.exit('no such thing')")
    assert done.code == 1
    assert done.reason == "exit code 1\nno such thing"
    done = _python(f"import os; os.kill(os.getpid(), {signal.SIGSEGV:d})")
    assert (done.code, done.reason) == (-signal.SIGSEGV, "SIGSEGV")


def test_time_is_bounded_for_what_it_starts_too(tmp_path):
    """A process that the program has started ends with it, whether it is stopped or not."""
    for waits in (True, False):
        note = tmp_path / f"{waits}"
        child = f"import time; time.sleep(3); open({str(note)!r}, 'w')"
        script = (
            f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}])\n"
            f"time.sleep({60 if waits else 0})"
        )
        if waits:
            with pytest.raises(bounded.TooSlowError, match=r"within 1 seconds"):
                _python(script, time_limit=1)
        else:
            _python(script)
    time.sleep(3.5)
    assert os.listdir(tmp_path) == []


def test_memory_is_bounded():
    script = "x = bytearray(2**30)"
    assert _python(script, memory=2**31).code == 0
    done = _python(script, memory=2**29)
    assert done.code == 1 and "MemoryError" in done.reason


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_is_bounded(stream):
    script = f"import sys\nwhile True: sys.{stream}.write('x' * 4096)"
    done = _python(script, most_output=2**16, time_limit=20)
    assert done.code != 0
    assert len(done.stdout) + len(done.stderr) <= 2**16 + 8192
